"""abtest reproduce: published numbers, data sets, experiments from their logs, resuming, tables,
curves, the command.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy import stats
from statsmodels.stats.multitest import multipletests

from policies import plugins
from policies.base import Catalogue, Fitting, Policy, Sequences, silent
from policies.calls import CallError
from policies.examples import chain
from policies.registry import make
from policies.stamp import STAMP
from policies.transitions import Transitions
from recgpt.model import Shape
from recgpt.policy import RecGPT
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.page.blocks import Table
from simulator.page.markdown import text
from simulator.reproduce import ahead, artefacts, claims, curves, gallery
from simulator.reproduce import result_tables as tables
from simulator.reproduce.experiment import (
    Dataset,
    Experiment,
    ExperimentPlan,
    ReproduceError,
    Results,
    find,
    read_places,
    values,
)
from simulator.reproduce.part import TrainingPart
from simulator.reproduce.published import METRICS, TABLE_2, TABLE_3
from simulator.reproduce.systems import (
    BEST,
    FAMILIES,
    ON_REQUEST,
    OWNER,
    PROTOCOLS,
    RELEASED,
    ROWS,
    VARIANTS,
    WRITTEN,
    Family,
)
from tests.worlds import write_sequences

PAPER = PROTOCOLS["paper"]


@pytest.fixture(scope="module")
def sequences_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_sequences(root)
    return root


TINY = {"width": 8, "feedforward": 8, "length": 40}
BRIEF = {"epochs": 2, "patience": 1, "batch": 32}
SMALL = Family(
    "small",
    "recgpt",
    {"shape": TINY, "pretraining": BRIEF, "tuning": BRIEF},
    {"one": {"quotas": [1]}, "two": {"quotas": [9, 1]}},
    ("pretraining_loss",),
)


def test_published_numbers_are_read_into_their_columns() -> None:
    assert len(TABLE_2) == 12 * 16
    assert len(TABLE_3) == 4 * 8
    assert TABLE_2["SASRec", "beauty", "hit_rate@10"] == 0.0614
    assert TABLE_2["RecGPT", "yelp", "ndcg@10"] == 0.0146
    assert TABLE_2["GRU4Rec", "toys", "hit_rate@5"] == 0.0157
    assert TABLE_3["Variant_1", "sports", "ndcg@10"] == 0.0135
    for (
        row,
        dataset,
        metric,
    ) in TABLE_3:  # Table 3 repeats rows of Table 2, but for one misprint in the paper
        twin = {"RecGPT": "RecGPT", "Variant_2": "RecGPT1", "Variant_3": "Pre-train"}.get(row)
        if twin and (row, dataset, metric) != ("Variant_2", "toys", "ndcg@10"):
            assert TABLE_3[row, dataset, metric] == TABLE_2[twin, dataset, metric]


def test_every_row_has_a_system_that_its_policy_accepts() -> None:
    assert {row for row, _, _ in TABLE_2} <= set(ROWS)
    assert {row for row, _, _ in TABLE_3} == set(VARIANTS)
    for family in FAMILIES.values():
        for protocol in PROTOCOLS.values():
            fits = set()
            for spec in family.specs(protocol).values():
                made = make(spec["policy"], spec["params"])
                fits.add(made.fit_key())
            assert len(fits) == 1, family.name
    assert OWNER[VARIANTS["Variant_1"]] is OWNER[VARIANTS["Variant_3"]]


def test_both_modes_of_the_network_are_those_of_the_model() -> None:
    for params, shape in ((WRITTEN, Shape.written()), (RELEASED, Shape.released())):
        assert asdict(shape) == {**params, "relative": False, "trace": False, "user_rows": 0}


def test_data_sets_are_found_by_either_name(sequences_folder: Path) -> None:
    assert [d.name for d in find(sequences_folder, ())] == ["beauty"]
    assert find(sequences_folder, ("BEAUTY",))[0].path == sequences_folder / "Beauty.txt"
    with pytest.raises(
        ReproduceError, match=r"--datasets Beuty: no such file .*did you mean 'beauty'"
    ):
        find(sequences_folder, ("Beuty",))
    with pytest.raises(ReproduceError, match="no such folder"):
        find(sequences_folder / "nowhere", ())


def test_statistics_are_those_of_the_file(sequences_folder: Path) -> None:
    rows = [line.split()[1:] for line in (sequences_folder / "Beauty.txt").read_text().splitlines()]
    items = {item for row in rows for item in row}
    assert Dataset("beauty", sequences_folder / "Beauty.txt").statistics == (
        60,
        len(items),
        sum(map(len, rows)),
        max(map(len, rows)) - 1,
    )


def test_places_are_those_of_the_recall_itself(sequences_folder: Path, tmp_path: Path) -> None:
    """The log's clicks against ranking by hand: an arm that recalls what the policy recalls outside
    of any run.
    """
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    experiment = Experiment(dataset, FAMILIES["Transitions"], PAPER, 0)
    places = experiment.places(tmp_path, silent)["Transitions"]
    rows = [
        [int(item) for item in line.split()[1:]]
        for line in (sequences_folder / "Beauty.txt").read_text().splitlines()
    ]
    number: dict[int, int] = {}
    for row in rows:
        for item in row:
            number.setdefault(item, len(number) + 1)
    rows = [[number[item] for item in row] for row in rows]

    def sequences(parts: list[list[int]]) -> Sequences:
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
        flat = np.array([item for part in parts for item in part])
        return Sequences(
            np.arange(len(parts)),
            offsets,
            flat,
            np.ones(len(flat), dtype=bool),
            np.arange(len(flat)),
        )

    policy = make("itemknn").fit(
        sequences([row[:-2] for row in rows]), Catalogue(60, len(number)), Fitting()
    )
    slates = policy.recall(sequences([row[:-1] for row in rows]).last(20), 10, 0)
    expected = [
        items.index(row[-1]) if row[-1] in items else -1
        for items, row in zip(slates.items.tolist(), rows, strict=True)
    ]
    assert places.tolist() == expected
    assert max(expected) >= 0


def test_a_finished_experiment_is_not_run_again(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    plan = ExperimentPlan((dataset,), (FAMILIES["PopRec"], SMALL), PAPER, 2, tmp_path)
    assert len(list(plan.experiments())) == 3  # the deterministic one once
    first = plan.run(silent)
    assert {name: len(found) for (_, name), found in first.places.items()} == {
        "PopRec": 1,
        "one": 2,
        "two": 2,
    }
    monkeypatch.setattr(
        "simulator.run.pipeline.simulate", lambda *_, **__: pytest.fail("run again")
    )
    again = plan.run(silent)
    for key, found in first.places.items():
        assert all(np.array_equal(a, b) for a, b in zip(found, again.places[key], strict=True))
    other = Experiment(dataset, SMALL, PROTOCOLS["softmax"], 0)
    assert other.folder(tmp_path) != Experiment(dataset, SMALL, PAPER, 0).folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "policy", "parameter", "default"),
    [
        ("STAMP", STAMP, "std", 0.2),
        ("Transitions", Transitions, "decay", 0.3),  # within what is kept from the validation item
        ("RecGPT K=1", RecGPT, "merge", "score"),  # of serving only
    ],
)
def test_a_changed_default_makes_another_experiment(
    sequences_folder: Path,
    tmp_path: Path,
    name: str,
    policy: type[Policy],
    parameter: str,
    default: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def where(family: str) -> Path:
        return Experiment(
            Dataset("beauty", sequences_folder / "Beauty.txt"), FAMILIES[family], PAPER, 0
        ).folder(tmp_path)

    before, other = where(name), where("GRU4Rec")
    assert where(name) == before
    monkeypatch.setattr(plugins, "checker", plugins.checker.__wrapped__)  # which knows the old one
    monkeypatch.setattr(policy.__dataclass_fields__[parameter], "default", default)
    assert where(name) != before
    assert where("GRU4Rec") == other


def test_changed_data_or_another_foundation_makes_another_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sequences(tmp_path)

    def key() -> str:
        return Experiment(Dataset("beauty", path), FAMILIES["Fine-tuning"], PAPER, 0).key

    (tmp_path / "elsewhere").mkdir()
    same = write_sequences(tmp_path / "elsewhere")
    keys = [key()]
    assert Experiment(Dataset("beauty", same), FAMILIES["Fine-tuning"], PAPER, 0).key == keys[0]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")  # as long as before
    keys.append(key())
    (tmp_path / "Beauty_item2attributes.json").write_text('{"1": [1]}')
    keys.append(key())
    (tmp_path / "Beauty_item2attributes.json").write_text('{"1": [2]}')
    keys.append(key())
    base = FAMILIES["Pre-train"]
    monkeypatch.setitem(
        FAMILIES, "Pre-train", replace(base, params={**base.params, "windows": "all"})
    )
    keys.append(key())
    assert len(set(keys)) == 5


def test_side_by_side_is_the_same_as_one_after_another(
    sequences_folder: Path, tmp_path: Path
) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    news: list[tuple[str, int, int]] = []
    apart, beside = (
        ExperimentPlan(
            (dataset,), (FAMILIES["Transitions"], SMALL), PAPER, 2, tmp_path / str(workers)
        ).run(lambda stage, done, total, _: news.append((stage, done, total)), workers)
        for workers in (1, 2)
    )
    assert apart.places.keys() == beside.places.keys()
    for key, found in apart.places.items():
        assert all(np.array_equal(a, b) for a, b in zip(found, beside.places[key], strict=True))
    assert [(done, total) for stage, done, total in news if stage == "experiments"] == [
        (1, 3),
        (2, 3),
        (3, 3),
    ] * 2


def test_a_failure_beside_others_is_told(sequences_folder: Path, tmp_path: Path) -> None:
    wrong = Family(
        "wrong", "recgpt", {"shape": TINY, "pretraining": {**BRIEF, "rate": 1e30}, "tuning": BRIEF}
    )
    with pytest.raises(ValueError, match="the loss must be finite"):
        ExperimentPlan(
            (Dataset("beauty", sequences_folder / "Beauty.txt"),),
            (wrong, SMALL),
            PAPER,
            1,
            tmp_path,
        ).run(silent, 2)


def test_foundations_come_first_and_once(sequences_folder: Path, tmp_path: Path) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    pair = [Experiment(dataset, FAMILIES[name], PAPER, 0) for name in ("Fine-tuning", "RecGPT K=1")]
    assert [experiment.depth for experiment in pair] == [1, 1]
    assert (
        len(
            {
                foundation.folder(tmp_path)
                for e in pair
                if (foundation := e.foundation) and foundation.depth == 0
            }
        )
        == 1
    )


def test_one_step_and_two_steps_share_the_fit_and_the_first_nine_places(
    sequences_folder: Path, tmp_path: Path
) -> None:
    experiment = Experiment(Dataset("beauty", sequences_folder / "Beauty.txt"), SMALL, PAPER, 0)
    places = experiment.places(tmp_path, silent)
    fits = [
        p
        for p in (experiment.folder(tmp_path) / "models").iterdir()
        if (p / "policy.json").is_file()
    ]
    assert len(fits) == 1
    early = (places["one"] >= 0) & (places["one"] < 9)
    assert (places["two"][early] == places["one"][early]).all()


def test_tuned_models_start_from_the_pre_trained_one(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"shape": TINY}
    monkeypatch.setitem(
        FAMILIES,
        "base",
        Family("base", "pretrain", {**shape, "pretraining": BRIEF}, losses=("pretraining_loss",)),
    )
    tuned = Family(
        "tuned",
        "finetune",
        {**shape, "tuning": {**BRIEF, "epochs": 0}, "ranking": "items"},
        foundation="base",
    )
    stages: list[str] = []
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    found = Experiment(dataset, tuned, PAPER, 0).places(
        tmp_path, lambda stage, *_: stages.append(stage)
    )["tuned"]
    assert any(stage.startswith("beauty base") and "pre-train" in stage for stage in stages)
    assert not any(stage.startswith("beauty tuned") and "pre-train" in stage for stage in stages)
    base = Experiment(dataset, FAMILIES["base"], PAPER, 0)
    assert found.tolist() == base.places(tmp_path, silent)["base"].tolist()  # the very same model
    assert (found >= 0).any()
    assert Experiment(dataset, tuned, PAPER, 0).tuned(tmp_path) == (0,)
    assert base.tuned(tmp_path) is None
    further = {**tuned.params, "tuning": {"epochs": 2, "patience": 0, "batch": 32}}
    longer = replace(tuned, name="longer", params=further)
    plan = ExperimentPlan((dataset,), (tuned, longer, FAMILIES["base"]), PAPER, 1, tmp_path)
    moved = {("beauty", "tuned"): [False], ("beauty", "longer"): [True]}
    assert plan.run(silent).tuned == moved


def test_rows_of_other_papers_stand_below_those_of_a_data_set(tmp_path: Path) -> None:
    """A made LastFM.txt is found by its file's name, and has its own rows beside the measured."""
    write_sequences(tmp_path, "LastFM.txt")
    (dataset,) = find(tmp_path, ("lastfm",))
    plan = ExperimentPlan((dataset,), (FAMILIES["PopRec"],), PAPER, 1, tmp_path / "out")
    cells = tables.cells(plan.run(silent), {"PopRec": "PopRec"}, ["LastFM"], METRICS, TABLE_2, [])
    assert all(math.isnan(cell.published) for cell in cells)
    *_, beside = tables.sections(cells)[0].blocks
    assert isinstance(beside, Table)
    assert [cell.text for cell in beside.rows[0]][:3] == ["BSARec", ".0807", ".0435"]


