"""Mutation tests: change one place of the code at a time and see whether a test notices.

    make mutants                      # the seeded sample, or what is left of it
    make mutants MUTANTS=--all        # every mutant (days)
    make mutants MUTANTS=--again      # the survivors once more, after new tests
    make mutants MUTANTS='--seed 2 --only simulator/stats/power.py'

cosmic-ray makes the mutants and runs the tests. Each worker has a copy of the working tree, so
nothing here is touched. A kernel of numba is compiled anew for each mutant of its file: numba looks
at a file's time and size. What has been tried is kept in `.mutants/`, and the next call goes on
from there; delete the folder, or change the code, to begin anew.

Some mutants change nothing that anybody could see. Those which a rule can tell are not made (types,
decorators that compile); the others stand in `mutants.toml`, each with the reason.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import hashlib
import multiprocessing.util
import os
import random
import resource
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path

import attrs
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".mutants"

ROOMS = {
    "simulator/stats": (
        "stats_*",
        "fits",
        "metrics",
        "directions",
        "report_tables",
        "table_files",
    ),
    "simulator/offpolicy": ("offpolicy_*", "fidelity"),
    "policies/products.py": ("products", "retrieval", "nearest", "scored"),
}
"""What is mutated, and the tests that must notice it."""

FIRST = {
    "stats/adjustment": "stats_audit stats_ratios",
    "stats/analyses": "stats_audit stats_choices",
    "stats/audit": "stats_audit",
    "stats/checks": "stats_checks stats_docs",
    "stats/choices": "stats_choices",
    "stats/clustering": "stats_choices stats_designs",
    "stats/contrasts": "stats_ratios stats_verdict",
    "stats/efficiency": "stats_designs",
    "stats/frames": "stats_frames directions",
    "stats/intervals": "stats_verdict",
    "stats/looking": "stats_audit",
    "stats/margins": "directions",
    "stats/methods": "fits",
    "stats/moments": "stats_verdict stats_designs stats_checks",
    "stats/ordered": "stats_audit",
    "stats/power": "stats_power",
    "stats/quadrature": "stats_quadrature",
    "stats/quantiles": "stats_choices",
    "stats/randomise": "stats_audit",
    "stats/readings": "stats_readings",
    "stats/replication": "stats_replication",
    "stats/resampling": "stats_choices",
    "stats/rows": "report_tables stats_frames",
    "stats/segments": "stats_ratios stats_frames",
    "stats/sequential": "stats_sequential",
    "stats/tests": "stats_verdict stats_checks",
    "stats/unit_table": "stats_frames stats_choices",
    "stats/units": "metrics stats_designs",
    "stats/user_days": "stats_designs metrics",
    "stats/verdict": "stats_verdict",
    "stats/wrong": "stats_audit",
    "offpolicy/fidelity": "fidelity",
    "offpolicy/fidelity_page": "fidelity",
    "offpolicy/agreement": "fidelity",
    "offpolicy/online": "fidelity",
    "offpolicy/rounds": "offpolicy_rounds",
    "offpolicy/slates": "offpolicy_exact",
    "offpolicy/estimators": "offpolicy_exact",
    "offpolicy/reward_model": "offpolicy_exact",
    "offpolicy/target": "offpolicy_exact",
    "offpolicy": "offpolicy_replay",
    "policies/products": "products",
}
"""The tests that run before the others, because most mutants of a module (or of a folder) die in
them.
"""

SAMPLE = {"simulator/stats": 90, "simulator/offpolicy": 60, "policies/products.py": 30}
UNSEEN = ("njit", "overload", "cache", "lru_cache")
"""Decorators without which a function returns the same."""

MEMORY, PATIENCE, SPARE = 12, 5, 30
"""GiB of address space; how many times the seconds of computing that tests take without a mutant,
and seconds beyond. A mutant may ask for more memory than there is, or never end. Seconds are of the
processor, and a busy machine makes them longer: so they are measured where the mutants are tried.
"""


def files(room: str) -> list[Path]:
    place = ROOT / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def stages(path: str) -> tuple[tuple[str, ...], ...]:
    """Test files of a module: those which run first, and the others of its room."""
    patterns = next(tests for room, tests in ROOMS.items() if path.startswith(room))
    names = [path.stem.removeprefix("test_") for path in sorted((ROOT / "tests").glob("test_*.py"))]
    room = [name for name in names if any(fnmatch.fnmatch(name, one) for one in patterns)]
    place = Path(path.removeprefix("simulator/")).with_suffix("")
    places = [str(place), *map(str, place.parents)]
    first = next((FIRST[one].split() for one in places if one in FIRST), [])
    return tuple(tuple(stage) for stage in (first, room) if stage)


def command(python: str, tests: tuple[str, ...], seconds: str | int = "unlimited") -> str:
    run = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    run += [f"tests/test_{name}.py" for name in tests]
    limits = f"ulimit -v {MEMORY << 20} && ulimit -t {seconds}"
    return shlex.join(["sh", "-c", f"{limits} && exec {shlex.join(run)}"])


# Which mutants.


def unseen(path: Path) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Begin and end of what nobody can see when it changes: types, and decorators that compile."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        types = [getattr(node, "returns", None), getattr(node, "annotation", None)]
        decorators = getattr(node, "decorator_list", [])
        types += [one for one in decorators if any(name in ast.unparse(one) for name in UNSEEN)]
        for one in types:
            if one is not None:
                # The @ of a decorator stands one place before it.
                yield (one.lineno, one.col_offset - 1), (one.end_lineno, one.end_col_offset)


def choose(items: list[WorkItem], room: str, n: int | None, seed: int) -> list[WorkItem]:
    """`n` of a room's mutants: places in turn from all of its modules, of each place one mutant."""
    spans = {path: list(unseen(path)) for path in files(room)}
    places: dict[Path, dict[tuple[int, int], list[WorkItem]]] = {}
    for item in items:
        one = item.mutations[0]
        inside = any(
            low <= one.start_pos and one.end_pos <= high for low, high in spans[one.module_path]
        )
        if not inside:
            places.setdefault(one.module_path, {}).setdefault(one.start_pos, []).append(item)
    if n is None:
        return [item for of_place in places.values() for some in of_place.values() for item in some]
    draw = random.Random(f"{seed} {room}")
    queues = []
    for _, of_place in sorted(places.items()):
        order = sorted(of_place)
        draw.shuffle(order)
        queues.append([draw.choice(sorted(of_place[place], key=kind)) for place in order])
    taken: list[WorkItem] = []
    # A module gives as many of its places as it has a share of all, so round after round.
    while len(taken) < n and any(queues):
        weights = [len(queue) for queue in queues]
        taken.append(draw.choices(queues, weights)[0].pop())
    return taken


