"""Statistics of users who come in stretches are those of all of them in memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from simulator.report.spread import distributions
from simulator.stats import (
    audit,
    checks,
    keyed_draws,
    methods,
    passes,
    power,
    quantiles,
    randomise,
    selection,
    sequential,
    verdict,
)
from simulator.stats.adjustment import post_stratified, pre_periods, winsorised
from simulator.stats.contrasts import PairValues
from simulator.stats.durations import durations
from simulator.stats.segments import dependence, segments
from simulator.stats.streamed import StreamedDays
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from tests.worlds import TASTED, days_by_taste, no_whole_column

N, DAYS = TASTED


def stretch(whole: UserDays, first: int, end: int, names: Collection[str] | None) -> UserDays:
    part = whole.users(np.arange(first, end))
    kept = {n: cube for n, cube in part.terms.items() if names is None or n in names}
    return replace(part, terms=kept)


def elsewhere(function: Callable[[Any], Any], pieces: Sequence[Any]) -> Iterator[Any]:
    """`map` as in other processes, last piece first."""
    found = {}
    for i, piece in reversed(list(enumerate(pieces))):
        call, there = pickle.loads(pickle.dumps((function, piece)))
        found[i] = pickle.loads(pickle.dumps(call(there)))
    return (found[i] for i in range(len(pieces)))


def streamed(whole: UserDays, ends: Sequence[int] = (130, 131, 600, N)) -> UserDays:
    """The same users in stretches."""
    firsts = (0, *ends[:-1])
    # Without the tables that were asked for.
    bare = replace(whole, lives=tuple(map(replace, whole.lives)))
    pieces = [partial(stretch, bare, *ends) for ends in zip(firsts, ends, strict=True)]
    sizes = [end - first for first, end in zip(firsts, ends, strict=True)]
    found = StreamedDays.of(whole, whole.before, pieces, sizes, elsewhere)
    return replace(found, lives=tuple(streamed(life, ends) for life in whole.lives))


def near(one: Any, other: Any) -> None:
    assert repr(one).count("(") == repr(other).count("(")
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-12, nan_ok=True)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            near(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            near(a, b)
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            near(getattr(one, name), getattr(other, name))
    elif isinstance(one, np.ndarray):
        np.testing.assert_allclose(one, other, 1e-12)
    else:
        assert one == other


def by_columns(some: UserDays) -> UserDays:
    """With clicks that are adjusted for two columns of the past."""
    click = replace(some.metrics["click"], covariates=("click", "click_rate"))
    return replace(some, metrics={**some.metrics, "click": click})


def needs_by_day(some: UserDays, metric: str) -> Any:
    """What durations are measured as, and as they may be (of the share that lasts the rest: a small
    one is what that leaves), and the days that users need.
    """
    return [
        (design, one.spread, 1.0 - one.lasting, one.needed(500, 0.1))
        for design, one in durations(some, metric, "a", "b").items()
    ]


OF_USERS: dict[str, Callable[[UserDays], Any]] = {
    "lifts": lambda d: verdict.lifts(d.by("user"), "a"),
    "lifts of a day": lambda d: verdict.lifts(d.by("user", first=1, until=2), "a"),
    "lifts by day": lambda d: list(d.by("day").numerators.values()),
    "winsorised": lambda d: verdict.lifts(winsorised(d.by("user"), 0.02), "a"),
    "adjusted": lambda d: verdict.lifts(
        d.by("user"), "a", covariates={} if d.assigned is None else pre_periods(d.by("user"))
    ),
    "segments": lambda d: segments(d.by("user"), "a"),
    "dependence": lambda d: dependence(d.by("user")),
    "pilots": lambda d: [
        power.pilot(d.by("user"), name, "a", "b") for name in ("click", "click_rate")
    ],
    "durations": lambda d: [needs_by_day(d, name) for name in ("click", "click_rate")],
    "pilot by several columns": lambda d: power.pilot(by_columns(d).by("user"), "click", "a", "b"),
    "durations by several columns": lambda d: needs_by_day(by_columns(d), "click"),
    "looks": lambda d: [
        sequential.successive(
            [d.by("user", until=day) for day in range(1, DAYS + 1)], name, "a", "b"
        )
        for name in ("click", "click_rate")
    ],
    "mid-quantiles": lambda d: [
        quantiles.moments_over(
            partial(d.by("user").mapped, metrics=["watch_time"]),
            PairValues.of(d.by("user"), "watch_time", "a", "b"),
            level,
            paired=d.assigned is None,
        )
        for level in (0.5, 0.9)
    ],
    "distributions": lambda d: distributions(d.by("user"), ("a", "b")),
    "outliers": lambda d: checks.outliers(d.by("user"), "a"),
    "balance": lambda d: checks.balance(d.by("user"), "a"),
    "rare events": lambda d: checks.rare_events(d.by("user")),
    "sample ratio": lambda d: checks.sample_ratio(d.by("user")),
    "sample ratio by day": checks.sequential_sample_ratio,
    "novelty": lambda d: checks.novelty(d, "a"),
    "resampled": lambda d: keyed_draws.resampled(d.by("user"), "a", ["b"], repetitions=130, seed=4),
    "other arms first": lambda d: verdict.lifts(d.in_order(("b", "a")).by("user"), "b"),
}


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
@pytest.mark.parametrize("what", OF_USERS)
def test_a_sum_over_users_needs_no_column_of_all(
    what: str, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = days_by_taste(split=split)
    expected = OF_USERS[what](whole)
    monkeypatch.setattr("simulator.stats.streamed._put_together", no_whole_column)
    near(OF_USERS[what](streamed(whole)), expected)


def several(how: str) -> UserDays:
    """Two fits of each arm, or days that are assigned."""
    whole = days_by_taste(split=how.endswith("split"))
    if how == "switchback":
        return replace(whole, switched=np.array([0, 1, 0]))
    if how.startswith("divided"):
        fit_of_user = np.random.default_rng(5).integers(0, 2, N).astype(np.int8)
        return replace(whole, fits=(2, 2), fit_of_user=fit_of_user)
    other = {name: cube[:, ::-1] for name, cube in whole.terms.items()}
    lives = (whole, replace(whole, terms=other))
    means = {name: (cube + other[name]) / 2 for name, cube in whole.terms.items()}
    return replace(whole, terms=means, fits=(2, 2), lives=lives)


OF_SEVERAL: dict[str, Callable[[UserDays], Any]] = {
    "lifts": lambda d: verdict.verdict(d, "a"),
    "methods": lambda d: methods.method_lifts(d, "a") if d.fits else None,
    "users by fit": lambda d: checks.fits_ratio(d) if d.fits else None,
    "novelty": lambda d: checks.novelty(d, "a"),
    "other arms first": lambda d: verdict.verdict(d.in_order(("b", "a")), "b"),
}


@pytest.mark.parametrize(
    "how", ["crossed paired", "crossed split", "divided paired", "divided split", "switchback"]
)
@pytest.mark.parametrize("what", OF_SEVERAL)
def test_sums_of_several_fits_and_of_days_need_no_column_of_all(
    what: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = several(how)
    expected = OF_SEVERAL[what](whole)
    monkeypatch.setattr("simulator.stats.streamed._put_together", no_whole_column)
    near(OF_SEVERAL[what](streamed(whole)), expected)


def in_clusters(how: str) -> UserDays:
    """Users in 130 clusters, each of which has some in several stretches, or nearly as many as
    there are users; those of one are in the same arm.
    """
    whole = (
        several("crossed split") if "crossed" in how else days_by_taste(split="paired" not in how)
    )
    random = np.random.default_rng(6)
    cluster = random.integers(0, 130, N) * 3 - 40
    if "many" in how:
        cluster = random.permutation(N)
        cluster[:200] = cluster[-200:]
    assigned = None if whole.assigned is None else np.abs(cluster) % 2
    lives = tuple(replace(life, cluster=cluster, assigned=assigned) for life in whole.lives)
    return replace(whole, cluster=cluster, assigned=assigned, lives=lives)


OF_CLUSTERS = {
    name: OF_USERS[name]
    for name in ("lifts", "lifts by day", "adjusted", "segments", "pilots", "looks", "balance")
} | {
    "winsorised users": lambda d: verdict.lifts(declared_to_winsorise(d).by("user"), "a"),
    "some users": lambda d: verdict.lifts(d.users(np.arange(100, 800)).by("user"), "a"),
}


def declared_to_winsorise(some: UserDays) -> UserDays:
    click = replace(some.metrics["click"], winsorise=0.02)
    metrics = {**some.metrics, "click": click}
    lives = tuple(replace(life, metrics=metrics) for life in some.lives)
    return replace(some, metrics=metrics, lives=lives)


@pytest.mark.parametrize("how", ["split", "many split", "paired", "crossed split"])
@pytest.mark.parametrize("what", OF_CLUSTERS)
def test_clusters_are_added_up_from_parts(
    what: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_clusters(how)
    expected = OF_CLUSTERS[what](whole)
    monkeypatch.setattr("simulator.stats.streamed._put_together", no_whole_column)
    near(OF_CLUSTERS[what](streamed(whole)), expected)


def test_sums_of_clusters_take_few_bytes() -> None:
    table, own = (one.by("user") for one in (streamed(in_clusters("split")), in_clusters("split")))
    for some in (table, own):
        assert some.numerators["click"].dtype == np.int16
        assert some.denominators["click"] is some.denominators["watch_time"]
    for name in own.numerators:
        assert table.numerators[name] == pytest.approx(own.numerators[name], rel=1e-14)
    assert (table.groups.keys(), own.groups.keys()) == (set(), set())


def test_groups_of_whole_clusters_are_those_of_clusters() -> None:
    whole = days_by_taste(split=False)
    labels = whole.by("user").groups["activity"]
    random = np.random.default_rng(7)
    cluster = np.unique(labels, return_inverse=True)[1] * 40 + random.integers(0, 40, N)
    whole = replace(whole, cluster=cluster)
    table, own = streamed(whole).by("user"), whole.by("user")
    assert own.n_units == len(np.unique(cluster))
    assert table.groups.keys() == own.groups.keys()
    assert "activity" in own.groups
    for name, labels in own.groups.items():
        assert (table.groups[name] == labels).all()


def test_users_of_several_fits_come_with_all_their_lives() -> None:
    some = np.array([700, 3, 131, 130, 3])
    for how in ("crossed split", "divided paired"):
        whole = several(how)
        found, expected = streamed(whole).users(some), whole.users(some)
        assert (found.fits, len(found.lives)) == (expected.fits, len(expected.lives))
        for one, other in zip((found, *found.lives), (expected, *expected.lives), strict=True):
            assert all((one.terms[name] == other.terms[name]).all() for name in other.terms)
        if expected.fit_of_user is not None:
            assert (found.fit_of_user == expected.fit_of_user).all()


def test_users_by_strata_are_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = days_by_taste(split=True)
    expected = post_stratified(whole.by("user"), "click_rate", "a", "b", "activity")
    monkeypatch.setattr("simulator.stats.streamed._put_together", no_whole_column)
    near(post_stratified(streamed(whole).by("user"), "click_rate", "a", "b", "activity"), expected)


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
def test_what_is_no_sum_gets_the_columns_that_it_asks_for(split: bool) -> None:
    whole = days_by_taste(split=split)
    some = np.array([700, 3, 131, 130, 3])
    for one, other in (
        (streamed(whole), whole),
        (streamed(whole).users(some), whole.users(some)),
        (streamed(whole).of_arms(np.array([1])), whole.of_arms(np.array([1]))),
    ):
        assert one.n_users == other.n_users
        assert one.terms.keys() == other.terms.keys()
        assert all((one.terms[name] == other.terms[name]).all() for name in other.terms)
        assert all((one.before[name] == other.before[name]).all() for name in other.before)
        assert (one.assigned is None) == (other.assigned is None)
    table, own = streamed(whole).by("user"), whole.by("user")
    assert table.n_units == own.n_units == N
    for part in ("numerators", "denominators", "covariates", "groups"):
        assert getattr(table, part).keys() == getattr(own, part).keys()
        for name, column in getattr(own, part).items():
            assert (getattr(table, part)[name] == column).all()
    assert (
        streamed(whole).by("user-day").numerators["click"]
        == whole.by("user-day").numerators["click"]
    ).all()
    with pytest.raises(KeyError):
        table.numerators["nothing"]


def test_users_without_a_past_have_no_segments() -> None:
    whole = days_by_taste(split=True, with_past=False)
    assert streamed(whole).by("user").groups.keys() == set()
    assert whole.by("user").groups == {}


@pytest.mark.parametrize("n", [1, 7, 1_000, 200_000])
def test_order_statistics_are_those_of_sorted_values(n: int) -> None:
    random = np.random.default_rng(n)
    columns = {
        "seconds": random.exponential(20.0, n),
        "ascending": np.sort(random.normal(size=n)),
        "counts": random.poisson(0.3, n).astype(np.int8),
        "one value": np.full(n, 4.0),
    }
    levels = (0.001, 0.25, 0.5, 0.99)
    ranks = {name: [0, *(selection.rank(q, n) for q in levels), n - 1] for name in columns}
    parts = np.array_split(np.arange(n), 7)

    def over(function: Callable[[Any], Any]) -> Iterator[Any]:
        return map(function, parts)

    found = selection.order_statistics(
        over,
        lambda part: [(name, values[part]) for name, values in columns.items()],
        ranks,
        dict.fromkeys(columns, n),
    )
    for name, values in columns.items():
        assert found[name] == np.sort(values)[ranks[name]].tolist()
        quantiles = np.quantile(values, levels, method="inverted_cdf").tolist()
        assert found[name][1:-1] == quantiles
        between = selection.quantiles(over, values.__getitem__, levels, n)
        assert between == pytest.approx(np.quantile(values, levels).tolist(), rel=1e-15)


def test_order_statistics_that_a_sample_misses_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SAMPLED", 10)
    monkeypatch.setattr(selection, "WIDTH", 0.0)
    values = np.zeros(1_000)
    values[1::100] = np.arange(10.0)  # none of the sampled ones
    values[50:99] = -1.0
    stretches = [[(0, values[:300])], [(0, values[300:])]]
    ranks = [0, 48, 49, 990, 995, 999]
    found = selection.order_statistics(
        lambda function: map(function, stretches), list, {0: ranks}, {0: 1_000}
    )
    assert found[0] == np.sort(values)[ranks].tolist()


def test_spreads_of_one_stretch_are_numpys() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 1_001)
    (one,) = passes.spreads(lambda function: iter([function([values])]), list, 1)
    assert (one.n, one.mean, one.low, one.high) == (
        1_001,
        values.mean(),
        values.min(),
        values.max(),
    )
    assert (one.deviation(), one.deviation(1)) == (values.std(), values.std(ddof=1))
    parts = [[part] for part in np.array_split(values, 5)]
    (several,) = passes.spreads(lambda function: map(function, parts), list, 1)
    assert several.deviation() == pytest.approx(values.std(), rel=1e-14)
    (nobody,) = passes.spreads(lambda function: iter([function([values[:0]])]), list, 1)
    assert nobody.n == 0
    assert np.isnan(nobody.deviation())


def test_an_audit_holds_no_users_but_those_it_draws_from(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = days_by_taste(split=False)

    def audited(users: UserDays, most: int) -> Any:
        return audit.audit(
            users,
            "a",
            repetitions=100,
            sizes=(50,),
            most=most,
            of_all=100,
            decision_repetitions=20,
        )

    monkeypatch.setattr(audit, "KEYED", N)
    for permuted in (N, N - 1):  # the users by a permutation, and by Floyd's algorithm
        monkeypatch.setattr(randomise, "PERMUTED", permuted)
        for most in (N, 300):
            expected = audited(days_by_taste(split=False), most)
            with monkeypatch.context() as patch:
                patch.setattr("simulator.stats.streamed._put_together", no_whole_column)
                near(audited(streamed(whole), most), expected)


def test_a_large_population_is_drawn_without_a_list_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, most = 1 << 40, 500  # a list of all would be eight tebibytes
    found = randomise.population(n, most, 3)
    assert (np.diff(found) > 0).all()
    assert len(found) == most
    assert 0 <= found[0] <= found[-1] < n
    assert abs(found.mean() / n - 0.5) < 5 / np.sqrt(12 * most)
    assert (found == randomise.population(n, most, 3)).all()
    assert (found != randomise.population(n, most, 4)).any()
    assert (randomise.population(20, 20, 0) == np.arange(20)).all()
    # Each pair of users is as likely as any other: chi-squared with 9 degrees of freedom.
    monkeypatch.setattr(randomise, "PERMUTED", 0)
    pairs = [tuple(randomise.population(5, 2, seed).tolist()) for seed in range(2_000)]
    counts = np.array([pairs.count(pair) for pair in combinations(range(5), 2)])
    assert counts.sum() == 2_000
    assert (np.square(counts - 200.0) / 200.0).sum() < 27.9  # p = .001


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
def test_power_is_simulated_on_a_sample_of_users_who_stay_in_files(
    split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = days_by_taste(split=split)
    expected = {n: people(whole.by("user"), n) for n in (N, 200)}
    monkeypatch.setattr("simulator.stats.streamed._put_together", no_whole_column)
    for n in (N, 200):
        monkeypatch.setattr(power, "DRAWN_FROM", n)
        near(
            power.population(power.at_hand(streamed(whole).by("user")), "click", "a", "b"),
            expected[n],
        )


def people(table: UnitTable, n: int) -> Any:
    assert power.at_hand(table) is table
    return power.population(table.where(randomise.population(N, n, 0)), "click", "a", "b")
