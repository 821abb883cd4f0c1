"""What a second step of recall owes to the user's own likely next clicks: other continuations in
their place, more and fewer of them, and how much they count. One fit serves all rows of a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from policies.base import Histories, IntArray, Progress
from policies.continuation import Chosen, Continued, Continuing
from policies.registry import make
from simulator.log.files import load_arrays, staged
from simulator.log.ledger import Ledger
from simulator.reproduce.claims import Claim
from simulator.reproduce.experiment import (
    DEPTH,
    Experiment,
    ExperimentPlan,
    ReproduceError,
    Results,
)
from simulator.run.executors import executor

Source = Literal["own", "another user's", "random"]


@dataclass(frozen=True)
class Variant:
    """A marginal second step (`policies.continuation`).

    Attributes:
        source: the items that the history is continued by: the user's `own` best ones, those of
            `another user's` history, or `random` ones. They count as much as the own ones do, so
            that only what is appended differs.
        beam: W, how many.
        share: c, what the item after the next one counts.
    """

    source: Source
    beam: int
    share: float

    @property
    def name(self) -> str:
        """As a row of the table."""
        return f"{self.source}, W = {self.beam}, c = {self.share:g}"


ONE_STEP = Variant("own", 1, 0.0)
STANDARD = Variant("own", Chosen.beam, Chosen.share)
SOURCES: tuple[Source, ...] = ("own", "another user's", "random")
BEAMS = (1, 2, 5, 10, 20)
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)
VARIANTS = dict.fromkeys(
    (
        ONE_STEP,
        *(Variant(source, STANDARD.beam, STANDARD.share) for source in SOURCES),
        *(Variant("own", beam, STANDARD.share) for beam in BEAMS),
        *(Variant("own", STANDARD.beam, share) for share in SHARES),
    )
)
"""One step; the three sources; the own items with every width and every share; each once."""

CLAIMS = (
    *(
        Claim("a second step helps", ONE_STEP.name, variant.name)
        for variant in VARIANTS
        if variant != ONE_STEP
    ),
    *(
        Claim(
            "the own items are better than others",
            Variant(source, STANDARD.beam, STANDARD.share).name,
            STANDARD.name,
        )
        for source in SOURCES[1:]
    ),
)


def results(plan: ExperimentPlan, progress: Progress, workers: int) -> Results:
    """Where the held-out items stand by every variant, for the fits of the plan's families; what
    was not computed before is computed now, `workers` fits side by side.

    Raises:
        ReproduceError: a family whose policy cannot continue a history, before anything is run.
    """
    for family in plan.families:
        spec = next(iter(family.specs(plan.protocol).values()))
        if not isinstance(make(spec["policy"], spec["params"]), Continuing):
            raise ReproduceError(
                f"second asks what follows a user's likely next clicks, and {family.name} cannot"
                " say it; name a family of networks of RecGPT, such as Best pre-train"
            )
    experiments = plan.finish(progress, workers)
    finished = 0

    def done(_: int, result: object) -> None:
        nonlocal finished
        if isinstance(result, Exception):
            raise result
        finished += 1
        progress("continuations", finished, len(experiments), {})

    tasks = [Continue(experiment, plan.out) for experiment in experiments]
    with executor(
        "serial" if workers == 1 else "processes", progress, min(workers, len(tasks))
    ) as pool:
        pool.run(tasks, done)
    places: dict[tuple[str, str], list[npt.NDArray[np.int8]]] = {}
    for task in tasks:
        for name, found in task.kept().items():
            places.setdefault((task.experiment.dataset.name, name), []).append(found)
    return Results(places)


@dataclass(frozen=True)
class Continue:
    """Compute all variants of a finished experiment's fit, and keep them in its folder."""

    experiment: Experiment
    out: Path

    def __call__(self, progress: Progress) -> None:
        folder = self.experiment.folder(self.out)
        Ledger(folder).check()
        if self._file.is_file() and self.kept().keys() == {variant.name for variant in VARIANTS}:
            return
        spec = next(iter(self.experiment.family.specs(self.experiment.protocol).values()))
        policy = make(spec["policy"], spec["params"])
        (state,) = folder.glob("models/*/state.npz")
        policy.load(state.parent)
        assert isinstance(policy, Continuing)
        dataset = self.experiment.dataset
        n_items = dataset.statistics[1]
        found = places(policy, *dataset.requests(), n_items, self.experiment.seed)
        with staged(self._file) as staging, staging.open("wb") as stream:
            arrays = {f"system {name}": values for name, values in found.items()}
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @property
    def _file(self) -> Path:
        return self.experiment.folder(self.out) / "second.npz"

    def kept(self) -> dict[str, npt.NDArray[np.int8]]:
        """Variant -> place `[users]` of each held-out item, -1 where the slate has it not."""
        arrays = load_arrays(self._file)
        return {name.removeprefix("system "): found for name, found in arrays.items()}


ROWS = 1024
"""Requests that are looked at together."""


def places(
    policy: Continuing, histories: Histories, target: IntArray, n_items: int, seed: int
) -> dict[str, npt.NDArray[np.int8]]:
    """Variant -> 0-based place `[users]` of each target among the first DEPTH items, -1 where it is
    not there.

    Args:
        policy: fitted.
        histories: the users' requests.
        target: `[users]` the held-out items.
        n_items: random items are drawn from 1..n_items.
        seed: of the draws.
    """
    n, beam = len(target), STANDARD.beam
    own = [variant for variant in VARIANTS if variant.source == "own"]
    found = {variant.name: np.full(n, -1, dtype=np.int8) for variant in VARIANTS}
    best = np.zeros((n, beam), dtype=np.int64)
    for rows, some in _blocks(policy, histories, max(one.beam for one in own)):
        best[rows] = some.items[:, :beam]
        for variant in own:
            found[variant.name][rows] = _place(some, target[rows], variant)
    draw = np.random.default_rng(seed)
    ring = draw.permutation(n)
    neighbour = np.empty(n, dtype=np.int64)
    neighbour[ring] = np.roll(ring, 1)
    clicked = {
        "another user's": best[neighbour],
        "random": draw.integers(1, n_items + 1, (n, beam)),
    }
    for variant in VARIANTS:
        if variant.source != "own":
            items = clicked[variant.source]
            for rows, some in _blocks(policy, histories, variant.beam, items):
                found[variant.name][rows] = _place(some, target[rows], variant)
    return found


def _blocks(
    policy: Continuing, histories: Histories, beam: int, clicked: IntArray | None = None
) -> Iterator[tuple[slice, Continued]]:
    """Some requests after others, and what continues them."""
    for start in range(0, len(histories), ROWS):
        rows = slice(start, start + ROWS)
        given = None if clicked is None else clicked[rows]
        yield rows, policy.continued(histories.rows(rows), Chosen.candidates, beam, given)


def _place(found: Continued, target: IntArray, variant: Variant) -> npt.NDArray[np.int8]:
    place = found.place_of(target, found.marginal(variant.beam, variant.share))
    return np.where(place < DEPTH, place, -1).astype(np.int8)
