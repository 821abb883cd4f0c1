"""List the licence of every package that is installed beside this Python; `.ci/licences.py`.

Exit code 0: each is one of `FREE`, or has its reason in `BESIDE`. 1: one is unknown, or asks for
more, and is named.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata

FREE = frozenset(
    {
        *(
            "0BSD",
            "Apache-2.0",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "BSL-1.0",
            "CC0-1.0",
            "HPND",
            "ISC",
            "LLVM-exception",
            "MIT",
            "MIT-CMU",
        ),
        *("PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    }
)
"""SPDX identifiers of licences that ask for no more than the names of the authors and the text of
the licence.
"""

WORDS = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""How older packages write the same."""

BESIDE = {
    "hypothesis": (
        "MPL-2.0",
        "for tests; changes of its own files would have to be published, and we change none",
    ),
    "pathspec": ("MPL-2.0", "for building and types; as hypothesis"),
    "tqdm": ("MPL-2.0", "progress of `implicit` and `recbole`; as hypothesis"),
}
"""Packages with a licence that is not in FREE, and why they may be used."""

NVIDIA = "NVIDIA's own licence: comes with torch where torch is built for CUDA; never shipped by us"


def licence(package: metadata.Distribution) -> str:
    """The SPDX expression that a package declares, or what it says in its place; "" where it says
    nothing.
    """
    said = package.metadata
    if "License-Expression" in said:
        return str(said["License-Expression"])
    classes = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or ()
        if line.startswith("License :: ")
    ]
    classes = [one for one in classes if one != "OSI Approved"] or [
        str(said.get("License") or "").strip().partition("\n")[0]
    ]
    return " AND ".join(WORDS.get(one, one) for one in classes)


def objection(name: str, expression: str) -> str:
    """What is wrong with a package's licence, or ""; of `A OR B` both must be free, so that a
    person looks at it once.
    """
    if name.startswith("nvidia-"):
        return ""
    parts = [
        part for part in re.split(r"[\s()]+", expression) if part not in ("AND", "OR", "WITH", "")
    ]
    others = [part for part in parts if part not in FREE and part != BESIDE.get(name, ("", ""))[0]]
    if not parts:
        return "it declares no licence"
    return f"not on the list: {' '.join(others)}" if others else ""


def main() -> int:
    """Print the list; the exit code."""
    wrong = 0
    for package in sorted(metadata.distributions(), key=lambda one: one.name.lower()):
        name, expression = package.name, licence(package)
        against = objection(name, expression)
        wrong += bool(against)
        reason = NVIDIA if name.startswith("nvidia-") else BESIDE.get(name, ("", ""))[1]
        note = f"WRONG: {against}" if against else reason
        print(
            f"{name:<24} {package.version:<20} {expression or '?'}{f'  ({note})' if note else ''}"
        )
    if wrong:
        print(
            f"licences: {wrong} packages have a licence that is not on the list of .ci/licences.py",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