def module(item: WorkItem) -> str:
    return str(item.mutations[0].module_path.relative_to(ROOT))


def kind(item: WorkItem) -> tuple[str, int]:
    return item.mutations[0].operator_name, item.mutations[0].occurrence


def prepare(db: WorkDB, n: int | None, seed: int, only: str) -> None:
    """Put the mutants that are to be tried into the session."""
    rooms = {room: [path for path in files(room) if only in str(path)] for room in ROOMS}
    init([path for paths in rooms.values() for path in paths], db, {})
    items = db.work_items
    wanted: list[WorkItem] = []
    for room, paths in rooms.items():
        own = [item for item in items if item.mutations[0].module_path in paths]
        share = None if n is None else max(1, n * SAMPLE[room] // sum(SAMPLE.values()))
        wanted += choose(own, room, share, seed)
    db.clear()
    db.add_work_items(wanted)


# The work of one worker.


def begin() -> None:
    """Make this worker's copy of the tree, kernels included, and go there."""
    copy = tempfile.mkdtemp(prefix="mutants-")
    multiprocessing.util.Finalize(None, shutil.rmtree, (copy, True), exitpriority=1)
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=left_out)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = copy
    os.environ.setdefault("ABTEST_DATA", str(ROOT.parent / "shared" / "data"))


LONGEST = 14400
"""Seconds of a clock after which tests are ended that wait for something instead of computing."""


def attempt(item: WorkItem, python: str) -> WorkResult:
    """One mutant: its first tests, and where it survives them the others of the room."""
    own = attrs.evolve(item.mutations[0], module_path=Path(module(item)))
    for tests in stages(module(item)):
        limited = command(python, tests, limit(tests, python))
        result = mutate_and_test([own], limited, LONGEST)
        if result.test_outcome != TestOutcome.SURVIVED:
            break
    return result


