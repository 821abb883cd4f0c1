"""One experiment: a family of systems on one data set with one seed, as a scenario with held-out
users; each is run once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from policies.base import TUNED, Catalogue, Histories, IntArray, Progress
from policies.similar import suggest
from policies.validation import discount
from simulator.log.eventlog import EventLog
from simulator.log.files import load_arrays, staged, write_text
from simulator.log.ledger import Ledger
from simulator.log.metadata import HISTORY
from simulator.reproduce.published import DATASETS
from simulator.reproduce.systems import FAMILIES, Family, Protocol
from simulator.run.executors import executor

READ = 128
"""Impressions of a history that policies are given, at most."""

DEPTH = 10
"""Length of the slate: the largest k of the tables."""

FINISHED, SPENT = "seconds.json", "spent.json"
"""What the run of an experiment ends by writing, its cost; and the cost of what is done so far."""

SECONDS = "CPU seconds"
"""Their one key: of the processes that worked on it, those that were interrupted included."""

Floats = npt.NDArray[np.float64]


class ReproduceError(ValueError):
    """Tables that cannot be made from what was given; the message says what is missing and where it
    was looked for.
    """


@dataclass(frozen=True)
class Dataset:
    """A file of interaction sequences.

    Attributes:
        name: as printed; the short name of the paper for its own data sets.
        path: the file.
    """

    name: str
    path: Path

    @property
    def source(self) -> Literal["s3rec", "inter"]:
        """`data.source` of a scenario."""
        return "inter" if self.path.name.removesuffix(".gz").endswith(".inter") else "s3rec"

    @property
    def attributes(self) -> Path:
        """The file that would have the attributes of the items."""
        from simulator.datasets import inter, s3rec

        if self.source == "inter":
            return inter.item_file(self.path)
        return s3rec.attributes_of(self.path)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file and of what is read beside it, with their endings."""
        from simulator.datasets import inter, s3rec

        found = hashlib.sha256()
        for path in (self.path, *(inter if self.source == "inter" else s3rec).beside(self.path)):
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            found.update(
                f"{path.name.removeprefix(self.path.name.partition('.')[0])} {content}\n".encode()
            )
        return found.hexdigest()

    @cached_property
    def statistics(self) -> tuple[int, int, int, int]:
        """Users, items, actions, and the longest history, as they are read."""
        catalogue, history, future = self._read()
        lengths = np.diff(history.sequences().offsets)
        return (
            catalogue.n_users,
            catalogue.n_items,
            history.n_rows + future.n_rows,
            int(lengths.max(initial=1)),
        )

    @cached_property
    def held(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Clicks before the held-out item, and others' clicks of that item, of each user with one,
        `[users]` each, users ascending.
        """
        catalogue, history, future = self._read()
        clicks = history.sequences().clicks()
        user, item = (future.table[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        order = np.argsort(user, kind="stable")
        before = np.zeros(catalogue.n_users, dtype=np.int64)
        before[clicks.user] = np.diff(clicks.offsets)
        popularity = np.bincount(clicks.items, minlength=catalogue.n_items + 1)
        return before[user[order]], popularity[item[order]]

    def requests(self) -> tuple[Histories, IntArray]:
        """The request that each user with a held-out item makes in the scenarios of the tables, and
        that item `[users]`, users ascending.
        """
        _, history, future = self._read()
        user, item = (future.table[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        order = np.argsort(user, kind="stable")
        sequences, longest = history.sequences(), self.statistics[3]
        row = np.searchsorted(sequences.user, user[order])
        recent = sequences.last(min(longest, READ)).rows(row)
        return replace(recent, seen=sequences.last(longest).rows(row).items), item[order]

    def _read(self) -> tuple[Catalogue, EventLog, EventLog]:
        """Catalogue, history and what is held out; not kept, because a data set travels to every
        worker.
        """
        from simulator.datasets import read
        from simulator.scenario.parts import Data

        source = read(Data(source=self.source, path=str(self.path)), Path())
        assert source.history is not None
        assert source.future is not None
        return source.catalogue, source.history, source.future


def find(folder: Path, names: tuple[str, ...]) -> list[Dataset]:
    """The data sets of a folder.

    Args:
        folder: holds `NAME.txt` (S3-Rec) or `NAME.inter` (RecBole) files, or has a folder `s3rec`
            that does.
        names: which: a short name of the paper (`beauty`) or a file's own name without its ending,
            in any case; empty: those of the paper that are there.

    Raises:
        ReproduceError: one that was asked for is not there, or none is.
    """
    if not folder.is_dir():
        raise ReproduceError(
            f"--data {folder}: no such folder; it should hold files such as Beauty.txt"
        )
    files: dict[str, Path] = {}
    for place in (folder / "s3rec", folder):
        for file in sorted(place.glob("*")) if place.is_dir() else ():
            stem = file.name.removesuffix(".gz")
            if stem.endswith((".txt", ".inter")):
                files[stem.rpartition(".")[0].lower()] = file
    short = {official.lower(): name for name, official in DATASETS.items()}
    if not names:
        found = [
            Dataset(name, files[official.lower()])
            for name, official in DATASETS.items()
            if official.lower() in files
        ]
        if not found:
            raise ReproduceError(
                f"--data {folder}: none of the paper's files is there"
                f" ({', '.join(f'{f}.txt' for f in DATASETS.values())})"
            )
        return found
    chosen = []
    for name in names:
        key = DATASETS.get(name.lower(), name).lower()
        if key not in files:
            others = f"it holds {', '.join(sorted(files)) or 'no .txt or .inter file'}"
            hint = suggest(key, files, others)
            raise ReproduceError(f"--datasets {name}: no such file in {folder}; {hint}")
        chosen.append(Dataset(short.get(key, files[key].name.partition(".")[0]), files[key]))
    return chosen


@dataclass(frozen=True)
class Experiment:
    """A family on a data set, trained by a protocol with a seed.

    Attributes:
        dataset: whose users are asked.
        family: systems that share a fit.
        protocol: of the training.
        seed: of the fit.
        ahead: how many clicks at each user's end are held out, and to be found by one slate.
        slate: items that are recalled and shown. Longer slates than those of the tables are served
            by the fit that the tables have.
    """

    dataset: Dataset
    family: Family
    protocol: Protocol
    seed: int
    ahead: int = 1
    slate: int = DEPTH

    def scenario(self) -> dict[str, Any]:
        """The scenario, as it could stand in a YAML file."""
        longest = self.dataset.statistics[3]
        several = self.ahead > 1
        return {
            "name": f"{self.dataset.name}-{self.family.name}-{self.protocol.name}".replace(
                " ", "_"
            ),
            "seed": self.seed,
            "data": {
                "source": self.dataset.source,
                "path": str(self.dataset.path.resolve()),
                **({"hold_out": self.ahead} if several else {}),
            },
            "users": {"kind": "held_out", **({"clicks": self.ahead} if several else {})},
            "days": 1,
            "serving": {
                "slate": self.slate,
                "recall": self.slate,
                "history": min(longest, READ),
                "seen": longest,
                "ranking": {"kind": "recall"},
            },
            "arms": self.family.specs(self.protocol),
            "metrics": ["hit_rate@5", "ndcg@5", "hit_rate@10", "ndcg@10"],
            "engine": {"executor": "serial", "shards": 1, "tick": 86400.0},
        }

    @property
    def foundation(self) -> Experiment | None:
        """The experiment whose fit this one starts from."""
        if self.family.foundation:
            return replace(self, family=FAMILIES[self.family.foundation], slate=DEPTH)
        return None

    @property
    def fitted(self) -> Experiment | None:
        """The experiment whose fit this one serves; None where it fits itself."""
        return None if self.slate == DEPTH else replace(self, slate=DEPTH)

    @property
    def before(self) -> tuple[Experiment, ...]:
        """What has to be finished before this one."""
        return tuple(each for each in (self.foundation, self.fitted) if each is not None)

    @property
    def depth(self) -> int:
        """How many experiments have to be finished before this one, one after another."""
        return max((1 + each.depth for each in self.before), default=0)

    @cached_property
    def key(self) -> str:
        """What decides the result: scenario and hyper-parameters with their defaults, content of
        the data, foundation.
        """
        from policies.registry import make
        from simulator.scenario.model import Scenario

        scenario = Scenario.model_validate(self.scenario()).identity()
        scenario["data"]["path"] = self.dataset.digest
        policies = {
            arm: make(spec["policy"], spec["params"]) for arm, spec in scenario["arms"].items()
        }
        scenario["policies"] = {
            arm: [policy.fit_key(), asdict(policy)] for arm, policy in policies.items()
        }
        scenario["foundation"] = self.foundation.key if self.foundation else ""
        return hashlib.sha256(json.dumps(scenario, sort_keys=True).encode()).hexdigest()[:10]

    def folder(self, out: Path) -> Path:
        """Where it is run; a changed experiment is another one."""
        return (
            out / "runs" / self.dataset.name / f"{self.scenario()['name']}-{self.seed}-{self.key}"
        )

    def check(self) -> None:
        """Raises ReproduceError where the family needs attributes of items and the file of them is
        not there.
        """
        wants = sorted({"aap", "map"} & set(self.family.params.get("objectives", ())))
        file = self.dataset.attributes
        if wants and not file.is_file():
            raise ReproduceError(
                f"{self.family.name} on {self.dataset.name}: its objectives {', '.join(wants)} need"
                f" attributes of the items, and {file} is not there; put it beside the data, or"
                " leave the family out"
            )

    def finish(self, out: Path, progress: Progress) -> Path:
        """The folder of the finished run; run now, after what it starts from, if it was not
        before.
        """
        folder = self.folder(out)
        if not (folder / FINISHED).is_file():
            start = fits = None
            if self.foundation is not None:
                start = next(
                    self.foundation.finish(out, progress).glob("models/*/policy.json")
                ).parent
            if self.fitted is not None:
                fits = self.fitted.finish(out, progress) / "models"
            self._run(folder, start, fits, progress)
        return folder

    def places(self, out: Path, progress: Progress) -> dict[str, npt.NDArray[np.int8]]:
        """System -> 0-based place `[users]` of each held-out item in the slate, -1 where it is not
        there; run now if it was not before.

        Users without a held-out item are left out.
        """
        folder = self.finish(out, progress)
        Ledger(folder).check()
        kept = folder / "places.npz"
        if not kept.is_file():
            logged = read_places(EventLog.open(folder / "log"))
            with staged(kept) as staging, staging.open("wb") as stream:
                arrays = {f"system {name}": values for name, values in logged.items()}
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return {name.removeprefix("system "): values for name, values in load_arrays(kept).items()}

    def tuned(self, out: Path) -> tuple[int, ...] | None:
        """Of a finished run: the epochs of the tuning that the weights are the mean of, (0,) where
        it kept its start; None where nothing was tuned.
        """
        (file,) = self.folder(out).glob("models/*/state.npz")
        epochs = load_arrays(file).get(TUNED)
        return None if epochs is None else tuple(epochs.tolist())

    def _run(self, folder: Path, start: Path | None, fits: Path | None, progress: Progress) -> None:
        from simulator.run.pipeline import simulate
        from simulator.scenario.model import Scenario

        spent = Spent(folder / SPENT)
        content = self.scenario()
        if start is not None:
            for arm in content["arms"].values():
                arm["params"]["pretrained"] = str(start.resolve())
        scenario = Scenario.model_validate(content)
        prefix = f"{self.dataset.name} {self.family.name} seed {self.seed}"

        def named(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if folder.is_dir():
                spent.keep()
            progress(f"{prefix}: {stage}", done, total, figures)

        simulate(scenario, folder, resume=True, progress=named, fits=fits)
        write_text(folder / FINISHED, spent.text())
        spent.file.unlink(missing_ok=True)


class Spent:
    """CPU seconds of a piece of work over all processes that had a part in it, one after another.

    What was spent is kept in a file while the work goes on, so that an interruption, of whatever
    kind, loses a second of it and what came after the last `keep`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._before = json.loads(file.read_text())[SECONDS] if file.is_file() else 0.0
        self._began = time.process_time()
        self._kept = self.seconds

    @property
    def seconds(self) -> float:
        """What was spent until now."""
        return float(self._before + time.process_time() - self._began)

    def text(self) -> str:
        """What was spent until now, as JSON."""
        return json.dumps({SECONDS: round(self.seconds, 1)}) + "\n"

    def keep(self) -> None:
        """Write what was spent, unless it is less than a second more than was written before."""
        if self.seconds >= self._kept + 1:
            self._kept = self.seconds
            write_text(self.file, self.text())


def read_places(log: EventLog) -> dict[str, npt.NDArray[np.int8]]:
    """Arm -> place of the click in each user's slate, -1 = no click, `[users who asked]`, users
    ascending.
    """
    arms = log.metadata.arms
    place = np.full((len(arms), log.metadata.n_users), -2, dtype=np.int8)
    for batch in log.batches(["arm", "user", "t", "position", "click"]):
        arm, user, t, position = (
            batch.column(name).to_numpy() for name in ("arm", "user", "t", "position")
        )
        click = batch.column("click").fill_null(False).to_numpy(zero_copy_only=False)
        asked = t >= 0
        np.maximum.at(place, (arm[asked], user[asked]), -1)
        hit = asked & click
        place[arm[hit], user[hit]] = position[hit]
    compared = [i for i, name in enumerate(arms) if name != HISTORY]
    came = (place[compared] > -2).all(axis=0)
    return {arms[i]: place[i, came] for i in compared}


def values(place: npt.NDArray[np.int8], metric: str) -> Floats:
    """`hit_rate@k` or `ndcg@k` of each user (Järvelin & Kekäläinen 2002; one relevant item, so the
    ideal gain is 1).
    """
    stem, _, k = metric.partition("@")
    hit = (place >= 0) & (place < int(k))
    if stem == "hit_rate":
        return hit.astype(np.float64)
    return np.where(hit, discount(np.maximum(place, 0)), 0.0)


@dataclass(frozen=True)
class ExperimentPlan:
    """Experiments that tables are made of.

    Attributes:
        datasets: in the order of print.
        families: in the order of print.
        protocol: of all.
        seeds: 0..seeds-1; deterministic families run once.
        out: folder of runs and results.
        ahead: clicks held out of each user.
        recall: length of further slates, for HR at that length; 0: none.
    """

    datasets: tuple[Dataset, ...]
    families: tuple[Family, ...]
    protocol: Protocol
    seeds: int
    out: Path
    ahead: int = 1
    recall: int = 0

    def experiments(self) -> Iterator[Experiment]:
        """All of them, seed after seed, so that a first answer for every row comes early."""
        for seed in range(self.seeds):
            for dataset in self.datasets:
                for family in self.families:
                    if seed == 0 or not family.deterministic:
                        yield Experiment(dataset, family, self.protocol, seed, self.ahead)

    @property
    def further_metrics(self) -> tuple[str, ...]:
        """The metric of the further slates, if there are any."""
        return (f"hit_rate@{self.recall}",) if self.recall else ()

    def longer(self, experiment: Experiment) -> Experiment | None:
        """The same with the further slates, if there are any."""
        return replace(experiment, slate=self.recall) if self.recall else None

    def finish(self, progress: Progress, workers: int = 1) -> list[Experiment]:
        """Run what is not finished, `workers` experiments side by side.

        An experiment computes with one thread, so that its result does not depend on how many run
        beside it.

        Raises:
            ReproduceError: one that cannot be run, before any is.
        """
        todo = list(self.experiments())
        for experiment in todo:
            experiment.check()
        longer = [each for each in map(self.longer, todo) if each is not None]
        needed = {
            experiment.folder(self.out): experiment
            for each in (*todo, *longer)
            for experiment in _line(each)
        }
        finished = 0

        def done(_: int, result: object) -> None:
            nonlocal finished
            if isinstance(result, Exception):
                raise result
            finished += 1
            progress("experiments", finished, len(needed), {})

        for depth in sorted({experiment.depth for experiment in needed.values()}):
            wave = [
                Task(experiment, self.out)
                for experiment in needed.values()
                if experiment.depth == depth
            ]
            with executor(
                "serial" if workers == 1 else "processes", progress, min(workers, len(wave))
            ) as pool:
                pool.run(wave, done)
        return todo

    def run(self, progress: Progress, workers: int = 1) -> Results:
        """Run what is not finished, as `finish`; returns where the held-out items stood."""
        places: dict[tuple[str, str], list[npt.NDArray[np.int8]]] = {}
        tuned: dict[tuple[str, str], list[bool]] = {}
        sets: dict[tuple[str, str], list[npt.NDArray[np.int8]]] = {}
        for experiment in self.finish(progress, workers):
            epochs = experiment.tuned(self.out)
            for system, found in experiment.places(self.out, progress).items():
                key = experiment.dataset.name, system
                places.setdefault(key, []).append(found)
                if epochs is not None:
                    tuned.setdefault(key, []).append(epochs != (0,))
            longer = self.longer(experiment)
            if longer is not None:
                for system, found in longer.places(self.out, progress).items():
                    sets.setdefault((experiment.dataset.name, system), []).append(found)
        return Results(places, tuned, sets)


def _line(experiment: Experiment) -> list[Experiment]:
    """The experiment and what has to be finished before it, the first one first."""
    return [*(each for before in experiment.before for each in _line(before)), experiment]


@dataclass(frozen=True)
class Task:
    """An experiment to be finished, in whatever process."""

    experiment: Experiment
    out: Path

    def __call__(self, progress: Progress) -> None:
        self.experiment.finish(self.out, progress)


@dataclass(frozen=True)
class Results:
    """What was measured, by data set and system.

    Attributes:
        places: `[users]` for each seed.
        tuned: whether tuning found better weights than its start, for each seed; only of systems
            that are tuned.
        sets: the places in further, longer slates.
    """

    places: Mapping[tuple[str, str], list[npt.NDArray[np.int8]]]
    tuned: Mapping[tuple[str, str], list[bool]] = field(default_factory=dict)
    sets: Mapping[tuple[str, str], list[npt.NDArray[np.int8]]] = field(default_factory=dict)

    def n_tuned(self, dataset: str, system: str) -> int | None:
        """In how many seeds tuning moved a system; None for one that is not tuned."""
        moved = self.tuned.get((dataset, system))
        return None if moved is None else sum(moved)

    def seeds(self, dataset: str, system: str, metric: str) -> Floats:
        """Mean over users for each seed."""
        return np.array([one.mean() for one in self._values(dataset, system, metric)])

    def users(self, dataset: str, system: str, metric: str) -> Floats:
        """Mean over seeds for each user."""
        return np.asarray(np.mean(self._values(dataset, system, metric), axis=0))

    def _values(self, dataset: str, system: str, metric: str) -> list[Floats]:
        """Of each seed, from slates that are as long as the metric asks for."""
        is_longer = int(metric.partition("@")[2]) > DEPTH
        places = self.sets if is_longer else self.places
        return [values(place, metric) for place in places[dataset, system]]
