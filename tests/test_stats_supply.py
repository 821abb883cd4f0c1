"""The supply side: values by hand, arms of unequal size, fits, roles; coverage by simulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.supply import METRICS, World, compared, lifts
from policies.base import Catalogue
from policies.streams import Purpose, uniform
from policies.time import DAY
from simulator import report
from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.metadata import Metadata
from simulator.log.metrics import METRICS as OF_USERS
from simulator.log.metrics import MetricError, declarations, declared, metric
from simulator.report.gather import gather, with_decision
from simulator.report.reading import read
from simulator.report.sections import first_screen
from simulator.report.stored import as_json
from simulator.stats import supply
from simulator.stats.choices import Choices
from simulator.stats.exposures import Exposures, unknown_supply
from simulator.stats.margins import Margins
from simulator.stats.supply import SupplySide, asked, gini, gini_values, supply_side
from tests.worlds import feedback_log, interleaved_log, switchback_log, with_fits


def small_log(rows: list[tuple[int, int, int, int]], **more: object) -> EventLog:
    """A log of (arm, user, item, click); arm 0 is the history; 6 items."""
    arm, user, item, click = map(np.array, zip(*rows, strict=True))
    order = np.arange(len(rows))
    columns = {
        "arm": arm,
        "user": user,
        "session": np.zeros(len(rows), dtype=int),
        "request": order,
        "position": np.zeros(len(rows), dtype=int),
        "t": np.where(arm == 0, -DAY, 0) + order,
        "item": item,
        "click": click.astype(np.int8),
    }
    given = {"arms": ("history", "a", "b"), "n_users": 4, "n_items": 6, "days": 1, "control": "a"}
    return EventLog.from_columns(columns, Metadata(**{**given, **more}))  # type: ignore[arg-type]


ROWS = [
    (0, 0, 1, 0), (0, 1, 2, 1),
    (1, 0, 1, 1), (1, 0, 2, 0), (1, 1, 1, 0), (1, 2, 3, 1),
    (2, 0, 1, 1), (2, 1, 1, 0), (2, 2, 1, 1), (2, 3, 4, 0),
]  # fmt: skip
AUTHORS = np.array([-1, 0, 0, 1, 1, 2, -1])


def side_of(log: EventLog, items: ItemFacts | None = None) -> SupplySide:
    exposures = Exposures(log.metadata, items or ItemFacts())
    read(log, exposures)
    metrics = {**asked(log.metadata), "authors_shown@3": metric("authors_shown@3")}
    return supply_side(exposures, metrics)


def levels(side: SupplySide, name: str) -> list[float]:
    found = [side.level(name, arm) for arm in side.arms]
    return [level.value for level in found if level is not None]


def test_by_hand() -> None:
    uploaded = np.full(7, np.nan)
    uploaded[[1, 3]] = [-6 * DAY, -8 * DAY]
    side = side_of(small_log(ROWS), ItemFacts(author=AUTHORS, uploaded=uploaded))
    assert levels(side, "items_shown") == pytest.approx([3 / 6, 2 / 6])
    assert levels(side, "items_clicked") == pytest.approx([2 / 6, 1 / 6])
    assert levels(side, "authors_shown") == pytest.approx([2 / 3, 2 / 3])
    assert levels(side, "authors_shown@3") == pytest.approx([1 / 3, 1 / 3])
    assert levels(side, "cold_exposure_share") == pytest.approx([1 / 4, 1 / 4])
    assert levels(side, "fresh_exposure_share") == pytest.approx([2 / 4, 3 / 4])
    assert levels(side, "fresh_click_share") == pytest.approx([1 / 2, 1.0])
    assert levels(side, "item_exposure_gini") == pytest.approx(
        [gini(np.array(sums, dtype=float)) for sums in ([2, 1, 1, 0, 0, 0], [3, 0, 0, 1, 0, 0])]
    )
    assert side.n_authors == 3


def test_gini_of_equal_and_of_one_and_its_influence() -> None:
    assert gini(np.full(7, 3.0)) == pytest.approx(0.0, abs=1e-12)
    assert gini(np.array([0.0, 0, 0, 5])) == pytest.approx(1 - 1 / 4)
    assert np.isnan(gini(np.zeros(3)))
    draws = np.random.default_rng(2).lognormal(0, 1.5, 400)
    pairs = np.abs(draws[:, None] - draws).mean() / (2 * draws.mean())
    assert gini(draws) == pytest.approx(pairs, rel=1e-12)
    # The spread of the linearised values is that of a bootstrap of the units.
    random = np.random.default_rng(3)
    again = [gini(draws[random.integers(0, 400, 400)]) for _ in range(2000)]
    assert gini_values(draws).std() / 20 == pytest.approx(np.std(again), rel=0.06)


def test_the_error_is_that_of_a_bootstrap_of_authors() -> None:
    world = World.draw(400, 80, 5)
    side = compared(world, 300, (0.6, 1.2), 5)
    m = side.moments("items_shown", "a", "b")
    assert m is not None
    table = side.tables["item"].pooled
    sums = [table.sums("items_shown", arm) for arm in ("a", "b")]
    random = np.random.default_rng(1)
    differences = []
    for _ in range(3000):
        pick = random.integers(0, m.n_units, m.n_units)
        (top, n), (other, _) = ((a[pick].sum(), b[pick].sum()) for a, b in sums)  # type: ignore[index]
        differences.append((other - top) / n)
    assert np.sqrt(m.variance) == pytest.approx(np.std(differences), rel=0.06)


def test_comparisons_go_together_as_under_a_bootstrap_of_authors() -> None:
    """Of shares of items and of authors, and of the Gini coefficient: estimated anew in samples of
    authors, each with all of its items.
    """
    side = compared(World.draw(400, 80, 5), 300, (0.6, 1.2), 5)
    names = ["items_shown", "items_clicked", "authors_clicked", "item_exposure_gini"]
    n_authors = side.n_authors
    assert n_authors is not None
    random = np.random.default_rng(1)
    found = []
    for _ in range(3000):
        pick = random.integers(0, n_authors, n_authors)
        lift = []
        for name in names:
            table = side.tables["author" if "author" in name else "item"].pooled
            sums = [table.sums(name, arm) for arm in ("a", "b")]
            a, b = (
                top[pick].sum() / (n_authors if n is None else n[pick].sum()) for top, n in sums
            )
            lift.append(b - a)
        found.append(lift)
    asked_for = [(name, "a", "b") for name in names]
    assert side.correlations(asked_for) == pytest.approx(np.corrcoef(np.transpose(found)), abs=0.06)


def test_the_joint_law_of_the_supply_side_is_that_of_its_authors() -> None:
    """Between p itself and Bonferroni's, with intervals that say the same; the users' rows, and
    metrics with a role, have theirs.
    """
    log = feedback_log(80, arms=("a", "b", "c"))
    roles = {"items_clicked@8": "deterioration", "click": "success", "like": "deterioration"}
    by = {}
    for correction in ("dunnett", "bonferroni"):
        content = gather(
            log,
            runtime=None,
            progress=lambda *_: None,
            roles=roles,  # type: ignore[arg-type]
            choices=Choices(correction=correction),  # type: ignore[arg-type]
        )
        assert content.supply is not None
        by[correction] = content.supply.rows
    shorter = 0
    for joint, apart in zip(by["dunnett"], by["bonferroni"], strict=True):
        if np.isnan(joint.p):
            continue
        assert joint.p <= joint.p_adjusted <= apart.p_adjusted
        is_excluded = joint.low_adjusted > 0 or joint.high_adjusted < 0
        assert (joint.p_adjusted < 0.05) == is_excluded
        shorter += joint.p_adjusted < apart.p_adjusted
    assert shorter > 0.9 * len([row for row in by["dunnett"] if row.p < 0.05])
    of_role = {row.metric: row for row in by["dunnett"] if row.arm == "b"}["items_clicked@8"]
    assert of_role.p_adjusted <= 4 * of_role.p


def test_intervals_cover_other_users_and_other_catalogues() -> None:
    # The truth of (.6, 1.2) by `python -m benchmarks.supply`; 3.5 standard errors of 100 draws.
    names = ("items_shown", "item_exposure_gini", "authors_clicked")
    for same in (True, False):
        rows = list(lifts(160, (0.6, 1.2), same_catalogue=same))
        for name in names:
            truth = np.mean([row[name][0] for row in rows[:60]])
            covered = np.mean([row[name][1] <= truth <= row[name][2] for row in rows[60:]])
            assert covered > 0.87, (same, name)
    null = list(lifts(100, (0.9, 0.9), same_catalogue=True))
    for name in names:
        assert np.mean([row[name][3] < 0.05 for row in null]) < 0.13


def test_arms_of_unequal_size_are_compared_over_as_many_users() -> None:
    # One user in five is in arm b; both arms show each user one item of 2,000, drawn evenly.
    scenario = {"design": {"kind": "split"}, "seed": 3}
    meta = Metadata(("a", "b"), 3000, 2000, days=1, control="a", scenario=scenario)
    arm = meta.arm_of_user()
    assert arm is not None
    user = np.flatnonzero((arm == 0) | (np.arange(3000) % 4 == 0))
    random = np.random.default_rng(4)
    order = np.lexsort((user, arm[user]))
    columns = {
        "arm": arm[user][order], "user": user[order], "session": np.zeros(len(user), int),
        "request": np.zeros(len(user), int), "position": np.zeros(len(user), int),
        "t": np.zeros(len(user), int), "item": random.integers(1, 2001, len(user)),
        "click": np.ones(len(user), np.int8),
    }  # fmt: skip
    side = side_of(EventLog.from_columns(columns, meta))
    assert side.users["a"] == side.users["b"]
    assert side.users["a"] == min(np.bincount(arm))


def test_what_is_not_known_has_a_reason() -> None:
    side = side_of(small_log([row for row in ROWS if row[0] > 0]))
    assert "no catalogue" in side.absent["authors_shown"]
    assert "upload" in side.absent["fresh_exposure_share"]
    assert side.absent["cold_click_share"] == "the log has no history"
    for log in (interleaved_log(20, 0.5), switchback_log([0, 1], np.ones((3, 2), dtype=int))):
        content = gather(log, runtime=None, progress=lambda *_: None)
        assert content.supply is not None
        assert content.supply.unknown is not None
        assert not content.supply.rows


def test_each_fit_is_counted_alone_and_is_as_random_as_authors() -> None:
    log = with_fits(feedback_log(60, arms=("a", "b")), 3)
    side = side_of(log)
    exposures = Exposures(log.metadata, ItemFacts())
    read(log, exposures)
    each = (exposures.shown[:, :, 1:] > 0).mean(axis=2)
    assert levels(side, "items_shown") == pytest.approx(each.mean(axis=1).tolist())
    # Any of the fits shows more than one of them does.
    assert (exposures.shown.sum(axis=1)[:, 1:] > 0).mean() > each.max()
    result = side.replicated("items_shown", "a", "b")
    assert result is not None
    assert result.methods is not None
    assert result.components is not None
    content = gather(log, runtime=None, progress=lambda *_: None)
    assert content.supply is not None
    assert {one.lift.metric for one in content.supply.methods} >= {"items_shown"}


def test_roles_join_the_families_of_users_and_decide() -> None:
    log = feedback_log(80, arms=("a", "b"))
    roles = {"items_clicked@8": "success", "click": "success"}
    content = gather(
        log,
        runtime=None,
        progress=lambda *_: None,
        roles=roles,  # type: ignore[arg-type]
        margins=Margins({"item_exposure_gini": 0.5, "items_shown@12": 0.0001}),
    )
    assert content.supply is not None
    row = next(row for row in content.supply.rows if row.metric == "items_clicked@8")
    assert row.p_adjusted == pytest.approx(min(2 * row.p, 1.0))
    click = next(row for row, _ in content.decided() if row.metric == "click")
    assert click.p_adjusted == pytest.approx(min(2 * click.p, 1.0))
    answers = {margin.metric: margin.answer for margin in content.margins}
    assert answers["item_exposure_gini"] == "safe"
    assert answers["items_shown@12"] != "safe"
    decision = with_decision(content).decision
    assert decision is not None
    assert "items_shown@12" in {reason.subject for reason in decision.arms[0].reasons}
    assert "items shown@12" in decision.arms[0].sentence
    (frame,) = first_screen.decisions(with_decision(content))
    shown = str(frame.blocks)
    assert all(name in shown for name in ("Click", "Items shown@12", "Item exposure gini"))


def test_a_declared_metric_that_is_not_known_is_not_shown_to_be_safe() -> None:
    content = gather(
        feedback_log(40, arms=("a", "b")),
        runtime=None,
        progress=lambda *_: None,
        roles={"click": "success"},
        margins=Margins({"authors_shown": 0.1}),
    )
    assert [margin.answer for margin in content.margins] == ["no data"]
    decision = with_decision(content).decision
    assert decision is not None
    assert decision.answer == "hold"


def test_the_log_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = small_log(ROWS)
    walks = []
    plain = EventLog.batches

    def counted(self: EventLog, columns: list[str] | None = None, rows: int = 1 << 20) -> object:
        walks.append(columns)
        return plain(self, columns, rows)

    monkeypatch.setattr(EventLog, "batches", counted)
    read(log, Exposures(log.metadata, ItemFacts()))
    assert len(walks) == 1


def test_batches_do_not_matter() -> None:
    log = feedback_log(30, arms=("a", "b"))
    found = []
    for rows in (7, 1 << 20):
        exposures = Exposures(log.metadata, ItemFacts())
        columns = [*log.metadata.key, "t", *exposures.columns]
        for stretch in log.stretches(list(dict.fromkeys(columns)), rows):
            exposures.add(stretch)
        found.append((exposures.shown, exposures.clicked))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_groups_of_real_data_begin_at_one() -> None:
    codes = np.array([0, 0, 5, 5, 9])
    catalogue = Catalogue(2, 4, {"author": codes, "uploaded": np.full(5, 3.0)})
    real = ItemFacts.of(catalogue, first=1)
    made = ItemFacts.of(catalogue, first=0)
    assert real.author is not None
    assert made.author is not None
    assert real.author.tolist() == [-1, -1, 0, 0, 1]
    assert made.author.tolist() == [-1, 0, 1, 1, 2]
    assert real.uploaded is not None
    assert real.uploaded[1] == -3 * DAY


def test_names() -> None:
    assert metric("authors_shown@25").supply == dataclasses.replace(
        metric("authors_shown").supply,
        least=25,  # type: ignore[type-var]
    )
    assert metric("item_click_gini").higher_is_better is False
    with pytest.raises(MetricError, match="whole number"):
        metric("items_shown@0")
    with pytest.raises(MetricError, match="did you mean 'items_shown'"):
        metric("item_shown")
    with pytest.raises(MetricError, match="margin"):
        declared(
            {"authors_shown": metric("authors_shown")},
            declarations(None, {"authors_shown": "guardrail"}),
        )
    assert set(METRICS).isdisjoint(OF_USERS)


def test_the_report_says_it_everywhere(tmp_path: Path) -> None:
    log = feedback_log(60, arms=("a", "b"))
    content = report.write(log, tmp_path)
    text = (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "## Supply side" in text
    assert "of the catalogue" in text
    assert 'id="supply"' in page
    assert as_json(report.load(tmp_path)) == as_json(content)
    assert content.supply is not None


def literal_gini_values(sums: np.ndarray) -> np.ndarray:
    """Langel & Tillé's linearised values, from all pairs of units."""
    m, h = sums.mean(), np.abs(sums[:, None] - sums).mean(axis=1)
    g = h.mean() / (2 * m)
    return g + (h - h.mean()) / m - g * (sums - m) / m


