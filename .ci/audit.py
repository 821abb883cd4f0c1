"""Ask a database of known weaknesses (PyPI's, else OSV) about every version in constraints.txt:
`.ci/audit.py PIP_AUDIT`.

Exit code 0: none is known. 1: at least one is, they are listed. 3: no database could be asked about
all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
KNOWN, UNREACHABLE = 1, 3


def answer(program: str, service: str) -> list[dict[str, Any]] | None:
    """What a database says of each package, or None where it cannot be asked about all (pip-audit
    calls that "none known").
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        where = [
            "--requirement",
            str(CONSTRAINTS),
            "--no-deps",
            "--disable-pip",
            "--vulnerability-service",
            service,
        ]
        how = ["--progress-spinner", "off", "--format", "json", "--output", str(file)]
        subprocess.run([program, *where, *how], capture_output=True, check=False)
        packages = json.loads(file.read_text())["dependencies"] if file.is_file() else []
    return (
        packages if packages and not any("skip_reason" in package for package in packages) else None
    )


def main(program: str) -> int:
    for service in ("pypi", "osv"):
        packages = answer(program, service)
        if packages is None:
            continue
        weak = [(package, weakness) for package in packages for weakness in package["vulns"]]
        for package, weakness in weak:
            fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {fixed}")
        print(f"{len(packages)} packages, {len(weak)} known weaknesses (database: {service})")
        return KNOWN if weak else 0
    print(
        "audit: no database of known weaknesses (PyPI, OSV) can be asked from here, so nothing was"
        " checked",
        file=sys.stderr,
    )
    return UNREACHABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
