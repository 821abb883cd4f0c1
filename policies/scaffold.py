"""write_package: an installable package for a new policy, from the files in `policies/template`."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib import metadata
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
        PolicyError: not a name for a module, the name of a registered policy, of a module of Python
            or of an installed package, or a folder that is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name) or keyword.iskeyword(name):
        rule = (
            "a policy's name must be small letters, digits and underscores, 60 at most, and no"
            " keyword of Python, e.g. my_policy"
        )
        raise PolicyError(f"{rule}; got {name!r}")
    taken = available()
    if name in taken:
        raise PolicyError(
            f"there is a policy {name!r} already, from {taken[name].distribution}; choose another"
            " name"
        )
    folder = into / name
    if folder.exists():
        raise PolicyError(
            f"{folder} is there already; choose another name or another folder (--into)"
        )
    owner = _owner(name)
    if owner:
        raise PolicyError(
            f"a package {name!r} would stand in the way of {owner}; choose another name"
        )
    class_name = "".join(part.capitalize() for part in name.split("_"))
    templates = Path(__file__).parent / "template"
    if re.search(
        rf"^from .* import .*\b{class_name}\b",
        (templates / "policy.py.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    ):
        raise PolicyError(
            f"the class of {name!r} would be called {class_name}, as something that it imports;"
            " choose another name"
        )
    words = {"name": name, "class_name": class_name, "distribution": name.replace("_", "-")}
    for source, target in FILES.items():
        file = folder / target.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            Template((templates / source).read_text(encoding="utf-8")).substitute(words),
            encoding="utf-8",
        )
    return folder


def _owner(name: str) -> str:
    """Whose module or distribution already has this name; "" if it is free."""
    if name in sys.stdlib_module_names:
        return f"Python's own module {name!r}"
    if name == "tests":
        return "the folder of its own tests"
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec(name) is not None:
            return f"the installed module {name!r}"
        return ""
    return f"the installed package {distribution.name} {distribution.version}"