@pytest.mark.parametrize("sums", [[3.0, 0, 1, 1, 7], [2.0, 2, 2], [0.0, 0, 5], [4.0]])
def test_values_of_the_gini_coefficient(sums: list[float]) -> None:
    assert gini_values(np.array(sums)) == pytest.approx(literal_gini_values(np.array(sums)))


def test_nothing_has_no_gini_coefficient() -> None:
    found = gini_values(np.zeros(3))
    assert (len(found), np.isnan(found).all()) == (3, True)


def counts(log: EventLog, items: ItemFacts | None = None) -> Exposures:
    exposures = Exposures(log.metadata, items or ItemFacts())
    read(log, exposures)
    return exposures


def test_impressions_and_clicks_are_counted_by_arm_and_item() -> None:
    found = counts(small_log(ROWS))
    assert found.shown[:, 0].tolist() == [[0, 2, 1, 1, 0, 0, 0], [0, 3, 0, 0, 1, 0, 0]]
    assert found.clicked[:, 0].tolist() == [[0, 1, 0, 1, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0]]
    assert found.before.tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert (found.fresh, found.counted, found.users.tolist()) == (None, None, [4, 4])
    assert (found.knows_history, found.knows_clicks) == (True, True)
    assert found.columns == ("arm", "user", "item", "t", "click")
    fewer = counts(small_log([row for row in ROWS if row[0]]))
    assert (fewer.knows_history, fewer.before.sum()) == (False, 0)
    unseen = counts(small_log([(*row[:3], -1) for row in ROWS]))
    assert (unseen.knows_clicks, unseen.clicked.sum()) == (False, 0)
    none = counts(small_log([(*row[:3], 0) for row in ROWS]))
    assert (none.knows_clicks, none.clicked.sum()) == (True, 0)


