"""check_policy: the promises of the contract as named checks, for our own policies and for a
stranger's alike.

A check returns nothing where the promise is kept and raises `BrokenPromise` with a minimal example
where it is not. In a plug-in's own tests: `@pytest.mark.parametrize("name", CHECKS)` and
`check_one(MyPolicy(), name)`.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import (
    PADDING,
    Admitting,
    Expectant,
    Histories,
    Policy,
    Scorer,
    Slates,
    Stochastic,
    Updatable,
    WorldBound,
)
from policies.calls import CallError, OutOfTime, raised, within
from policies.context import past_of, wrong_context
from policies.examples import (
    Example,
    chain,
    checkerboard,
    fresh,
    hours,
    share_right,
    uploads,
)
from policies.form import fault
from policies.subject import LIMIT, BrokenPromise, NotPromised, Result, Subject

K = 10
CLAIMS = ("checkerboard", "chain", "fresh", "hours")
"""What a policy may claim to learn (`Policy.learns`): the examples of `policies.examples`."""

SECONDS_PER_REQUEST = 0.05
BYTES_PER_REQUEST = 8 << 20


def shapes(subject: Subject) -> None:
    """items [B, k] int64, scores [B, k] float32 non-increasing, ids known and distinct"""
    why = wrong_context(subject.policy.asks_for)
    if why is not None:
        raise BrokenPromise(why)
    slates = subject.recall(subject.fitted, subject.requests, K, subject.seed)
    unseen = replace(subject.requests, seen=np.zeros((len(subject.requests), 1), dtype=np.int64))
    wrong = fault(slates, unseen, subject.example.catalogue.n_items)
    if wrong is not None:
        row, rule = wrong
        raise BrokenPromise(
            f"{rule}\n{_reproduce(subject.policy, subject.requests, row, K, slates)}"
        )


def leaves_inputs(subject: Subject) -> None:
    """writes into nothing that it is handed: the log, the catalogue, requests, candidates, slates,
    answers
    """
    policy, asked, seed = subject.fitted, subject.requests, subject.seed
    if subject.wrote is not None:
        raise subject.wrote
    calls = subject.calls(policy, own=False)
    slates = calls.recall(asked, K, seed)
    if isinstance(policy, Scorer):
        calls.score(asked, slates.items)
    if isinstance(policy, Stochastic):
        calls.slate_propensities(asked, slates.items, seed)
    if isinstance(policy, Expectant):
        values = np.random.default_rng(seed).random((2, subject.example.catalogue.n_items + 1))
        calls.slate_expectations(asked, slates.items, values, slates.items % 2, seed)
    if isinstance(policy, Updatable):
        calls.update(asked, slates, slates.items % 3 == 0)


def seen_items(subject: Subject) -> None:
    """no item of histories.seen is recalled, whether or not it stands in the history"""
    policy = subject.fitted
    requests = subject.requests
    n_items = subject.example.catalogue.n_items
    more = np.broadcast_to(
        np.arange(1, n_items + 1, 3), (len(requests), len(range(1, n_items + 1, 3)))
    )
    for seen in (requests.items, more):
        asked = replace(requests, seen=np.ascontiguousarray(seen))
        slates = subject.recall(policy, asked, K, subject.seed)
        hit = (slates.items[:, :, None] == asked.seen[:, None, :]) & (slates.items != PADDING)[
            :, :, None
        ]
        if hit.any():
            row = int(np.flatnonzero(hit.any(axis=(1, 2)))[0])
            raise BrokenPromise(
                f"a seen item is recalled\n{_reproduce(subject.policy, asked, row, K, slates)}"
            )


def determinism(subject: Subject) -> None:
    """two fits with the same seed recall the same bytes"""
    policy = subject.fitted
    again = subject.fit(subject.example)
    _same(
        subject,
        subject.recall(policy, subject.requests, K, 5),
        subject.recall(again, subject.requests, K, 5),
        "a second fit with the same seed",
    )


def seedless_fit(subject: Subject) -> None:
    """where it says that its fit draws nothing (draws_in_fit), fits with two seeds have the same
    state
    """
    if subject.policy.is_seeded:
        raise NotPromised("its fit draws random numbers")
    other = subject.fit(subject.example, seed=subject.seed + 1)
    one, two = subject.calls(subject.fitted).state(), subject.calls(other).state()
    for name in sorted(one.keys() | two.keys()):
        if name in one and name in two and _equal_bytes(one[name], two[name]):
            continue
        raise BrokenPromise(
            f"{name!r} of its state is not the same after fits with the seeds {subject.seed} and"
            f" {subject.seed + 1}: a run would train it once, however many fits are asked for; say"
            " draws_in_fit = True"
        )


def _equal_bytes(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    is_alike = one.shape == other.shape and one.dtype == other.dtype
    return is_alike and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def purity(subject: Subject) -> None:
    """the same call gives the same bytes, whatever was asked in between"""
    policy = subject.fitted
    half = len(subject.requests) // 2
    asked, between = subject.requests.rows(slice(0, half)), subject.requests.rows(slice(half, None))
    before = subject.recall(policy, asked, K, 5)
    subject.recall(policy, between, K, 6)
    _same(
        subject,
        before,
        subject.recall(policy, asked, K, 5),
        "the same call after other requests",
        asked,
    )


def batch_invariance(subject: Subject) -> None:
    """a batch gives the same bytes as its requests one by one"""
    policy = subject.fitted
    whole = subject.recall(policy, subject.requests, K, 5)
    for row in range(len(subject.requests)):
        alone = subject.recall(policy, subject.requests.rows(slice(row, row + 1)), K, 5)
        _same(
            subject,
            whole.rows(slice(row, row + 1)),
            alone,
            "the request alone",
            subject.requests.rows(slice(row, row + 1)),
        )


def permutation(subject: Subject) -> None:
    """the order of requests in a batch changes nothing"""
    policy = subject.fitted
    order = np.random.default_rng(subject.seed).permutation(len(subject.requests))
    whole = subject.recall(policy, subject.requests, K, 5).rows(order)
    asked = subject.requests.rows(order)
    _same(subject, whole, subject.recall(policy, asked, K, 5), "the batch in another order", asked)


def cold_users(subject: Subject) -> None:
    """unknown users and empty histories get full slates"""
    policy = subject.fitted
    n = subject.example.catalogue.n_users
    requests = subject.requests.rows(slice(0, 3))
    empty = np.zeros_like(requests.items)
    nothing = {path: np.zeros_like(a) for path, a in past_arrays(requests).items()}
    requests = replace(
        requests, user=np.array([n, n + 5, 0]), items=empty, clicked=empty.astype(bool), seen=empty
    ).with_context(requests.context() | nothing)
    slates = subject.recall(policy, requests, K, subject.seed)
    if (slates.items == PADDING).any():
        row = int(np.flatnonzero((slates.items == PADDING).any(axis=1))[0])
        raise BrokenPromise(
            "a cold user's slate is not"
            f" full\n{_reproduce(subject.policy, requests, row, K, slates)}"
        )


def k_too_large(subject: Subject) -> None:
    """where k exceeds the candidates, all are recalled and the rest is item 0 with score -inf"""
    policy = subject.fitted
    n_items = subject.example.catalogue.n_items
    few = subject.requests.rows(slice(0, 4))
    k = n_items + 5
    slates = subject.recall(policy, few, k, subject.seed)
    for row in range(len(few)):
        fresh = n_items - len(set(few.seen[row].tolist()) - {PADDING})
        filled = slates.items[row] != PADDING
        if (
            slates.items.shape != (len(few), k)
            or filled.sum() != fresh
            or np.any(slates.scores[row][~filled] != -np.inf)
        ):
            example = _reproduce(subject.policy, few, row, k, slates)
            raise BrokenPromise(
                f"expected {fresh} items, then 0 with -inf; got {int(filled.sum())}"
                f" items\n{example}"
            )


def save_load(subject: Subject) -> None:
    """save and load (no pickle) give a policy that recalls the same bytes"""
    policy = subject.fitted
    with tempfile.TemporaryDirectory() as folder:
        subject.calls(policy).save(Path(folder))
        loaded = subject.policy.with_params()
        subject.bind(loaded)
        subject.calls(loaded).load(Path(folder))
    _same(
        subject,
        subject.recall(policy, subject.requests, K, 5),
        subject.recall(loaded, subject.requests, K, 5),
        "the policy saved and loaded",
    )


def propensities(subject: Subject) -> None:
    """where given, they are the probabilities of the draws: frequencies agree within five standard
    errors
    """
    policy = subject.fitted
    n, one = 4000, subject.requests.rows(slice(0, 1))
    many = replace(one.rows(np.zeros(n, dtype=np.int64)), step=np.arange(n))
    slates = subject.recall(policy, many, 2, subject.seed)
    if slates.propensities is None:
        raise NotPromised("deterministic: gives no propensities")
    chances = slates.propensities[slates.items != PADDING]
    if not np.all((chances > 0) & (chances <= 1)):
        raise BrokenPromise(f"propensities must be in (0, 1]; got {chances.min()}..{chances.max()}")
    for position in (0, 1):
        # Given the items above, sum over draws of [1 / p(drawn item)] restricted to one item has
        # mean n for each item of the support.
        for item in np.unique(slates.items[:, position])[:8]:
            drawn = slates.items[:, position] == item
            chance = np.median(slates.propensities[drawn, position])
            weight = drawn / np.where(drawn, slates.propensities[:, position], 1.0)
            # An item that stands above cannot be drawn again: such requests say nothing of it.
            possible = np.ones(n, dtype=bool) if position == 0 else slates.items[:, 0] != item
            error = np.sqrt(max((1 - chance) / chance, 1e-9) / possible.sum())
            # Five standard errors: of some 16 comparisons a policy that keeps the promise fails one
            # in 100,000 times. 1e-4: propensities are float32.
            if abs(weight[possible].mean() - 1) > 5 * error + 1e-4:
                raise BrokenPromise(
                    f"item {item} at position {position} was drawn {int(drawn.sum())} times in {n}"
                    f" with propensity {chance:.4g}: the mean of drawn / propensity is"
                    f" {weight[possible].mean():.4f}, and should be 1 +- {error:.4f}\n"
                    + _reproduce(subject.policy, many, int(np.flatnonzero(drawn)[0]), 2, slates)
                )


def learns_checkerboard(subject: Subject) -> None:
    """learns who likes what: even users even items (at least 80% of the recalled are right)"""
    _learns(subject, "checkerboard", checkerboard(subject.seed), 5, 0.8)


def learns_chain(subject: Subject) -> None:
    """learns what follows what: the certain next item of a cycle is among the first 3 for at least
    half of the users
    """
    # Of three items recalled one can be right, so half of the users are a sixth of the items.
    _learns(subject, "chain", chain(subject.seed), 3, 0.5 / 3)


def learns_fresh(subject: Subject) -> None:
    """recalls items that nobody was shown, by their features: even users even ones (at least 80% of
    the recalled are right)
    """
    example = subject.told(fresh(subject.seed))
    shown = np.arange(1, int(example.sequences.items.max()) + 1)
    asked = example.requests(context=subject.asks)
    seen = np.broadcast_to(shown, (len(asked), len(shown)))
    asked = replace(asked, seen=np.ascontiguousarray(seen))
    _learns(subject, "fresh", example, 5, 0.8, asked)


def learns_hours(subject: Subject) -> None:
    """learns what is clicked at which hour of the day: even items before noon (at least 80% of the
    recalled are right)
    """
    _learns(subject, "hours", hours(subject.seed), 5, 0.8)


def admits(subject: Subject) -> None:
    """told which items there are now, recalls these only, whatever it was told before; one that
    learns `fresh` recalls new ones by their features
    """
    if not isinstance(subject.policy, Admitting):
        raise NotPromised("is not told of new items: it has no method `admit`")
    if subject.world is not None:
        raise NotPromised("a yardstick of another world")
    example = subject.told(fresh(subject.seed))
    old = np.arange(1, int(example.sequences.items.max()) + 1)
    new, removed = np.arange(len(old) + 1, example.catalogue.n_items + 1), old[:5]
    before, now = uploads(example.catalogue, new, []), uploads(example.catalogue, [], removed)
    policy = subject.fit(replace(example, catalogue=before), **subject.policy.on_examples)
    calls, nothing = subject.calls(policy), np.zeros(0, dtype=np.int64)
    asked, answers = example.requests(context=subject.asks), []
    for catalogue, told in ((now, new), (before, nothing), (now, new)):
        calls.admit(catalogue, told, 0)
        answers.append(subject.recall(policy, asked, example.catalogue.n_items, subject.seed))
        gone = np.isin(answers[-1].items, catalogue.withheld)
        if gone.any():
            row, place = np.argwhere(gone)[0]
            item = int(answers[-1].items[row, place])
            raise BrokenPromise(
                f"item {item} is recalled after `admit` was told that it is not available"
                f"\n{_reproduce(subject.policy, asked, int(row), gone.shape[1], answers[-1])}"
            )
    _same(subject, answers[0], answers[2], "after another catalogue was admitted meanwhile", asked)
    if "fresh" in subject.policy.learns:
        seen = np.ascontiguousarray(np.broadcast_to(old, (len(asked), len(old))))
        share = share_right(
            example, subject.recall(policy, replace(asked, seen=seen), 5, subject.seed).items
        )
        if share < 0.8:
            raise BrokenPromise(
                f"{share:.3f} of the 5 new items recalled after `admit` are right; at least 0.8"
                f" must be: policies.examples.fresh(seed={subject.seed}), whose new items the fit"
                " was not told of"
            )


def past_arrays(requests: Histories) -> dict[str, npt.NDArray[Any]]:
    """The context of requests that is told of the impressions before them, by its paths."""
    context = requests.context()
    return {path: context[path] for path in past_of(context)}


def no_look_ahead(subject: Subject) -> None:
    """what a user did later changes nothing: neither in the same batch nor in an earlier call"""
    policy = subject.fitted
    full = subject.requests
    # Two impressions are taken away, and two must be left to recall from.
    rows = np.flatnonzero((full.items != PADDING).sum(axis=1) >= 4)[:12]
    full = full.rows(rows)
    earlier = {"items": full.items, "clicked": full.clicked, **past_arrays(full)}
    for path, values in earlier.items():
        earlier[path] = np.roll(values, 2, axis=1)
        earlier[path][:, :2] = PADDING
    prefix = Histories.of(full.arrays() | earlier)
    before = subject.recall(policy, prefix, K, 5)
    both = Histories.of(
        {
            path: np.concatenate((values, full.arrays()[path]))
            for path, values in prefix.arrays().items()
        }
    )
    together = subject.recall(policy, both, K, 5).rows(slice(0, len(prefix)))
    _same(subject, before, together, "the same request beside the user's later one", prefix)
    _same(
        subject,
        before,
        subject.recall(policy, prefix, K, 5),
        "the same request after the user's later one",
        prefix,
    )


def cost(subject: Subject) -> None:
    """at most 50 ms and 8 MiB a request in a batch of 256"""
    policy = subject.fitted
    few, many = (subject.requests.rows(np.arange(n) % len(subject.requests)) for n in (FEW, MANY))
    for asked in (few, many):
        seconds, peak = _cost(subject, policy, asked)
        # What a few cost, so many would cost at least: the large batch is not tried where a few use
        # up what all of it may.
        if seconds > SECONDS_PER_REQUEST * MANY or peak > BYTES_PER_REQUEST * MANY:
            rule = f"{seconds:.1f} s and {peak / 2**20:.0f} MiB in a batch of {len(asked)}"
            raise BrokenPromise(
                f"{rule}; at most {SECONDS_PER_REQUEST * MANY:.1f} s and"
                f" {BYTES_PER_REQUEST * MANY >> 20} MiB in one of {MANY}"
            )


FEW, MANY = 8, 256
"""Batches whose cost is measured."""


def _cost(subject: Subject, policy: Policy, asked: Histories) -> tuple[float, int]:
    """CPU seconds and bytes that a call takes when it is not the first of its size."""
    subject.recall(policy, asked, K, 1)
    tracemalloc.start()
    try:
        subject.recall(policy, asked, K, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Tracing memory makes code several times slower, so time is taken in a call of its own.
    began = time.process_time()
    subject.recall(policy, asked, K, 3)
    return time.process_time() - began, peak


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        shapes,
        leaves_inputs,
        seen_items,
        determinism,
        seedless_fit,
        purity,
        batch_invariance,
        permutation,
        cold_users,
        k_too_large,
        save_load,
        propensities,
        learns_checkerboard,
        learns_chain,
        learns_fresh,
        learns_hours,
        admits,
        no_look_ahead,
        cost,
    )
}
"""The promises by name, in the order in which they are checked."""


def check_policy(
    policy: Policy,
    *,
    seed: int = 0,
    only: Iterable[str] | None = None,
    world: Any = None,
    device: str = "cpu",
    limit: float = LIMIT,
) -> Iterator[Result]:
    """Run the checks one after another.

    Args:
        policy: an unfitted policy; copies of it are fitted on small made-up logs.
        seed: of the logs and the fits.
        only: names of `CHECKS`; None for all.
        world: what a `WorldBound` yardstick is bound to.
        device: torch device of the fits, as in `Fitting`.
        limit: seconds that a check may take (in a main thread; native code is not interrupted).

    Yields:
        A `Result` for each check as soon as it is known; what the policy itself raises breaks the
        promise under check. None comes after one that `stops`.
    """
    subject = Subject(policy, seed, world, device, limit)
    for name in CHECKS if only is None else only:
        result = _run(subject, name)
        yield result
        if result.stops:
            return


def check_one(
    policy: Policy, name: str, *, seed: int = 0, world: Any = None, device: str = "cpu"
) -> None:
    """One check as a test: raises `BrokenPromise` with the example; a promise that the policy does
    not make passes.

    Raises:
        BrokenPromise: the promise is broken.
        KeyError: no check of that name.
    """
    result = _run(Subject(policy, seed, world, device), name)
    if not result.kept and not result.skipped:
        raise BrokenPromise(f"{name}: {result.promise}\n{result.detail}")


def promise_of(name: str) -> str:
    """What a check holds a policy to, on one line."""
    return " ".join((CHECKS[name].__doc__ or "").split())


def _run(subject: Subject, name: str) -> Result:
    promise = promise_of(name)
    if isinstance(subject.policy, WorldBound) and subject.world is None:
        return Result(
            name, promise, False, True, "a yardstick that must be bound to a simulated world"
        )
    try:
        with within(subject.limit):
            CHECKS[name](subject)
    except NotPromised as skipped:
        return Result(name, promise, False, True, str(skipped))
    except BrokenPromise as broken:
        return Result(name, promise, False, detail=str(broken), stops=name == "shapes")
    except CallError as error:
        unfit = "once" not in vars(subject)
        crashed = unfit or error.kind in ("raised", "late")
        stops = unfit or name == "shapes" or error.kind == "late"
        return Result(name, promise, False, detail=error.what, stops=stops, crashed=crashed)
    except Exception as error:  # the policy's own, outside its methods
        return Result(name, promise, False, detail=raised(error))
    except OutOfTime:
        return Result(
            name,
            promise,
            False,
            detail=f"took longer than the {subject.limit:g} s of a check",
            stops=True,
            crashed=True,
        )
    return Result(name, promise, True)


def _learns(
    subject: Subject,
    what: str,
    example: Example,
    k: int,
    least: float,
    asked: Histories | None = None,
) -> None:
    """Whether enough of what a policy recalls is right.

    Args:
        subject: which learns `example`.
        what: the name under which it claims to.
        example: what is to be learned.
        k: items recalled for each request.
        least: share of them that must be right.
        asked: the requests, one for each user; None: those of the example.
    """
    unknown = [claim for claim in subject.policy.learns if claim not in CLAIMS]
    if unknown:
        raise BrokenPromise(f"claims to learn {unknown[0]!r}; there is {', '.join(CLAIMS)}")
    if what not in subject.policy.learns:
        raise NotPromised(f"does not claim to learn a {what}")
    if subject.world is not None:
        raise NotPromised("a yardstick of another world")
    example = subject.told(example)
    policy = subject.fit(example, **subject.policy.on_examples)
    requests = example.requests(context=subject.asks) if asked is None else asked
    slates = subject.recall(policy, requests, k, subject.seed)
    share = share_right(example, slates.items)
    if share < least:
        chance = _chance(example, requests)
        raise BrokenPromise(
            f"{share:.3f} of the {k} recalled are right; at least {least:.3f} must be ({chance:.3f}"
            f" by chance)\npolicies.examples.{what}(seed={subject.seed}): fit on .sequences, recall"
            f" for .requests() with k={k}"
        )


def _chance(example: Example, requests: Histories) -> float:
    """The share of right items among those that may be recalled."""
    unseen = np.ones(example.right.shape, dtype=bool)
    np.put_along_axis(unseen, requests.seen, False, axis=1)
    unseen[:, PADDING] = False
    return float(((example.right & unseen).sum(axis=1) / unseen.sum(axis=1)).mean())


def _same(
    subject: Subject, one: Slates, other: Slates, what: str, asked: Histories | None = None
) -> None:
    asked = subject.requests if asked is None else asked
    for name in Slates.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None):
            raise BrokenPromise(f"{name} is given in one call and None in {what}")
        if a is None:
            continue
        differ = np.flatnonzero(
            (np.ascontiguousarray(a).view(np.uint8) != np.ascontiguousarray(b).view(np.uint8)).any(
                axis=1
            )
        )
        if len(differ):
            row = int(differ[0])
            example = _reproduce(subject.policy, asked, row, a.shape[1], one)
            values = f"{a[row].tolist()} and {b[row].tolist()}"
            raise BrokenPromise(
                f"{name} differ in {what} ({len(differ)} of {len(a)} requests): {values}\n{example}"
            )


def _reproduce(policy: Policy, requests: Histories, row: int, k: int, slates: Slates) -> str:
    """The request as code, without its padding, and what came back."""
    used = requests.items[row] != PADDING
    seen = [item for item in requests.seen[row].tolist() if item != PADDING]
    told = {path: values[row].tolist() for path, values in requests.context().items()}
    context = f" context={told}" if told else ""
    return (
        f"policy = {policy!r} fitted on policies.examples.mixed()\nrequest:"
        f" user={int(requests.user[row])} step={int(requests.step[row])}"
        f" items={requests.items[row][used].tolist()}"
        f" clicked={requests.clicked[row][used].astype(int).tolist()} seen={seen}{context}"
        f" k={k}\nanswer:"
        f" items={slates.items[row].tolist()} scores={np.round(slates.scores[row], 4).tolist()}"
    )
