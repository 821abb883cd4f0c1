"""Mutation tests: change one place of the code at a time and see whether a test notices.

    make mutants                      # the seeded sample, or what is left of it
    make mutants MUTANTS=--all        # every mutant (days)
    make mutants MUTANTS=--again      # the survivors once more, after new tests
    make mutants MUTANTS='--seed 2 --only simulator/stats/power.py'

cosmic-ray makes the mutants. All tests of a room are run once under coverage; on each mutant those
are tried that run its lines, the quickest first, until one fails or `SECONDS` of computing are
over. So a mutant counts as killed only if a test failed on it, or ran into a limit far beyond that;
a survivor may still die in tests that were not tried.

Each worker has a copy of the working tree, so nothing here is touched, and has loaded what lies on
the floors below the room, so that a mutant costs its tests and little else. A kernel of numba is
compiled anew for each mutant of its file: numba looks at a file's time and size. What has been
tried is kept in `.mutants/`, and the next call goes on from there; delete the folder to begin anew.

Some mutants change nothing that anybody could see. Those which a rule can tell are not made (types,
decorators that compile, guards); the others stand in `mutants.toml`, each with the reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import coverage
import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.plugins import get_operator, operator_names
from numba.core.compiler_lock import global_compiler_lock
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".mutants"

ROOMS = {
    "simulator/stats": (
        "stats_*",
        "fit_checks",
        "fits",
        "metrics",
        "directions",
        "report_tables",
        "table_files",
        "launches",
        "learned_metric",
        "units",
    ),
    "simulator/offpolicy": ("offpolicy_*", "fidelity", "rollout", "pooled", "launches"),
    "policies/products.py": ("products", "retrieval", "nearest", "scored"),
}
"""What is mutated, and the tests that must notice it."""

SAMPLE = {"simulator/stats": 70, "simulator/offpolicy": 42, "policies/products.py": 14}
UNSEEN = ("njit", "overload", "cache", "lru_cache")
"""Decorators without which a function returns the same."""

GUARDS = ("frozen", "slots", "strict")
"""Arguments that nothing but a mistake in a later change of the code would meet."""

LIBRARIES = ("numba", "numpy", "pandas", "pyarrow", "pydantic", "scipy.stats", "statsmodels.api")
BELOW = {
    "simulator/stats": ("policies.check", "simulator.users.choice", "simulator.log.eventlog"),
    "simulator/offpolicy": ("simulator.run.pipeline", "simulator.report", "simulator.datasets"),
    "policies/products.py": (),
}
"""What is loaded once: it imports nothing of the room."""

SECONDS, LIMIT, MEMORY = 20, 150, 12
"""Seconds of computing after which no further test is begun; after which a mutant counts as killed
by a limit; GiB of address space. A mutant may ask for more memory than there is, or never end.
"""

LOOK = 4
"""Seconds of computing that the survey looks at a test."""

LONGEST = 3600
"""Seconds of a clock after which tests are ended that wait for something instead of computing."""

Place = tuple[Path, int, int, int]
"""A mutant: its file, which node of it, which operator of cosmic-ray, which of its ways."""

Kept = dict[str, Any]
"""A mutant: its file, function and line, the line before and after, its outcome and the test."""

Ran = dict[str, Any]
"""Tests: the seconds that each computes, and the lines of each of our files that it runs."""


def files(room: str) -> list[Path]:
    place = ROOT / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


# Which mutants.


def unseen(path: Path) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Begin and end of what nobody can see when it changes: types, decorators that compile, and
    guards.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        types = [getattr(node, "returns", None), getattr(node, "annotation", None)]
        decorators = getattr(node, "decorator_list", [])
        types += [one for one in decorators if any(name in ast.unparse(one) for name in UNSEEN)]
        types += [node] if isinstance(node, ast.keyword) and node.arg in GUARDS else []
        for one in types:
            if one is not None:
                # The @ of a decorator stands one place before it.
                yield (one.lineno, one.col_offset - 1), (one.end_lineno, one.end_col_offset)


def possible(paths: list[Path]) -> list[list[Place]]:
    """The mutants of each place, in the order of files and lines."""
    operators = [get_operator(name) for name in sorted(operator_names())]
    every = [operator() for operator in operators if not operator.arguments()]
    places = defaultdict(list)
    for path in paths:
        spans = list(unseen(path))
        nodes = (node for node in ast_nodes(get_ast_from_path(path)) if is_changed(node))
        for number, node in enumerate(nodes):
            for of, operator in enumerate(every):
                for index, (begin, end) in enumerate(operator.mutation_positions(node)):
                    if not any(low <= begin and end <= high for low, high in spans):
                        places[path, begin].append((path, number, of, index))
    return [places[place] for place in sorted(places)]


CHANGED = ("comparison", "factor", "not_test", "test", "number", "keyword")
CHANGED += ("if_stmt", "while_stmt", "assert_stmt", "for_stmt", "decorator", "except_clause")


def is_changed(node: NodeOrLeaf) -> bool:
    """Whether an operator of cosmic-ray may change it: there are 200, slow to ask one by one."""
    if node.type == "except_clause":  # a tuple of exceptions is not changed
        return node.children[1].type == "name"
    return node.type in CHANGED or (node.type == "operator" and node.value not in "()[]{},.:=;->")


def choose(places: list[list[Place]], n: int, draw: random.Random) -> list[Place]:
    """One mutant of each of `n` places, at equal distances from a random start.

    So every file gives as many as it has a share of all places.
    """
    step = len(places) / min(n, len(places))
    start = draw.uniform(0, step)
    return [
        draw.choice(places[int(start + step * number)]) for number in range(min(n, len(places)))
    ]


def describe(place: Place) -> Kept:
    """The mutant, by what does not move when other code does."""
    path, number, of, index = place
    operators = [get_operator(name) for name in sorted(operator_names())]
    operator = [one for one in operators if not one.arguments()][of]()
    tree = get_ast_from_path(path)
    before = tree.get_code()
    node = [node for node in ast_nodes(tree) if is_changed(node)][number]
    line = node.start_pos[0]
    name, parent = ASTQuery(node).get_definition_name(), node.parent
    changed = operator.mutate(node, index)
    if changed is not node:
        parent.children = [changed if one is node else one for one in parent.children]
        parent.children = [one for one in parent.children if one is not None]
    code = tree.get_code()
    old, new = before.splitlines(), code.splitlines()
    # What differs, without the lines that are alike before and after it.
    low = next((row for row, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
    high = 0
    while high < min(len(old), len(new)) - low and old[-1 - high] == new[-1 - high]:
        high += 1
    return {
        "file": str(path.relative_to(ROOT)),
        "line": line,
        "statement": list(statement(before, line)),
        "in": name or "",
        "before": "\n".join(row.strip() for row in old[low : len(old) - high]),
        "after": "\n".join(row.strip() for row in new[low : len(new) - high]),
        "code": code,
    }


def statement(code: str, line: int) -> range:
    """The lines of the innermost statement of a function that has this line; of a compound
    statement its head alone. Empty where the line is outside of functions and runs at an import.
    """
    heads = [range(0)]
    for function in ast.walk(ast.parse(code)):
        if isinstance(function, ast.FunctionDef):
            for node in (one for part in function.body for one in ast.walk(part)):
                if isinstance(node, ast.stmt):
                    body = getattr(node, "body", None)
                    end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
                    heads.append(range(node.lineno, end + 1))
    return min((head for head in heads if line in head), key=len, default=heads[0])


# Which tests.

FIXTURES = "fixtures"


def of_room(room: str) -> list[Path]:
    """The test files of a room."""
    return [
        path
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if any(fnmatch.fnmatch(path.stem.removeprefix("test_"), one) for one in ROOMS[room])
    ]


class Survey:
    """Writes down which lines each test runs, and how long it computes, with the fixtures that it
    asks for, whoever asked first.
    """

    def __init__(self, tracer: coverage.Coverage) -> None:
        self.tracer = tracer
        self.seconds: dict[str, float] = defaultdict(float)
        self.shared: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self.test, begin = item.nodeid.split("[")[0], computed()
        before = sum(self.shared.values())
        self.tracer.switch_context(self.test)
        result = yield
        own = computed() - begin - (sum(self.shared.values()) - before)
        self.seconds[self.test] += own + sum(self.shared[name] for name in item.fixturenames)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        # A test that computes for long is cut off: what it ran by then is known.
        self.is_cut = False
        signal.signal(signal.SIGPROF, self.cut)
        signal.setitimer(signal.ITIMER_PROF, LOOK, 0.5)
        try:
            return (yield)
        except BaseException:
            if self.is_cut:  # what it made of that is no failure
                pytest.skip("the seconds are over")
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def cut(self, *_: object) -> None:
        if not global_compiler_lock.is_locked():  # a kernel half compiled would fail other tests
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.is_cut = True
            pytest.skip("the seconds are over")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        # What a fixture of a whole file runs belongs to all tests of the file.
        is_shared, begin = fixturedef.scope != "function", computed()
        if is_shared:
            self.tracer.switch_context(FIXTURES)
        result = yield
        if is_shared:
            self.shared[fixturedef.argname] += computed() - begin
        self.tracer.switch_context(self.test)
        return result


def survey(tests: Path) -> Ran:
    """The tests of a file, each with its seconds and the lines of our modules that it runs."""
    to = Path("survey.json")

    def work() -> int:
        folders = [name for name in ROOMS if Path(name).is_dir()]
        tracer = coverage.Coverage(None, config_file=False, source=[*folders, "policies"])
        noted = Survey(tracer)
        tracer.start()
        run = ["-q", "-p", "no:cacheprovider", str(tests.relative_to(ROOT))]
        status = pytest.main(run, plugins=[noted])
        tracer.stop()
        data = tracer.get_data()
        ran: Ran = {test: {"seconds": t, "lines": {}} for test, t in noted.seconds.items()}
        for path in data.measured_files():
            name = os.path.relpath(path)
            for line, who in data.contexts_by_lineno(path).items():
                for test in ran if FIXTURES in who else set(who) - {""}:
                    ran[test]["lines"].setdefault(name, []).append(line)
        to.write_text(json.dumps(ran))
        return int(status)

    if status := apart(work, LONGEST):
        raise RuntimeError(f"{tests.name} fails without a mutant (pytest ended with {status})")
    return json.loads(to.read_text())


def surveyed(room: str, workers: int) -> Ran:
    """What the tests of a room run; what has been found out is kept as long as nothing changes."""
    code = [path.read_bytes() for name in ROOMS for path in files(name)]
    kept = {
        path: STATE / f"survey-{path.stem}-{digest(path.read_bytes(), *code)}.json"
        for path in of_room(room)
    }
    new = [path for path in kept if not kept[path].exists()]
    with crew(room, workers) as pool:
        for path, ran in zip(new, pool.map(survey, new), strict=True):
            kept[path].write_text(json.dumps(ran))
            print(f"{path.name}: {sum(one['seconds'] for one in ran.values()):.0f} s", flush=True)
    return {
        test: ran for path in kept.values() for test, ran in json.loads(path.read_text()).items()
    }


def running(mutant: Kept, ran: Ran) -> list[str]:
    """The tests that a mutant has to survive, the quickest first: those that run its lines;
    where none is seen to (what runs at an import, and kernels) those that run any of its file; or
    else all of the room.
    """
    lines = {test: set(one["lines"].get(mutant["file"], ())) for test, one in ran.items()}
    own = set(mutant["statement"])
    tests = [test for test in ran if lines[test] & own] or [test for test in ran if lines[test]]
    return sorted(tests or ran, key=lambda test: ran[test]["seconds"])


# The work of one worker.


def begin(room: str) -> None:
    """Make this worker's copy of the tree, kernels included, and load what a mutant leaves as it
    is: libraries, and our modules on the floors below the room.
    """
    copy = tempfile.mkdtemp(prefix="mutants-")
    multiprocessing.util.Finalize(None, shutil.rmtree, (copy, True), exitpriority=1)
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=left_out)
    os.chdir(copy)
    sys.path.insert(0, copy)
    os.environ["PYTHONPATH"] = copy
    os.environ.setdefault("ABTEST_DATA", str(ROOT.parent / "shared" / "data"))
    for name in (*LIBRARIES, *BELOW[room]):
        importlib.import_module(name)


def crew(room: str, workers: int) -> ProcessPoolExecutor:
    """Workers of a room, whose tests may begin processes of their own."""
    fork = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, fork, begin, (room,))


def computed() -> float:
    """Seconds of computing of this process and of those that it waited for."""
    return sum(os.times()[:4])


def apart(work: Callable[[], int], limit: int) -> int:
    """The status of a process that does this: its exit code, or less than 0 for a signal."""
    pid = os.fork()
    if not pid:
        status = 3
        try:
            os.setsid()
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY << 30, MEMORY << 30))
            signal.alarm(LONGEST)
            status = int(work())
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):  # it left no process behind
        os.killpg(pid, signal.SIGKILL)
    return status


class Watch:
    """Writes down the first test that failed, and stops when the seconds are over."""

    def __init__(self, to: Path) -> None:
        self.to, self.end = to, computed() + SECONDS

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.to.write_text(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.to.exists():
            self.to.write_text(report.nodeid)
        elif computed() > self.end:
            pytest.exit("the seconds are over", 0)


def attempt(mutant: Kept) -> Kept:
    """Run its tests on a mutant, and say what became of it."""
    path, note = Path(mutant["file"]), Path("killer")
    tests = mutant.pop("tests")
    note.unlink(missing_ok=True)
    original, times = path.read_bytes(), path.stat()
    path.write_text(mutant.pop("code"), encoding="utf-8")
    try:
        run = ["-x", "-q", "-p", "no:cacheprovider", *tests]
        status = apart(lambda: pytest.main(run, plugins=[Watch(note)]), LIMIT)
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    killer = note.read_text() if note.exists() else ""
    if status == pytest.ExitCode.USAGE_ERROR:  # a file of tests cannot be imported any more
        killer = tests[0]
    if status > 0 and not killer:
        raise RuntimeError(f"pytest ended with {status} and no failure: {' '.join(tests)}")
    survived = "survived" if status == 0 else "killed by a limit"
    return mutant | {"outcome": "killed" if killer else survived, "test": killer}


def control(killers: set[str]) -> None:
    """Hold that the tests which failed on a mutant pass without one.

    Raises:
        RuntimeError: they do not, so they say nothing of any mutant.
    """
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sorted(killers)]
    if killers and subprocess.run(run, cwd=ROOT, check=False).returncode:
        raise RuntimeError("a test that failed on a mutant fails without one, too")


# What came out.


def interval(killed: int, n: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a share."""
    z, share = 1.959964, killed / n
    middle, width = (
        share + z * z / (2 * n),
        z * math.sqrt(share * (1 - share) / n + (z / n / 2) ** 2),
    )
    return (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)