def rows_at(*times: int) -> dict[str, np.ndarray]:
    """Impressions of item 1 in arm a by user 0, all of them clicked."""
    n = len(times)
    return {
        "arm": np.ones(n, dtype=int), "user": np.zeros(n, dtype=int), "item": np.ones(n, dtype=int),
        "t": np.array(times), "click": np.ones(n, dtype=np.int8),
    }  # fmt: skip


def test_what_is_after_the_test_does_not_count() -> None:
    for days, counted in ((2, 3), (0, 5)):
        found = Exposures(small_log(ROWS, days=days).metadata, ItemFacts())
        found.add(rows_at(-1, 0, DAY, 2 * DAY - 1, 2 * DAY, 9 * DAY))  # type: ignore[arg-type]
        assert found.shown[0, 0, 1] == found.clicked[0, 0, 1] == counted
        assert found.before[1] == 1


def test_what_is_of_no_compared_arm_does_not_count() -> None:
    found = Exposures(small_log(ROWS).metadata, ItemFacts())
    found.add(rows_at(0, 1) | {"arm": np.zeros(2, dtype=int)})  # type: ignore[arg-type]
    assert (found.shown.sum(), found.clicked.sum()) == (0, 0)


def test_items_are_fresh_from_their_upload_for_seven_days() -> None:
    """Uploaded at noon of day 1: not before, and not a millisecond after seven days."""
    uploaded = np.full(7, np.nan)
    uploaded[1] = DAY // 2
    found = Exposures(small_log(ROWS, days=30).metadata, ItemFacts(uploaded=uploaded))
    at = DAY // 2
    found.add(rows_at(at - 1, at, at + 7 * DAY, at + 7 * DAY + 1, -1))  # type: ignore[arg-type]
    assert found.fresh is not None
    assert found.fresh["shown"][0, 0, 1] == found.fresh["clicked"][0, 0, 1] == 2
    assert (found.shown[0, 0, 1], found.fresh["shown"].sum()) == (4, 2)
    unseen = rows_at(at) | {"click": np.zeros(1, dtype=np.int8)}
    found.add(unseen)  # type: ignore[arg-type]
    assert (found.fresh["shown"].sum(), found.fresh["clicked"].sum()) == (3, 2)