def test_longer_slates_are_served_by_the_same_fit(sequences_folder: Path, tmp_path: Path) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    plan = ExperimentPlan((dataset,), (SMALL,), PAPER, 2, tmp_path, recall=20)
    stages: list[str] = []
    results = plan.run(lambda stage, *_: stages.append(stage))
    assert sum(stage.endswith("seed 1: fit recgpt: tune") for stage in stages) == 2  # its epochs
    histories, target = dataset.requests()
    spec = SMALL.specs(PAPER)["two"]
    for seed in range(2):
        folder = Experiment(dataset, SMALL, PAPER, seed).folder(tmp_path)
        (state,) = folder.glob("models/*/state.npz")
        policy = make(spec["policy"], spec["params"]).load(state.parent)
        items = policy.recall(histories, 20, seed).items
        hit = (items == target[:, None]).any(axis=1)
        assert values(results.sets["beauty", "two"][seed], "hit_rate@20").tolist() == hit.tolist()
        assert results.seeds("beauty", "two", "hit_rate@20")[seed] == hit.mean()
    assert (results.sets["beauty", "one"][0] >= 10).any()
    rows = {"one": "one", "two": "two"}
    cells = tables.cells(results, rows, ["beauty"], plan.further_metrics, {}, ["one"])
    assert [cell.metric for cell in cells] == ["hit_rate@20"] * 2
    claim = claims.Claim("two steps help", "one", "two")
    said = claims.answers(results, [dataset], [claim], plan.further_metrics)
    assert [row.metric for row in said if not row.group] == [*claims.METRICS, "hit_rate@20"]


