"""write_package: an installable package for a new policy, from the files in `policies/template`."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from policies.registry import PolicyError, available

FILES = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "scenario.yaml.txt": "scenario.yaml",
    "init.py.txt": "{name}/__init__.py",
    "policy.py.txt": "{name}/policy.py",
    "test_policy.py.txt": "tests/test_{name}.py",
}


def write_package(name: str, into: Path) -> Path:
    """Write the package `into/name`; nothing that is there is touched.

    Args:
        name: of the policy and of its module: small letters, digits, underscores.
        into: the folder that gets the package.

    Returns:
        The package's folder.

    Raises:
        PolicyError: not a name for a module, the name of a registered policy, or a folder that is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise PolicyError(f"a policy's name must be small letters, digits and underscores, e.g. my_policy; got {name!r}")
    taken = available()
    if name in taken:
        raise PolicyError(f"there is a policy {name!r} already, from {taken[name].distribution}; choose another name")
    folder = into / name
    if folder.exists():
        raise PolicyError(f"{folder} is there already; choose another name or another folder (--into)")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    words = {"name": name, "class_name": class_name, "distribution": name.replace("_", "-")}
    templates = Path(__file__).parent / "template"
    for source, target in FILES.items():
        file = folder / target.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template((templates / source).read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return folder