@pytest.mark.parametrize(("fits", "seed"), [(1, 3), (2, 4)])
def test_who_counts_is_drawn_by_the_users_own_numbers(fits: int, seed: int) -> None:
    """Of each arm with each fit as many as the smallest has, those with the lowest numbers."""
    scenario = {"design": {"kind": "split"}, "seed": seed, "fits": {"number": fits},
                "arms": {"a": {}, "b": {}}}  # fmt: skip
    meta = Metadata(("a", "b"), 90, 6, days=1, control="a", scenario=scenario)
    found = Exposures(meta, ItemFacts())
    arm = meta.arm_of_user()
    assert arm is not None
    assert found.counted is not None
    fit = meta.fits.fit_of_user(seed, np.arange(90), 2) if fits == 2 else np.zeros(90, dtype=int)
    draw = uniform(seed, Purpose.RESAMPLE, np.arange(90), lane=1)
    sizes = np.zeros(2, dtype=int)
    for one in range(fits):
        cells = [np.flatnonzero((arm == a) & (fit == one)) for a in range(2)]
        least = min(map(len, cells))
        sizes += least
        for cell in cells:
            order = cell[np.argsort(draw[cell])]
            assert found.counted[order[:least]].all()
            assert not found.counted[order[least:]].any()
    assert found.users.tolist() == sizes.tolist()
    assert found.shown.shape == (2, fits, 7)