def test_what_tuning_did_stands_beside_every_row_and_claim(sequences_folder: Path) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    draw = np.random.default_rng(5)
    seeds = [draw.choice(np.array([-1, 0, 7]), 60).astype(np.int8) for _ in range(6)]
    results = Results(
        {("beauty", "start"): seeds[:3], ("beauty", "tuned"): seeds[3:]},
        {("beauty", "tuned"): [True, False, True]},
    )
    rows = {"Pre-train": "start", "RecGPT": "tuned"}
    made = tables.cells(results, rows, ["beauty"], ["hit_rate@10"], {}, ["Pre-train"])
    assert [cell.tuned for cell in made] == [None, (0, 2)]
    shown = tables.sections(made)[0].blocks[0]
    assert isinstance(shown, Table)
    assert [row[7].text for row in shown.rows] == ["", "seeds 0, 2"]
    found = claims.answers(results, [dataset], [claims.Claim("it helps", "start", "tuned")])
    assert {(row.worse_tuned, row.better_tuned) for row in found} == {(None, 2)}
    said = claims.sections(found)[0].blocks[0]
    assert isinstance(said, Table)
    assert [row[-2].text for row in said.rows] == ["2 of 3 > -"] * 2
    means = [[values(place, "ndcg@10").mean() for place in part] for part in (seeds[:3], seeds[3:])]
    (whole,) = (row for row in found if not row.group and row.metric == "ndcg@10")
    test = stats.ttest_rel(means[1], means[0])
    assert whole.seeds_p == pytest.approx(test.pvalue)
    interval = test.confidence_interval()
    assert (whole.seeds_low, whole.seeds_high) == pytest.approx((interval.low, interval.high))


