"""Run the cases of every kind, or of one; what failed is printed with the command that repeats
it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fuzz import harness


def drive(suite: str, kinds: Mapping[str, Any], seconds: float = harness.SECONDS) -> int:
    """Run a suite as the command line asks. Returns 0: everything ended as it must. 1: something
    did not.

    Args:
        suite: module that is run, for the commands that are shown.
        kinds: kind -> the module (or object) that has its `case`, and how many seeds make a full
            run, `COUNT`.
        seconds: how long a case may take; 0: cases watch over that themselves.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {suite}", description=__doc__)
    parser.add_argument(
        "--kind", choices=kinds, action="append", help="repeatable; all if left out"
    )
    parser.add_argument("--seed", type=int, help="one seed alone, with its whole traceback")
    parser.add_argument("--first", type=int, default=0, help="first seed (default 0)")
    parser.add_argument(
        "--n", type=int, help="seeds of each kind; the full number of the kind if left out"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep in FILE what was done, and go on from there",
    )
    asked = parser.parse_args()
    chosen = asked.kind or list(kinds)
    if asked.seed is not None:
        for kind in chosen:
            print(kind, asked.seed, harness.one(kind, kinds[kind].case, asked.seed, seconds))
        return 0
    state = _State(asked.resume)
    for kind in chosen:
        n = kinds[kind].COUNT if asked.n is None else asked.n
        _go(kind, kinds[kind].case, state, range(asked.first, asked.first + n), seconds)
    failed = {kind: sorted(map(int, wrong)) for kind, wrong in state.wrong.items() if wrong}
    for kind, seeds in failed.items():
        for seed in seeds:
            print(
                f"\nFAILED: python -m {suite} --kind {kind} --seed"
                f" {seed}\n{state.wrong[kind][str(seed)]}",
                file=sys.stderr,
            )
    print(
        f"{sum(map(sum, (e.values() for e in state.ends.values())))} cases ended well,"
        f" {sum(map(len, failed.values()))} did not"
    )
    return 1 if failed else 0


class _State:
    """What has been done so far: ends and failures by kind, and the next seed; kept in a file where
    one is given.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.saved = path, time.monotonic()
        kept = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self.next: dict[str, int] = kept.get("next", {})
        self.ends: dict[str, dict[str, int]] = kept.get("ends", {})
        self.wrong: dict[str, dict[str, str]] = kept.get("wrong", {})

    def add(self, kind: str, seed: int, found: harness.Found) -> None:
        ends = self.ends.setdefault(kind, {})
        for end, count in found.ends.items():
            ends[end] = ends.get(end, 0) + count
        self.wrong.setdefault(kind, {}).update(
            {str(seed): text for seed, text in found.wrong.items()}
        )
        self.next[kind] = seed + 1
        if time.monotonic() - self.saved > 5 or found.wrong:
            self.save()

    def save(self) -> None:
        self.saved = time.monotonic()
        if self.path is not None:
            staged = self.path.with_suffix(".part")
            staged.write_text(
                json.dumps({"next": self.next, "ends": self.ends, "wrong": self.wrong}, indent=1)
            )
            staged.replace(self.path)


def _go(kind: str, case: harness.Case, state: _State, seeds: range, seconds: float) -> None:
    begun = time.monotonic()
    for seed in range(max(seeds.start, state.next.get(kind, seeds.start)), seeds.stop):
        state.add(kind, seed, harness.run(kind, case, [seed], seconds=seconds))
        if sys.stderr.isatty():
            print(
                f"\r{kind} {seed + 1 - seeds.start}/{len(seeds)}",
                end="",
                file=sys.stderr,
                flush=True,
            )
    state.save()
    ends = ", ".join(f"{count} {end}" for end, count in sorted(state.ends.get(kind, {}).items()))
    print(
        f"{kind}: {ends}; {len(state.wrong.get(kind, {}))} failed"
        f" ({time.monotonic() - begun:.0f} s)",
        flush=True,
    )
