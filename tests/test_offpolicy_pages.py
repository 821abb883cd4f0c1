"""Every page of the offline side, block by block, of results that are written by hand: what it
says, in which words and numbers, and by what its tables sort.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.offpolicy import fidelity_page, launch_page, pooled_run, replay_page
from simulator.offpolicy.agreement import Agreement, FigurePoint
from simulator.offpolicy.diagnostics import EstimateVerdict, Weights
from simulator.offpolicy.evidence import ReplayFacts
from simulator.offpolicy.fidelity import FidelityResult
from simulator.offpolicy.jobs import OwnLogTruth
from simulator.offpolicy.lifts import OffPolicyLift, Pair
from simulator.offpolicy.online import OnlinePolicy
from simulator.offpolicy.past_launches import (
    ArmForecast,
    LaunchPair,
    LaunchResult,
    MetricLaunches,
)
from simulator.offpolicy.pooled import LEVELS, PooledAudit, PooledLift
from simulator.offpolicy.pooled_run import PooledComparison
from simulator.offpolicy.replay import CurvePoint, Estimate, Evaluation
from simulator.offpolicy.result import (
    Deviation,
    PolicyReading,
    ReplayResult,
    _finite,
    as_json,
    deviation,
)
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.uncertainty import EstimateInterval
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Heading,
    Multiples,
    Points,
    Table,
    Words,
)
from simulator.page.figures import (
    Point,
    Scale,
    Series,
    Spot,
    Whiskers,
    around_zero,
    axis,
    numbers,
    over_steps,
    picture,
    scatter,
    strip,
)
from simulator.report.stored import encode
from simulator.stats.launches import Estimated, Forecast, Relation
from simulator.stats.moments import Moments
from simulator.stats.randomise import Rate
from simulator.stats.winners import Chance, Winner


def told(block: Block) -> Iterator[str]:
    """A block as lines of text: of cells and columns whatever is not as usual, figures as `~`."""
    match block:
        case Table():
            more = {"caption": block.caption, "kind": block.kind, "sortable": block.sortable}
            more["foot"] = block.foot is not None
            usual = {"caption": "", "kind": "", "sortable": True, "foot": False}
            unusual = [f"{name}={one}" for name, one in more.items() if one != usual[name]]
            yield " ".join((f"[{block.name}]", *unusual))
            for line in (block.columns, *block.rows):
                yield "  " + " | ".join(map(unusual_of, line))
        case Words():
            yield f"note: {block.text}" if block.note else block.text
        case Heading():
            yield f"### {block.text}"
        case Points():
            yield from (f"- {sign} {words}" for sign, words in block.items)
        case Facts():
            yield from (f"{name}: {value}" for name, value in block.items)
        case Fold():
            yield f"> {block.summary}" + (" (screen)" if block.screen else "")
            for inner in block.blocks:
                yield from (f"  {line}" for line in told(inner))
        case Gate():
            yield f"{block.status}: {block.lead}: {block.text}"
        case Multiples():
            yield from (f"~ {title}" for title, _ in block.plots)


def unusual_of(one: Cell | Column) -> str:
    """The text of a cell, or the head of a column, and what else is not as usual."""
    words = [one.text if isinstance(one, Cell) else one.head]
    for field in fields(one)[1:]:
        value = getattr(one, field.name)
        if value != field.default:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            is_figure = field.name == "figure" and value is not True
            words.append("~" if is_figure else f"{field.name}={shown}")
    return " ".join(words)


def page(document: Document) -> str:
    lines = [f"{document.title} / {document.kicker} / {document.heading} / {document.about}"]
    for section in document.sections:
        bare = " bare" if section.bare else ""
        lines.append(f"== {section.id}: {section.title} ({section.short}){bare}")
        for block in section.blocks:
            lines += told(block)
    return "\n".join([*lines, document.closing])


EXPECTED = Path(__file__).with_suffix(".txt")
"""What each page should say."""


def ends(low: float, high: float, method: str = "bootstrap") -> EstimateInterval:
    return EstimateInterval(method, low, high)


def estimate(policy: str, name: str, value: float, **more: Any) -> Estimate:
    """Of an interval of .1 to either side, with a standard error of .05."""
    sound = {"intervals": (ends(value - 0.1, value + 0.1),), "error": 0.05, "count": 1500.0}
    verdict = EstimateVerdict("trustworthy", ())
    known = {"paper": f"Paper of {name}", "unit": "request", "verdict": verdict}
    return Estimate(policy, name, value=value, **(known | sound | more))


def weights(kind: str) -> Weights:
    """Of 1,500 rounds of two places over two days; only the heavier ones of a tie are listed."""
    found = Weights(2, 1500, 3000, 900.0, 1200, 340, 1480.0, 2190.4)
    found.places = np.array([[1490.0, 1776.08], [1480.0, 2190.4]])
    found.largest = [(37.0, 8), *[(2.5, row) for row in range(5)], (0.0, 77)]
    found.shown[1:], found.wanted[1:] = [True, False], [3.0, 1.0]
    nan = math.nan
    found.days = {
        3: np.array([700, 350, 350, *((690.0, 345.0) if kind != "unknown" else (nan, nan))]),
        -1: np.array([800, 80, 80, *((790.0, 79.0) if kind != "unknown" else (nan, nan))]),
    }
    return found


def evaluation(policy: str, kind: str, *estimates: Estimate) -> Evaluation:
    log = estimate("log", "mean", 0.3, verdict=None, intervals=(ends(0.29, 0.31),))
    facts = ReplayFacts(kind, 2)  # type: ignore[arg-type]
    summary = weights(kind)
    return Evaluation(policy, facts, estimates, summary, ends(0.95, 1.02, "delta"), log, 1234)


def lift(policy: str, name: str, value: float, word: Any = "weak", **more: Any) -> OffPolicyLift:
    """Of two values that vary by a hundredth in 50 units."""
    apart = np.random.default_rng(len(policy)).normal(0, 0.01 / 50**0.5, (2, 50))
    apart -= apart.mean(axis=1, keepdims=True)
    pair = Pair(np.array([0.4 * (1 + value), 0.4]), apart, 49)
    reasons = ("few rounds", "no events") if word == "weak" else ()
    verdict = EstimateVerdict(word, reasons)
    known: dict[str, Any] = {
        "moments": pair.moments, "lift": value, "low": value - 0.05, "high": value + 0.05,
        "difference": 0.4 * value, "difference_low": 0.1, "difference_high": 0.2, "p": 0.02,
        "p_adjusted": 0.04, "gain": 1.755, "verdict": verdict, "influence": pair.influence(),
    }  # fmt: skip
    return OffPolicyLift(policy, "base", name, **(known | more))


CURVE = (
    CurvePoint(1.0, 0.4, 0.01, 0.05),
    CurvePoint(2500.0, math.nan, 0.02, 0.03),
    CurvePoint(3e6, 0.42, 0.02, 0.01),
    CurvePoint(math.inf, 0.45, 0.04, 0.0),
)

TRUTH = OwnLogTruth(0.5, 0.02, 1200, ends(0.46, 0.54, "delta"))


def result() -> ReplayResult:
    """Two policies over a third one, by two estimators; the first has a truth of its own."""
    weak = EstimateVerdict("weak", ("few rounds", "no events"))
    bad = EstimateVerdict("unusable", ("0 rounds agree",))
    refused = Estimate("a", "dm", "Paper of dm", "request", refused="no model")
    every = {
        "a": (
            estimate("a", "rips", 0.52, verdict=weak, threshold=3e6, bias=0.01, curve=CURVE),
            estimate("a", "matching", 0.7, unit="impression", count=1234.0, verdict=bad),
            refused,
            estimate("a", "rollout", 0.9, verdict=weak),
            estimate("a", "ranked", 1.1, verdict=weak),
        ),
        "b": (
            estimate("b", "rips", 0.31),
            estimate("b", "matching", math.nan, intervals=(), error=math.nan, verdict=None),
            replace(refused, policy="b"),
            estimate("b", "rollout", 0.85, verdict=weak),
            estimate("b", "ranked", 1.2, verdict=weak),
        ),
    }
    lifts = (
        lift("a", "rips", 0.3),
        lift("a", "matching", 0.1, "unusable"),
        lift("b", "rips", -0.225, "trustworthy"),
        OffPolicyLift("b", "base", "matching", refused="nothing matched"),
    )
    sure = ends(0.6, 0.7, "delta")
    figures = (0.65, sure), (0.6, ends(0.55, 0.65, "delta")), (0.81, ends(0.8, 0.82, "delta"))
    orders = Ordering("a", *figures, 1300), Ordering("b", refused="the policy cannot score")
    evaluations = tuple(evaluation(name, "conditional", *every[name]) for name in every)
    notes = {"days": "two", "columns": ["x", "y"], "n": 3}
    return ReplayResult(
        "made", "click", "old", 2, evaluations, {"a": TRUTH}, orders, notes, "base", lifts
    )


def result_of_one() -> ReplayResult:
    """One policy on a log whose propensities are unknown, of rewards that were all observed."""
    names = "ips", "cdr", "cips", "matching"
    shaky = EstimateVerdict("unusable", ("too little overlap",))
    values = estimate("a", "cdr", 0.2, verdict=shaky), estimate("a", "cips", 0.1)
    others = (
        Estimate("a", "ips", "Paper of ips", "request", refused="unknown"),
        estimate("a", "matching", 0.25, unit="impression", count=9.0),
    )
    one = replace(evaluation("a", "unknown", others[0], *values, others[1]), unobserved=0)
    one.weights.days.pop(-1)
    assert tuple(each.estimator for each in one.estimates) == names
    return ReplayResult("made", "watch", "old", 2, (one,), {}, (), {})


def agreed(name: str, **of: Any) -> Agreement:
    """A figure of three policies, of which the second has none."""
    points = (
        FigurePoint(0.5, 0.1, "weak"),
        FigurePoint(math.nan, math.nan, ""),
        FigurePoint(0.75, math.nan, "weak"),
    )
    known = {
        "figure": name, "policies": 2, "usable": 1, "pairs": 3, "ordered": 2 / 3,
        "ordered_error": 0.1234, "rho": 0.456, "low": 0.1, "high": 0.9, "new_low": -0.2,
        "new_high": 0.95, "p": 0.01, "kendall": 0.3, "error": 0.0678, "covered": 2, "pick": "z",
        "tied": ("x", "y"), "doubts": ("few rounds", "wide"), "regret": 0.1, "lost": 0.0123,
        "lost_low": 0.001, "lost_high": 0.0456, "p_adjusted": 0.0314, "points": points,
    }  # fmt: skip
    return Agreement(**(known | of))


def fidelity_result(**of: Any) -> FidelityResult:
    policies = (
        OnlinePolicy("x", 0.0, 0.0, 0.0, 1.5, 0.1),
        OnlinePolicy("y", -0.0512, -0.07, -0.03, 1.25, 0.1),
        OnlinePolicy("z", 0.1234, 0.1, 0.15, 1234.5, 0.1),
    )
    chances = Chance("x", 0.0, 0.0004, 0.1), Chance("z", 0.1234, 0.876, 0.001)
    best = Winner(
        "click", "models", "z", 0.1234, 0.12, 0.09, 0.14, ("z", "x"), 0.95, False, chances
    )
    none = agreed("hr@10", error=math.nan, covered=None, ordered=math.nan, p_adjusted=math.nan)
    known: dict[str, Any] = {
        "scenario": "made", "reward": "click", "test_days": 2, "control": "x",
        "policies": policies, "best": best, "figures": (agreed("dr"), none), "logged": 1.234,
        "rounds": 4321, "fits": 3,
    }  # fmt: skip
    return FidelityResult(**(known | of))


def launch_result() -> LaunchResult:
    half = Estimated(0.5, 0.25, 0.75)
    relation = Relation(
        12, Estimated(0.754, 0.428, 0.945), half, Estimated(0.5, -0.1, 1.2),
        Estimated(0.0123, 0.01, 0.02), Estimated(0.3, 0.1, 0.6), 0.9, "wrong",
    )  # fmt: skip
    pair = LaunchPair("one", "b", "a", Estimated(0.0123, -0.01, 0.05), Estimated(0.2, 0.1, 0.3))
    other = replace(pair, test="two", real=Estimated(-0.0314, -0.04, -0.02))
    ahead = ArmForecast("c", Estimated(0.1, 0.0, 0.2), Forecast(0.0456, -0.02, 0.1, 0.876))
    known = MetricLaunches("watch_time", (pair, other), relation, "", (ahead,))
    few = MetricLaunches("like", (pair,), None, "too few", ())
    return LaunchResult("made", "a", (known, few), 0.875)


def pooled_lift(level: Any, word: Any, **of: Any) -> PooledLift:
    pooled = Moments(1.0, 1.0234, 0.0001, 0.0001, 0.0, 50, 26, 26, False)
    plain = Moments(1.0, 1.05, 0.0004, 0.0004, 0.0, 50, 26, 26, False)
    known: dict[str, Any] = {
        "low": 0.01, "high": 0.04, "split_low": -0.01, "split_high": 0.11, "p": 0.01,
        "gain": 4.125, "alike": 3.5, "variation": 0.25, "carry": 0.5,
        "reasons": () if word == "trustworthy" else ("first", "second"),
    }  # fmt: skip
    return PooledLift("base", "new", level, pooled, plain, word=word, **(known | of))


def comparisons() -> list[PooledComparison]:
    """Twins with an audit, and a split test of another reward that nobody should believe."""
    rates = [Rate(value, 0.0, 1.0) for value in (0.051, 0.048, 0.949, 0.952)]
    audit = PooledAudit("slate", 1000, 2000, *rates, 4.5, 3.25, 0.00012, 0.0345)
    lifts = pooled_lift("life", "weak", alike=1.05), pooled_lift("slate", "trustworthy")
    first = PooledComparison("base", "new", "click", lifts, 0.0345, 0.03, 0.04, (audit,))
    gone = (pooled_lift("place", "unusable", carry=0.0001),)
    nan = math.nan
    return [first, PooledComparison("base", "new", "watch", gone, nan, nan, nan, ())]


def kept(content: Any) -> str:
    """What a file of results keeps, numbers to nine digits."""
    return json.dumps(rounded(content), indent=1)


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


PAGES = {
    "replay of two policies": lambda: page(replay_page.document([result()])),
    "replay of one policy, twice": lambda: page(replay_page.document([result_of_one()] * 2)),
    "fidelity": lambda: page(fidelity_page.document(fidelity_result())),
    "launches": lambda: page(launch_page.document(launch_result())),
    "pooled": lambda: page(pooled_run.document("made", comparisons())),
    "replay.json": lambda: kept(as_json(result())),
    "replay.json of one policy": lambda: kept(as_json(result_of_one())),
    "pooled.json": lambda: kept(pooled_run.as_json(comparisons())),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_should(name: str) -> None:
    """Word by word; what a cell is sorted by stands behind its text, a figure is `~`."""
    every = EXPECTED.read_text(encoding="utf-8").split("\n#### ")[1:]
    expected = dict(one.split("\n", 1) for one in every)
    assert list(expected) == list(PAGES)
    assert PAGES[name]().rstrip("\n").split("\n") == expected[name].rstrip("\n").split("\n")


def tables(document: Document) -> dict[str, Table]:
    """The tables of a document by name, also those in folds."""
    blocks = [block for section in document.sections for block in section.blocks]
    blocks += [inner for block in blocks if isinstance(block, Fold) for inner in block.blocks]
    return {block.name: block for block in blocks if isinstance(block, Table)}


def figures(document: Document) -> list[Any]:
    """The small figures of a document."""
    blocks = [block for section in document.sections for block in section.blocks]
    blocks += [inner for block in blocks if isinstance(block, Fold) for inner in block.blocks]
    return [plot for block in blocks if isinstance(block, Multiples) for _, plot in block.plots]


def test_forests_show_the_values_of_their_rows() -> None:
    every = tables(replay_page.document([result()]))
    lifts = every["Lift over base"]
    scale = around_zero([Whiskers(0.3, 0.25, 0.35), Whiskers(-0.225, -0.275, -0.175)])
    label = "a by rips: +30.0%, 95% interval +25.0% to +35.0%"
    assert lifts.rows[0][3].figure == strip(Whiskers(0.3, 0.25, 0.35), scale, "open", label)
    assert lifts.foot == axis(scale)
    own = every["Estimates of a"]
    # Ends from .42 to 1.2, the outermost of each side left out; the truth and the log are inside.
    scale = Scale(0.3 - 0.8 * 0.08, 1.1 + 0.8 * 0.08, 2, 98)
    label = "matching: 0.7, 95% interval 0.6 to 0.8"
    row = Whiskers(0.7, 0.6, 0.8)
    assert own.rows[1][2].figure == strip(row, scale, "bad", label, region=(0.46, 0.54))
    assert own.foot == axis(scale, numbers)
    other = every["Estimates of b"]
    assert "region" not in str(other.rows[0][2].figure)


def test_a_scale_has_a_width_where_all_ends_are_one() -> None:
    sure = estimate("a", "ips", 0.5, intervals=(ends(0.5, 0.5),))
    scale = replay_page._scale([sure], None, 0.5)
    assert (scale.low, scale.high) == pytest.approx((0.5 - 0.04, 0.5 + 0.04))
    nothing = replay_page._scale([], None, 0.0)
    assert (nothing.low, nothing.high) == pytest.approx((-0.08, 0.08))


def test_a_curve_is_the_value_and_one_error_by_threshold() -> None:
    (plot,) = figures(replay_page.document([result()]))
    points = [
        Point(i, Whiskers(value, value - error, value + error), tip)
        for i, (value, error, tip) in enumerate(
            (
                (0.4, 0.01, "threshold 1: 0.4, standard error 0.01, bias 0.05"),
                (0.42, 0.02, "threshold 3M: 0.42, standard error 0.02, bias 0.01"),
                (0.45, 0.04, "threshold ∞: 0.45, standard error 0.04, bias 0"),
            )
        )
    ]
    series = Series("rips", 1, points, large=1)
    assert plot == over_steps([series], ["1", "3M", "∞"], "rips by threshold")


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(1.0, "1"), (999.5, "999.5"), (1000.0, "1k"), (12345.0, "12.35k"), (1e6, "1M"), (3e7, "30M")],
)
def test_a_threshold_is_written_in_few_characters(threshold: float, text: str) -> None:
    assert replay_page._threshold(threshold) == text


def test_scatters_have_a_numbered_mark_for_each_policy_or_launch() -> None:
    first, second = figures(fidelity_page.document(fidelity_result()))
    up = Whiskers(0.0, 0.0, 0.0), Whiskers(0.1234, 0.1, 0.15)
    spots = [
        Spot(Whiskers(0.5, 0.4, 0.6), up[0], "2", "x: dr 0.5, online lift 0.0%"),
        Spot(Whiskers(0.75, 0.75, 0.75), up[1], "1", "z: dr 0.75, online lift +12.3%"),
    ]
    label = "dr against online lift: rho 0.46, 66.7% ordered right"
    assert first == scatter(spots, label, 200)
    assert "hr@10 0.5" in second
    (launched, _) = figures(launch_page.document(launch_result()))
    across = Whiskers(0.2, 0.1, 0.3)
    spots = [
        Spot(across, Whiskers(0.0123, -0.01, 0.05), "1", "one: simulated +20.0%, real +1.2%"),
        Spot(across, Whiskers(-0.0314, -0.04, -0.02), "2", "two: simulated +20.0%, real -3.1%"),
    ]
    assert launched == scatter(spots, "simulated lifts across, real lifts up", 240)


def test_an_answer_tells_what_is_not_shown() -> None:
    none = replace(fidelity_result(), figures=(agreed("dr", ordered=math.nan),), fits=1)
    document = fidelity_page.document(none)
    assert document.about == (
        "No two policies differ online beyond noise, so no offline figure can be judged: more"
        " users or days are needed."
    )
    words = document.sections[0].blocks[0]
    assert isinstance(words, Words)
    assert words.text.endswith("The log's own policy got 1.234 per request.")
    for p, head in ((0.05, "No figure is shown"), (0.0499, "Read dr"), (math.nan, "No figure is")):
        one = replace(none, figures=(agreed("dr", p_adjusted=p, tied=(), doubts=()),))
        said = fidelity_page.answer(one)
        assert said.startswith(head)
        assert " By its own error no other policy may be as good. The figure was picked" in said
    bare = fidelity_page.document(replace(none, best=None)).sections[0].blocks
    assert [type(block) for block in bare] == [Words, Table]


def test_a_pooled_lift_says_what_it_is_worth() -> None:
    share = "the policies decide alike in 75% of the requests, all before them included"
    for of, said in (
        ({"gain": math.inf}, f"There is no difference at all: {share}."),
        ({"alike": 1.09}, f"Nothing is gained by asking both policies: {share}; read the split"
                          " estimate."),
        ({"alike": 1.1, "gain": 1.1}, f"As sure as a split test of 1.1 times as many users:"
                                      f" {share}."),
        ({"alike": 1.9, "gain": 2.0}, f"As sure as a split test of 2.0 times as many users:"
                                      f" {share}."),
    ):  # fmt: skip
        assert pooled_lift("life", "weak", **of).sentence == said  # type: ignore[arg-type]
    assert list(LEVELS) == ["life", "slate", "cascade", "place"]


def test_a_value_is_held_against_the_truth_in_errors_of_both_and_as_a_share() -> None:
    one = estimate("a", "ips", 0.6)
    truth = replace(TRUTH, error=0.12)
    assert deviation(one, truth) == Deviation(True, pytest.approx(0.1 / 0.13), pytest.approx(0.2))
    open_ = deviation(replace(one, intervals=(), error=0.0), replace(TRUTH, value=0.0, error=0.0))
    assert open_.covered is None
    assert math.isnan(open_.z)
    assert math.isnan(open_.relative)
    assert TRUTH.relative_error == 0.04
    assert math.isnan(replace(TRUTH, value=0.0).relative_error)


def test_what_json_does_not_have_is_null_or_inf() -> None:
    content = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf, "d": "nan", "e": 2}}
    assert _finite(content) == {"a": [None, ["inf", 1.5]], "b": {"c": "inf", "d": "nan", "e": 2}}


def test_the_lift_to_read_first_is_the_first_that_both_values_have() -> None:
    """By the order of the estimators; where none has a lift, that of the value read first."""
    made = result()
    assert made.lift_of("a").estimator == "rips"
    refused = replace(made.lifts[0], refused="no")
    assert replace(made, lifts=(refused, *made.lifts[1:])).lift_of("a") is made.lifts[1]
    none = replace(made.lifts[1], refused="no")
    assert replace(made, lifts=(refused, none)).lift_of("a") is refused
    assert made.over == "base"
    assert replace(made, control=None).over == "the logging policy"
    assert replace(made, lifts=made.lifts[:2]).choice is None
    assert replace(made, evaluations=made.evaluations[:1]).reading is None


def test_a_reading_says_what_the_second_figure_adds() -> None:
    one = PolicyReading("by", ("b", "a", "c"), ("a", "b"), ("a",))
    head = "Test b first. rollout puts a first"
    ties = f"{head}, and cannot tell b from it by its own error. Of these ranked puts b first"
    assert one.pick == "b"
    assert one.sentence == f"{ties}, but cannot tell a from it."
    assert replace(one, tied=()).sentence == f"{ties}."
    alone = replace(one, leaders=("a",))
    assert alone.sentence == f"{head}, and no other policy is as good within its error."


def test_a_page_is_saved_beside_its_content_and_its_figure(tmp_path: Path) -> None:
    """The file of figures has three panels of 300 x 200 px beside one another."""
    content = fidelity_result()
    page_of = fidelity_page.save(content, tmp_path)
    assert page_of == tmp_path / "fidelity.html"
    plots = fidelity_page._scatters(content)
    drawn = picture(plots, 3, (300, 200), "offline figures against online lift")
    assert (tmp_path / "fidelity.svg").read_text() == drawn + "\n"
    for name, kept_of in (
        ("fidelity", encode(content)),
        ("launches", encode(launch_result())),
        ("replay", [as_json(result()), as_json(result_of_one())]),
        ("pooled", pooled_run.as_json(comparisons())),
    ):
        if name == "launches":
            assert launch_page.save(launch_result(), tmp_path).name == "launches.html"
        if name == "replay":
            both = [result(), result_of_one()]
            assert replay_page.save(both, tmp_path).name == "replay.html"
        if name == "pooled":
            assert pooled_run.save("made", comparisons(), tmp_path).name == "pooled.html"
        text = (tmp_path / f"{name}.json").read_text()
        assert json.loads(text) == json.loads(json.dumps(kept_of))
        assert text.endswith("\n")
        assert (tmp_path / f"{name}.html").is_file()
        assert (tmp_path / f"{name}.md").is_file()


def test_a_figure_is_read_where_every_policy_has_it_however_many_they_are() -> None:
    """Of 300 policies the first figure has all; the second orders more, of two."""
    n = int("300")
    policies = fidelity_result().policies * 100
    figures = (
        agreed("dr", policies=n, usable=int("300"), ordered=0.6),
        agreed("ips", policies=2, usable=2, ordered=0.9),
        agreed("snips", policies=n, usable=int("299"), ordered=0.8),
    )
    content = replace(fidelity_result(), policies=policies, figures=figures)
    assert fidelity_page.answer(content).startswith("Read dr: it orders 60.0%")


def test_a_choice_is_by_the_estimator_that_is_read_first_for_most_policies() -> None:
    made = result()
    none = OffPolicyLift("c", "base", "rips", refused="no")
    three = (
        *made.lifts[:2], none, lift("c", "matching", 0.2), replace(none, policy="d"),
        lift("d", "matching", 0.1),
    )  # fmt: skip
    own = replace(made.evaluations[1], policy="c"), replace(made.evaluations[1], policy="d")
    many = replace(made, evaluations=(*made.evaluations[:1], *own), lifts=three)
    assert many.choice is not None
    assert many.choice.estimator == "matching"
    assert [one.policy for one in many.choice.candidates] == ["a", "c", "d"]