def report(results: list[Kept]) -> int:
    """Print every survivor and the score of each room; 1 where the score of all is below 90%."""
    listed = tomllib.loads((ROOT / ".ci" / "mutants.toml").read_text(encoding="utf-8"))
    name = lambda one: (one["in"], one["before"], one["after"])  # noqa: E731
    equivalent = {name(one) for one in listed["equivalent"]}
    score = 1.0
    for room in (*ROOMS, ""):
        done = [one for one in results if one["file"].startswith(room)]
        survivors = [one for one in done if one["outcome"].startswith("survived")]
        alive = [one for one in survivors if name(one) not in equivalent]
        for one in alive if room else ():
            print(f"{one['file']}:{one['line']} in {one['in']}: {one['outcome']}")
            print(f"  - {one['before']}\n  + {one['after']}")
        killed, limits = len(done) - len(survivors), sum("limit" in one["outcome"] for one in done)
        if n := killed + len(alive):
            score = killed / n
            low, high = interval(killed, n)
            print(
                f"{room or 'all'}: {killed} of {n} mutants killed ({score:.0%}, 95% interval"
                f" {low:.0%} to {high:.0%}), {limits} of them by a limit;"
                f" {len(survivors) - len(alive)} more are equivalent"
            )
    return int(score < 0.9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--sample", type=int, default=sum(SAMPLE.values()), help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", default="", help="modules whose path contains this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="also those that survived before")
    parser.add_argument("--report", action="store_true", help="only print what there is")
    options = parser.parse_args()

    code = [path.read_bytes() for room in ROOMS for path in files(room)]
    which = f"{options.all} {options.sample} {options.seed} {options.only}"
    STATE.mkdir(exist_ok=True)
    sample = STATE / f"{digest(*code, which.encode())}.json"
    tried = sample.with_suffix(".jsonl")
    if not sample.exists():
        draw = random.Random(options.seed)
        mutants = []
        for room in ROOMS:
            places = possible([path for path in files(room) if options.only in str(path)])
            share = max(1, options.sample * SAMPLE[room] // sum(SAMPLE.values()))
            every = [one for place in places for one in place]
            mutants += every if options.all else choose(places, share, draw) if places else []
        # In random order, so that a run that is stopped has tried a sample, too.
        draw.shuffle(mutants)
        sample.write_text(json.dumps([describe(one) for one in mutants]))
    tried.touch()
    done = {one["number"]: one for one in map(json.loads, tried.read_text().splitlines())}
    pending = []
    for number, mutant in enumerate(json.loads(sample.read_text())):
        before = done.get(number, {}).get("outcome", "")
        if number not in done or (options.again and before.startswith("survived")):
            pending.append(mutant | {"number": number})
    if pending and not options.report:
        for room in ROOMS:
            own = [one for one in pending if one["file"].startswith(room)]
            if not own:
                continue
            ran = surveyed(room, options.workers)
            own = [one | {"tests": running(one, ran)} for one in own]
            with crew(room, options.workers) as pool:
                tried_now = as_completed([pool.submit(attempt, one) for one in own])
                for n, one in enumerate((each.result() for each in tried_now), 1):
                    done[one["number"]] = one
                    with tried.open("a") as kept:
                        kept.write(json.dumps(one) + "\n")
                    place = f"{one['file']}:{one['line']}"
                    print(f"{n}/{len(own)} {one['outcome']} {place} {one['test']}", flush=True)
            control({one["test"] for one in done.values() if one["file"].startswith(room)} - {""})
    return report(list(done.values()))


if __name__ == "__main__":
    sys.exit(main())