def test_the_cost_of_an_experiment_counts_what_came_before_an_interruption(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    experiment = Experiment(Dataset("beauty", sequences_folder / "Beauty.txt"), SMALL, PAPER, 0)

    def stop_in_tuning(stage: str, *_: Any) -> None:
        clock[0] += 10
        if stage.endswith("tune"):
            raise RuntimeError("stopped")

    with pytest.raises(CallError, match="stopped"):
        experiment.finish(tmp_path, stop_in_tuning)
    folder = experiment.folder(tmp_path)
    before = json.loads((folder / "spent.json").read_text())["CPU seconds"]
    assert before >= 20
    clock[0] = 1000.0  # another process
    experiment.finish(tmp_path, lambda *_: clock.__setitem__(0, clock[0] + 1))
    after = json.loads((folder / "seconds.json").read_text())["CPU seconds"]
    assert after == pytest.approx(before + clock[0] - 1000.0)
    assert not (folder / "spent.json").exists()


def test_places_are_read_from_clicks_only() -> None:
    columns: dict[str, Any] = {
        "arm": [0, 0, 0, 0, 1, 1, 1],
        "user": [0, 0, 2, 2, 0, 0, 2],
        "session": [0] * 7,
        "request": [0] * 7,
        "position": [0, 1, 0, 1, 0, 1, 0],
        "t": [0] * 7,
        "item": [3, 4, 5, 6, 7, 8, 9],
        "click": [0, 1, 0, 0, 1, 0, 0],
    }
    log = EventLog.from_columns(
        {k: np.array(v) for k, v in columns.items()}, Metadata(("a", "b"), 4, 9, days=1)
    )
    assert {k: v.tolist() for k, v in read_places(log).items()} == {"a": [1, -1], "b": [0, -1]}


def test_gains_are_those_of_the_definition() -> None:
    place = np.array([-1, 0, 4, 5, 9], dtype=np.int8)
    assert values(place, "hit_rate@5").tolist() == [0, 1, 1, 0, 0]
    assert values(place, "ndcg@10") == pytest.approx(
        [0, 1, 1 / math.log2(6), 1 / math.log2(7), 1 / math.log2(11)]
    )


def test_cells_intervals_and_tests_against_scipy() -> None:
    draw = np.random.default_rng(0)
    weak, strong = (
        [draw.choice([-1, 0, 5, 9], 500, p=p).astype(np.int8) for _ in range(3)]
        for p in ([0.8, 0.05, 0.1, 0.05], [0.6, 0.2, 0.1, 0.1])
    )
    results = Results({("beauty", "w"): weak, ("beauty", "s"): strong})
    made = tables.cells(
        results,
        {"SASRec": "w", "RecGPT": "s", "gone": "nobody"},
        ["beauty"],
        METRICS,
        TABLE_2,
        ["SASRec"],
    )
    assert [(c.row, c.metric) for c in made[:2]] == [
        ("SASRec", "hit_rate@5"),
        ("RecGPT", "hit_rate@5"),
    ]
    cell = next(c for c in made if (c.row, c.metric) == ("RecGPT", "hit_rate@10"))
    means = [float((p >= 0).mean()) for p in strong]
    expected = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (cell.low, cell.high) == pytest.approx(expected)
    assert cell.published == 0.0654
    assert cell.difference == pytest.approx(np.mean(means) - 0.0654)
    test = stats.ttest_rel(
        np.mean([p >= 0 for p in strong], axis=0), np.mean([p >= 0 for p in weak], axis=0)
    )
    assert (cell.t, cell.p) == pytest.approx((test.statistic, test.pvalue))
    best = next(c for c in made if c.row == "SASRec")
    assert math.isnan(best.t)
    assert best.against == ""


def test_claims_are_paired_tests_over_users_and_groups(sequences_folder: Path) -> None:
    dataset = Dataset("beauty", sequences_folder / "Beauty.txt")
    lengths, popularity = dataset.held
    rows = [line.split()[1:] for line in (sequences_folder / "Beauty.txt").read_text().splitlines()]
    assert lengths.tolist() == [len(row) - 1 for row in rows]
    assert popularity.tolist() == [sum(other[:-1].count(row[-1]) for other in rows) for row in rows]
    draw = np.random.default_rng(4)
    weak = draw.choice(np.array([-1, 0, 7]), 60, p=[0.8, 0.1, 0.1]).astype(np.int8)
    strong = np.where(lengths > np.median(lengths), 0, weak).astype(
        np.int8
    )  # better for long histories only
    results = Results(
        {("beauty", "w"): [weak], ("beauty", "s"): [strong], ("beauty", "t"): [strong]}
    )
    asked = [
        claims.Claim("s beats w", "w", "s"),
        claims.Claim("w beats s", "s", "w"),
        claims.Claim("t is s", "s", "t"),
        claims.Claim("no", "w", "x"),
    ]
    found = claims.answers(results, [dataset], asked)
    everyone = [row for row in found if not row.group]
    assert [row.verdict for row in everyone if row.metric == "ndcg@10"] == [
        "holds",
        "contradicted",
        "identical",
    ]
    first = everyone[1]
    test = stats.ttest_rel(values(strong, "ndcg@10"), values(weak, "ndcg@10"))
    assert (first.t, first.p) == pytest.approx((test.statistic, test.pvalue))
    assert (first.low, first.high) == pytest.approx(tuple(test.confidence_interval()))
    family = [row.p for row in everyone if not math.isnan(row.p)]
    assert first.p_adjusted == pytest.approx(multipletests(family, method="holm")[1][1])
    parts = [
        row
        for row in found
        if row.group.endswith("clicks before") and row.metric == "hit_rate@10" and row.better == "s"
    ]
    assert sum(row.users for row in parts) == 60
    assert parts[0].difference == 0
    assert max(row.difference for row in parts) > 0.5
    (section,) = claims.sections(found)
    whole = next(block for block in section.blocks if isinstance(block, Table))
    assert [cell.text for cell in whole.rows[0][:3]] == ["s beats w", "s > w", "hit_rate@10"]
    assert [row[-1].text for row in whole.rows].count("holds") == 2


def test_what_a_slate_finds_ahead_by_hand() -> None:
    """Users 0 and 1 had clicked 1 and 2, user 2 had clicked 3; slates (1, 2) with both clicked and
    (1, 3) with one.
    """
    columns: dict[str, Any] = {
        "arm": [0] * 5 + [1] * 4,
        "user": [0, 0, 1, 1, 2, 0, 0, 1, 1],
        "session": [0] * 9,
        "request": [0, 1, 0, 1, 0, 2, 2, 2, 2],
        "position": [0] * 5 + [0, 1, 0, 1],
        "t": [-2000, -1000, -2000, -1000, -1000, 0, 0, 0, 0],
        "item": [1, 2, 1, 2, 3, 1, 2, 1, 3],
        "click": [1] * 5 + [1, 1, 0, 1],
    }
    log = EventLog.from_columns(
        {k: np.array(v) for k, v in columns.items()}, Metadata(("history", "a"), 3, 3, days=1)
    )
    found = ahead.measures(log, 2)["a"]
    assert found["found"].tolist() == [1.0, 0.5]
    assert found["hit"].tolist() == [1.0, 1.0]
    assert ahead.measures(log, 3)["a"]["found"].tolist() == pytest.approx([2 / 3, 1 / 3])
    both, one = -math.log2(3 / 4), -math.log2(2 / 4)
    assert found["novelty"] == pytest.approx([both, (both + one) / 2])
    assert found["diversity"] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_a_forest_has_a_line_for_each_of_several_systems() -> None:
    numbers = {
        "users": 60,
        **claims.Fits(1)._asdict(),
        "control": 0.1,
        "t": 1.0,
        "p": 0.3,
        "p_adjusted": 1.0,
        "interaction": float("nan"),
    }
    ends = {"difference": 0.01, "low": -0.01, "high": 0.03}
    rows = [
        claims.Answer("tiny", "two steps", "one", better, metric, "", **numbers, **ends)
        for better in ("9_1", "8_2", "7_3")
        for metric in ("hit", "novelty")
    ]
    drawn = ElementTree.fromstring(curves.differences(rows))
    words = [text.text for text in drawn.iterfind(".//{*}text")]
    assert [word for word in words if word in ("9_1", "8_2", "7_3")] == ["9_1", "8_2", "7_3"] * 2
    assert [word for word in words if word and "tiny" in word] == [
        "tiny: each - one, hit",
        "tiny: each - one, novelty",
    ]


def test_claims_and_ahead_by_the_command(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    for system in SMALL.systems():
        monkeypatch.setitem(OWNER, system, SMALL)
    monkeypatch.setattr(claims, "CLAIMS", (claims.Claim("two steps help", "one", "two"),))
    common = [
        "--data",
        str(sequences_folder),
        "--out",
        str(tmp_path),
        "--quiet",
        "--seeds",
        "2",
        "--workers",
        "1",
    ]
    ran = CliRunner().invoke(main, ["reproduce", "claims", *common], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert "two steps help" in ran.output
    page = (tmp_path / "claims-paper.md").read_text()
    assert r"| two steps help | two &gt; one | hit\_rate@10 |" in page
    stored = json.loads((tmp_path / "claims-paper.json").read_text())["cells"]
    assert {row["seeds"] for row in stored} == {2}
    assert {row["group"] == "" for row in stored} == {True, False}
    drawn = ElementTree.parse(tmp_path / "claims-paper.svg").getroot()
    marks = [mark.text for mark in drawn.iterfind(".//{*}g/{*}title")]
    assert len(marks) == len(stored)
    assert (
        sum("users" in (text.text or "") for text in drawn.iterfind(".//{*}text")) == 2
    )  # one line for all, a panel a metric
    ran = CliRunner().invoke(
        main, ["reproduce", "ahead", *common, "--models", "small"], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    rows = json.loads((tmp_path / "ahead-paper.json").read_text())["cells"]
    assert [row["metric"] for row in rows] == ["hit", "found", "novelty", "diversity"]
    for metric in ("hit", "found"):
        assert 0 < next(row["control"] for row in rows if row["metric"] == metric) < 1
    assert all(row["users"] == 60 for row in rows)
    assert pq.read_table(tmp_path / "ahead-paper.parquet").num_rows == 4
    assert all(row["seeds_low"] <= row["difference"] <= row["seeds_high"] for row in rows)
    assert {row["better_tuned"] for row in rows} <= {0, 1, 2}
    ran = CliRunner().invoke(main, ["reproduce", "ahead", *common, "--models", "small,SASRec"])
    assert ran.exit_code == 2
    assert "but SASRec has one step only; there are Pre-train, RecGPT K=0" in ran.output


def test_ahead_compares_steps_of_a_network_and_the_systems_of_claims() -> None:
    best = [FAMILIES[name] for name in ("Best pre-train", "Best fine-tuning", "Best RecGPT")]
    pairs = [(claim.worse, claim.better) for claim in ahead.asked(best)]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    for pair in (
        ("Best pre-train", "Best fine-tuning"),
        ("Best fine-tuning", "Best RecGPT 10_0"),
        ("Best RecGPT 10_0", "Best RecGPT marginal"),
        ("Best RecGPT 9_1", "Best RecGPT marginal"),
        ("Best pre-train", "Best pre-train marginal"),
    ):
        assert pair in pairs
    with pytest.raises(ReproduceError, match="but Best fine-tuning has one step only"):
        ahead.asked(best[1:2])


def test_one_seed_has_no_interval_and_equal_users_no_test() -> None:
    assert all(math.isnan(v) for v in tables.interval(np.array([0.1])))
    same = np.array([0.0, 1.0, 0.5])
    assert all(math.isnan(v) for v in tables.paired_t(same, same.copy()))


def test_the_validation_item_is_kept_from_count_models() -> None:
    items, offsets = np.array([1, 2, 3, 4, 5, 1]), np.array([0, 4, 4, 6])
    clicked = np.array([True, True, True, False, True, True])
    sequences = Sequences(np.arange(3), offsets, items, clicked, np.arange(6))
    policy = TrainingPart("popularity").fit(sequences, Catalogue(3, 5), Fitting())
    direct = make("popularity").fit(
        sequences.where(np.array([1, 1, 0, 0, 1, 0], dtype=bool)), Catalogue(3, 5), Fitting()
    )
    assert {k: v.tolist() for k, v in policy.state().items()} == {
        k: v.tolist() for k, v in direct.state().items()
    }


def test_all_three_modes_stand_in_table_2_and_the_long_ones_on_request(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ("RecGPT", "RecGPT as released", "Best RecGPT pooled")
    modes = {row: OWNER[ROWS[row]] for row in rows}
    assert [family.params["shape"] for family in modes.values()] == [WRITTEN, RELEASED, BEST]
    assert not {row for row, _, _ in TABLE_2} & set(ON_REQUEST)  # the paper's row is not theirs
    table = artefacts.ARTEFACTS["table2"]
    shown = artefacts.chosen(table.rows, (), table.on_request)
    assert set(table.rows) - set(shown) == set(ON_REQUEST)
    short = artefacts.Artefact(
        "table2", {"PopRec": "PopRec", "long": "Transitions"}, METRICS, {}, (), on_request=("long",)
    )
    monkeypatch.setitem(artefacts.ARTEFACTS, "table2", short)
    common = [
        "reproduce",
        "table2",
        "--data",
        str(sequences_folder),
        "--out",
        str(tmp_path),
        "--quiet",
        "--workers",
        "1",
    ]
    said = {
        asked: CliRunner().invoke(main, [*common, *asked.split()], catch_exceptions=False).output
        for asked in ("", "--models all")
    }
    assert "\nNot made: long (" in said[""]
    assert not re.search(r"^long +hit_rate@5 ", said[""], re.MULTILINE)
    assert "Not made" not in said["--models all"]
    assert re.search(r"^long +hit_rate@5 ", said["--models all"], re.MULTILINE)


def test_the_command_prints_tables_and_writes_files_and_figures(
    sequences_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    for system in SMALL.systems():
        monkeypatch.setitem(OWNER, system, SMALL)
    figure = artefacts.Artefact(
        "fig5", {"10_0": "one", "9_1": "two"}, METRICS[2:], {}, ("10_0",), "m_n"
    )
    monkeypatch.setitem(artefacts.ARTEFACTS, "fig5", figure)
    common = ["--data", str(sequences_folder), "--out", str(tmp_path), "--quiet"]
    common += ["--workers", "1"]
    ran = CliRunner().invoke(
        main,
        ["reproduce", "table2", *common, "--models", "PopRec,Transitions"],
        catch_exceptions=False,
    )
    assert ran.exit_code == 0, ran.output
    assert "measured by the protocol paper" in ran.output
    assert re.search(r"^PopRec +hit_rate@5 ", ran.output, re.MULTILINE)
    page = (tmp_path / "table2-paper.md").read_text()
    assert r"| PopRec | hit\_rate@5 |" in page
    stored = json.loads((tmp_path / "table2-paper.json").read_text())
    assert stored["protocol"]["name"] == "paper"
    assert text(stored["protocol"]["fit of Transitions, PopRec"]) in page
    assert len(stored["cells"]) == pq.read_table(tmp_path / "table2-paper.parquet").num_rows == 8
    ran = CliRunner().invoke(
        main, ["reproduce", "fig5", *common, "--seeds", "2"], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    root = ElementTree.parse(tmp_path / "fig5-paper.svg").getroot()
    assert len(root.findall(".//{*}g/{*}title")) == 4  # two points in each of two panels
    drawn = [line.get("class") for line in root.findall(".//{*}g/{*}line")]
    assert sorted(drawn) == ["bar", "bar", "bound", "bound", "bound", "bound"]


def test_missing_attributes_are_named_before_anything_is_run(
    sequences_folder: Path, tmp_path: Path
) -> None:
    common = [
        "reproduce",
        "table2",
        "--data",
        str(sequences_folder),
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    ran = CliRunner().invoke(main, [*common, "--models", "PopRec,S3-Rec attributes"])
    assert ran.exit_code == 2, ran.output
    missing = sequences_folder / "Beauty_item2attributes.json"
    assert (
        "S3-Rec attributes on beauty: its objectives aap, map need attributes of the items, and"
        f" {missing} is not there" in ran.output
    )
    assert not (tmp_path / "out").exists()
    inter = Experiment(
        Dataset("toy", tmp_path / "toy.inter"), FAMILIES["S3-Rec attributes"], PAPER, 0
    )
    with pytest.raises(ReproduceError, match=r"toy\.item is not there"):
        inter.check()


def test_bad_input_is_one_message_and_exit_code_2(sequences_folder: Path) -> None:
    for arguments, said in (
        (["--data", str(sequences_folder), "--datasets", "Tois"], "no such file"),
        (["--data", str(sequences_folder / "none")], "no such folder"),
        (["--data", str(sequences_folder), "--models", "SASReC2"], "did you mean 'SASRec'"),
    ):
        ran = CliRunner().invoke(main, ["reproduce", "table2", *arguments])
        assert ran.exit_code == 2, ran.output
        assert said in ran.output
        assert "Traceback" not in ran.output


@pytest.mark.data
def test_table_1_is_exact(data_root: Path) -> None:
    table = artefacts.table1(find(data_root, ("Beauty", "Sports")))[0]
    assert isinstance(table, Table)
    lines = [[cell.text for cell in row[:6]] for row in table.rows]
    assert ["beauty", "measured", "22,363", "12,101", "198,502", "8.9"] in lines
    assert ["sports", "measured", "35,598", "18,357", "296,337", "8.3"] in lines


def test_the_gallery_measures_the_slate_and_the_set_by_the_last_click() -> None:
    example = chain(1)
    n_items = example.catalogue.n_items
    log, clicked = example.sequences, example.sequences.clicked
    counted, ranks = np.zeros(n_items + 1), []
    users = []
    for user in range(len(log)):
        mine = np.arange(log.offsets[user], log.offsets[user + 1])
        last = mine[clicked[mine]][-1]
        before = mine[mine < last]
        counted += np.bincount(log.items[before[clicked[before]]], minlength=n_items + 1)
        if log.items[last] not in log.items[before]:
            users.append((log.items[last], set(log.items[before].tolist())))
    for target, seen in users:
        others = (item for item in range(1, n_items + 1) if item not in seen)
        ranks.append(sum(counted[item] > counted[target] for item in others))
    found = gallery.measure(make("popularity"), log, example.catalogue)
    # Items of equally many clicks may come in either order
    assert found.set_hit_rate == (1.0, 0.0)
    assert n_items <= gallery.SET
    assert found.hit_rate[0] <= np.mean(np.array(ranks) < gallery.TOP)
    assert 0 < found.ndcg[0] < found.hit_rate[0] < 1