def test_users_who_are_not_drawn_are_not_counted() -> None:
    scenario = {"design": {"kind": "split"}, "seed": 3}
    meta = Metadata(("a", "b"), 90, 6, days=1, control="a", scenario=scenario)
    found = Exposures(meta, ItemFacts())
    arm = meta.arm_of_user()
    assert arm is not None
    assert found.counted is not None
    rows = {
        "arm": arm, "user": np.arange(90), "item": np.arange(90) % 6 + 1,
        "t": np.zeros(90, dtype=int), "click": np.ones(90, dtype=np.int8),
    }  # fmt: skip
    found.add(rows)  # type: ignore[arg-type]
    for a in range(2):
        own = found.counted & (arm == a)
        assert found.shown[a, 0].tolist() == np.bincount(
            np.arange(90)[own] % 6 + 1, minlength=7
        ).tolist()  # fmt: skip


def test_values_by_author_are_sums_and_an_item_of_nobody_is_alone() -> None:
    top = np.array([[[1.0, 0, 2, 5, 7, 9]]])
    author = np.array([-1, 1, 0, 1, -1, 0, -1])
    sums, whole = supply._clustered(top, None, author)
    assert sums.tolist() == [[[7.0, 3.0, 5.0, 9.0]]]
    assert whole.tolist() == [[[2.0, 2.0, 1.0, 1.0]]]
    sums, whole = supply._clustered(top, top * 2, author)
    assert whole.tolist() == (2 * sums).tolist()
    counts = np.array([[[9, 1, 0, 2, 5, 7, 9]]])
    assert supply._by_group(counts, author, 3).tolist() == [[[7, 3, 0]]]