@lru_cache
def limit(tests: tuple[str, ...], python: str) -> int:
    """The seconds of computing that these tests may take; they are run without a mutant to see.

    Raises:
        RuntimeError: they fail, so they could not tell anything of a mutant.
    """
    before = computed()
    outcome, output = run_tests(command(python, tests), LONGEST)
    if outcome != TestOutcome.SURVIVED:
        raise RuntimeError(f"{' '.join(tests)} fail without any mutant:\n{output[-3000:]}")
    return SPARE + PATIENCE * round(computed() - before)


def computed() -> float:
    """Seconds of computing of the tests so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# What came out.


def change(item: WorkItem, result: WorkResult) -> tuple[str, str, str]:
    """In which function, and the line before and after, without its indentation."""
    lines = (result.diff or "").splitlines()
    before = [line[1:].strip() for line in lines if line.startswith("-") and line[:3] != "---"]
    after = [line[1:].strip() for line in lines if line.startswith("+") and line[:3] != "+++"]
    return item.mutations[0].definition_name or "", "\n".join(before), "\n".join(after)


def outcome(result: WorkResult) -> str:
    if result.test_outcome == TestOutcome.SURVIVED:
        return "survived"
    said = result.output or ""
    return "killed" if "FAILED" in said or "ERROR" in said else "killed by a limit"


def report(db: WorkDB) -> int:
    """Print every survivor and the score of each room; 1 where a score is below 90%."""
    listed = tomllib.loads((ROOT / ".ci" / "mutants.toml").read_text(encoding="utf-8"))
    equivalent = {(one["in"], one["before"], one["after"]) for one in listed["equivalent"]}
    low = False
    for room in ROOMS:
        done = [
            (item, result)
            for item, result in db.completed_work_items
            if module(item).startswith(room)
        ]
        if not done:
            continue
        survivors = [one for one in done if outcome(one[1]) == "survived"]
        unlisted = [one for one in survivors if change(*one) not in equivalent]
        for item, result in unlisted:
            name, before, after = change(item, result)
            print(f"{module(item)}:{item.mutations[0].start_pos[0]} in {name}")
            print(f"  - {before}\n  + {after}")
        killed, same = len(done) - len(survivors), len(survivors) - len(unlisted)
        score = killed / max(killed + len(unlisted), 1)
        limits = sum(outcome(result) == "killed by a limit" for _, result in done)
        low |= score < 0.9
        print(
            f"{room}: {killed} of {killed + len(unlisted)} mutants killed ({score:.0%}), {limits}"
            f" of them by a limit; {same} more are equivalent"
        )
    return int(low)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=str(ROOT / ".venv" / "bin" / "python"))
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--sample", type=int, default=sum(SAMPLE.values()), help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", default="", help="modules whose path contains this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="also those that survived before")
    parser.add_argument("--report", action="store_true", help="only print what there is")
    options = parser.parse_args()

    n = None if options.all else options.sample
    code = [path.read_bytes() for room in ROOMS for path in files(room)]
    key = hashlib.sha256(b"".join(code) + f"{n} {options.seed} {options.only}".encode()).hexdigest()
    STATE.mkdir(exist_ok=True)
    session = STATE / f"{key[:16]}.sqlite"
    if not session.exists():
        part = session.with_suffix(".part")
        part.unlink(missing_ok=True)
        with use_db(str(part)) as db:
            prepare(db, n, options.seed, options.only)
        part.replace(session)
    with use_db(str(session)) as db:
        pending = list(db.pending_work_items)
        if options.again:
            done = db.completed_work_items
            pending += [item for item, result in done if outcome(result) == "survived"]
        if options.report:
            pending = []
        if pending:
            run(db, pending, options.python, options.workers)
        return report(db)


def run(db: WorkDB, pending: list[WorkItem], python: str, workers: int) -> None:
    """Try the mutants, those of a module by any worker; each result is kept as it comes."""
    with ProcessPoolExecutor(workers, initializer=begin) as pool:
        tries = {pool.submit(attempt, item, python): item for item in pending}
        for n, job in enumerate(as_completed(tries), 1):
            item, result = tries[job], job.result()
            db.set_result(item.job_id, result)
            spec = item.mutations[0]
            place = f"{module(item)}:{spec.start_pos[0]}"
            print(f"{n}/{len(tries)} {outcome(result)} {place} {spec.operator_name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