def test_shares_and_coefficients_of_sums() -> None:
    sums = np.array([[[0, 1, 2, 3]], [[1, 1, 0, 0]]])
    for least, expected in (
        (1, [[[0, 1, 1, 1]], [[1, 1, 0, 0]]]),
        (2, [[[0, 0, 1, 1]], [[0] * 4]]),
    ):
        values, bottom = supply._of_sums(sums, "share", least, "shown")  # type: ignore[misc]
        assert (values.tolist(), bottom) == (expected, None)  # type: ignore[union-attr]
    values, bottom = supply._of_sums(sums, "gini", 1, "shown")  # type: ignore[misc]
    assert bottom is None
    for place in ((0, 0), (1, 0)):
        assert values[place] == pytest.approx(literal_gini_values(sums[place].astype(float)))  # type: ignore[index]
    none = np.array([[[0, 1]], [[0, 0]]])
    assert supply._of_sums(none, "gini", 1, "clicked") == "nothing was clicked in one of the arms"
    assert not isinstance(supply._of_sums(none, "share", 1, "shown"), str)


def test_young_items_by_hand() -> None:
    uploaded = np.full(7, np.nan)
    uploaded[[1, 4]] = -DAY
    found = counts(small_log(ROWS), ItemFacts(uploaded=uploaded))
    assert found.fresh is not None
    top, whole = supply._young(found, found.shown, found.fresh["shown"], "fresh")  # type: ignore[misc]
    assert top[:, 0].tolist() == [[2, 0, 0, 0, 0, 0], [3, 0, 0, 1, 0, 0]]  # type: ignore[index]
    assert whole[:, 0].tolist() == [[2, 1, 1, 0, 0, 0], [3, 0, 0, 1, 0, 0]]  # type: ignore[index]
    top, whole = supply._young(found, found.shown, None, "cold")  # type: ignore[misc]
    assert top[:, 0].tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]  # type: ignore[index]
    assert supply._young(found, found.shown, None, "fresh") == (
        "no catalogue beside the log says when items were uploaded"
    )
    found.before[1:] = 1
    assert supply._young(found, found.shown, None, "cold") == (
        "the history shows every item of the catalogue"
    )
    found.before[0] = found.before[6] = 0
    assert not isinstance(supply._young(found, found.shown, None, "cold"), str)
    found.before[:] = 0
    assert supply._young(found, found.shown, None, "cold") == "the log has no history"


def test_a_level_is_a_share_with_students_interval() -> None:
    side = side_of(small_log(ROWS))
    assert (side.unit, side.n_items, side.n_authors, side.users) == (
        "item",
        6,
        None,
        {"a": 4, "b": 4},
    )
    values = np.array([1.0, 1, 1, 0, 0, 0])
    for level in (0.95, 0.5):
        found = side.level("items_shown", "a", level)
        assert found is not None
        half = stats.t.ppf(0.5 + level / 2, 5) * values.std(ddof=1) / np.sqrt(6)
        assert (found.metric, found.arm, found.value) == ("items_shown", "a", 0.5)
        assert (found.low, found.high) == pytest.approx((max(0.5 - half, 0), min(0.5 + half, 1)))
    clicked = side.level("items_clicked", "b")
    assert clicked is not None
    assert clicked.low == 0.0
    assert side.level("authors_shown", "a") is None
    assert side.moments("authors_shown", "a", "b") is side.moments("click", "a", "b") is None
    assert side.replicated("authors_shown", "a", "b") is None
    assert side.replicated("click", "a", "b") is None


def test_reasons_why_there_is_nothing_to_say() -> None:
    rows = [(*row[:3], -1) for row in ROWS if row[0] < 2]
    side = side_of(small_log(rows))
    assert side.absent == {
        "items_clicked": "the log has no clicks",
        "item_click_gini": "the log has no clicks",
        "fresh_click_share": "the log has no clicks",
        "cold_click_share": "the log has no clicks",
        "authors_clicked": "the log has no clicks",
        "item_exposure_gini": "nothing was shown in one of the arms",
        "fresh_exposure_share": "no catalogue beside the log says when items were uploaded",
        "authors_shown": "no catalogue beside the log says who made an item",
        "authors_shown@3": "no catalogue beside the log says who made an item",
        "authors_clicked@100": "the log has no clicks",
        "author_click_gini": "the log has no clicks",
        "author_exposure_gini": "no catalogue beside the log says who made an item",
        "authors_shown@100": "no catalogue beside the log says who made an item",
    }
    nothing = SupplySide.unknown({"x": metric("items_shown")}, ["a", "b"], "a reason")
    assert nothing.absent == {"x": "a reason"}
    assert (nothing.arms, nothing.users, nothing.n_items, nothing.n_authors) == (
        ("a", "b"),
        {},
        0,
        None,
    )
    assert (nothing.reason, nothing.tables, nothing.level("x", "a")) == ("a reason", {}, None)


def test_some_arms_only() -> None:
    exposures = counts(small_log(ROWS))
    side = supply_side(exposures, {"items_shown": metric("items_shown")}, ["b"])
    assert (side.arms, side.users, list(side.metrics)) == (("b",), {"b": 4}, ["items_shown"])
    assert side.tables["item"].pooled.arms == ("b",)
    assert levels(side, "items_shown") == pytest.approx([2 / 6])
    whole = supply_side(exposures, asked(exposures.meta))
    assert set(supply_side(exposures).metrics) == set(whole.metrics) == set(asked(exposures.meta))
    of_items = {name for name, one in whole.metrics.items() if one.supply.unit == "item"}  # type: ignore[union-attr]
    assert set(whole.tables["item"].pooled.metrics) == of_items


def test_metrics_that_are_asked_for() -> None:
    meta = small_log(ROWS).metadata
    usual = list(asked(meta))
    also = asked(meta, ["items_shown@4", "click", "nonsense"])
    assert list(also) == [*usual, "items_shown@4"]
    named = small_log(ROWS, scenario={"metrics": ["click", "authors_shown@9"]}).metadata
    assert list(asked(named)) == [*usual, "authors_shown@9"]
    declared_of = {"metrics": ["click", {"items_shown": {"better": "lower"}}]}
    changed = asked(small_log(ROWS, scenario=declared_of).metadata)["items_shown"]
    assert changed.higher_is_better is False


def test_why_nothing_is_known_of_a_log() -> None:
    assert unknown_supply(small_log(ROWS).metadata) is None
    assert unknown_supply(interleaved_log(3, 0.5).metadata) == (
        "the arms share each slate, and what each would show alone is not known"
    )
    switched = switchback_log([0, 1], np.ones((3, 2), dtype=int))
    assert unknown_supply(switched.metadata) == (
        "the arms serve on different days, and what is shown depends on the days before"
    )
    history = small_log([row for row in ROWS if row[0] == 0], arms=("history",), control="")
    assert unknown_supply(history.metadata) == "the log is a history: there are no arms"
