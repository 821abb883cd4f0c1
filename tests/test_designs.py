"""Who gets which arm: shares, stability, recovery from the log alone, and that nobody but the room
`designs` asks for the kind of a design.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import simulator
from simulator.designs.base import Design, DesignError
from simulator.designs.interleave import Interleave
from simulator.designs.paired import Paired
from simulator.designs.registry import DESIGNS, DesignSpec, Kind
from simulator.designs.split import Split
from simulator.designs.switchback import Switchback
from simulator.log.metadata import LogError, Metadata, arm_names

ROOM = Path(simulator.__file__).parent

USERS = np.arange(200)


def metadata(kind: str, seed: int = 7, n_users: int = 5000) -> Metadata:
    return Metadata(
        ("history", "a", "b", "c"), n_users, 10, scenario={"seed": seed, "design": {"kind": kind}}
    )


def split(seed: int, n_users: int, n_arms: int) -> np.ndarray:
    arm = Split(tuple("abcdef"[:n_arms]), seed, 1).arm_of_user(n_users)
    assert arm is not None
    return arm


def test_shares_are_equal_within_sampling_error():
    n, arms = 30_000, 3
    counts = np.bincount(split(5, n, arms), minlength=arms)
    assert np.abs(counts - n / arms).max() < 5 * (n / arms * (1 - 1 / arms)) ** 0.5


def test_a_users_arm_does_not_depend_on_who_else_is_there():
    np.testing.assert_array_equal(split(5, 100, 4), split(5, 100_000, 4)[:100])
    assert (split(5, 1000, 4) != split(6, 1000, 4)).any()


def test_a_split_is_recovered_from_the_metadata_alone():
    np.testing.assert_array_equal(metadata("split").arm_of_user(), split(7, 5000, 3) + 1)


def test_other_designs_and_a_history_have_no_arm_of_a_user():
    for kind, design in DESIGNS.items():
        assert (metadata(kind).arm_of_user() is None) == (not design.divides_users)
    nobody = Metadata(("history",), 5, 5, scenario={"seed": 1, "design": {"kind": "split"}})
    assert nobody.arm_of_user() is None


def test_a_split_without_its_seed_is_refused():
    with pytest.raises(LogError, match=r"scenario\.seed"):
        Metadata(("a", "b"), 5, 5, scenario={"design": {"kind": "split"}}).arm_of_user()


def test_switchback_gives_every_arm_its_share_of_days():
    days = Switchback(("a", "b", "c"), 3, 12).schedule().reshape(4, 3)
    assert (np.sort(days, axis=1) == np.arange(3)).all()
    many = Switchback(("a", "b", "c"), 3, 3000).schedule().reshape(-1, 3)
    first = np.bincount(many[:, 0], minlength=3)
    assert np.abs(first - 1000 / 3).max() < 5 * (1000 * 2 / 9) ** 0.5


def test_the_arm_of_a_day_is_that_of_its_impressions():
    design = Switchback(("a", "b"), None, 4)
    shown = np.array([[5, 0, 0, 1], [0, 2, 0, 0]])
    assert design.arm_of_day(shown) == pytest.approx([0, 1, -1, 0])
    with pytest.raises(DesignError, match="day 1 of this switchback"):
        design.arm_of_day(np.array([[5, 1], [0, 2]]))


@pytest.mark.parametrize("kind", DESIGNS)
def test_every_day_of_every_user_is_served_and_belongs_to_an_arm(kind: str):
    """What a design says of lanes, of who serves them and of whose rows they are agrees."""
    design = DESIGNS[kind](("a", "b"), 3, 6)
    for lane in design.lanes():
        assert len(design.who(lane, USERS)) > 0
        for day in range(design.days):
            serving = design.served_by(lane, day)
            theirs = [design.rows_of(arm) for arm in serving]
            assert all(rows.lane == lane for rows in theirs)
            assert all(rows.days is None or day in rows.days for rows in theirs)
            assert [rows.team for rows in theirs] == ([None] if len(serving) == 1 else [0, 1])
            for arm in set(design.arms) - set(serving):
                rows = design.rows_of(arm)
                assert rows.lane != lane or day not in (rows.days or ())


def test_a_split_has_every_user_once_and_the_others_all_in_every_lane():
    for kind, make in DESIGNS.items():
        design = make(("a", "b", "c"), 3, 6)
        users = np.concatenate([design.who(lane, USERS) for lane in design.lanes()])
        times = np.bincount(users, minlength=len(USERS))
        assert (times == (1 if design.divides_users else len(design.lanes()))).all(), kind


def test_interleaving_takes_two_arms():
    assert not list(Interleave(("a", "b"), 1, 1).disagreements())
    ((key, rule),) = Interleave(("a", "b", "c"), 1, 1).disagreements()
    assert key == "kind"
    assert "got 3: a, b, c" in rule


def test_the_kinds_of_a_scenario_are_the_designs():
    assert get_args(Kind) == tuple(DESIGNS)
    assert isinstance(DesignSpec().over(("a", "b"), 1, 1), Paired)
    for kind, design in DESIGNS.items():
        assert next(iter(design.titles)) == kind == design.kind
        assert issubclass(design, Design)


def test_arms_are_numbered_by_name_after_the_history():
    assert (
        arm_names(["recgpt", "comirec"])
        == ("history", "comirec", "recgpt")
        == arm_names(("comirec", "recgpt"))
    )
    with pytest.raises(LogError, match="history"):
        arm_names(["history", "b"])


def kinds_asked_for(source: str) -> list[int]:
    """The lines of a module on which something is decided by the kind of a design: a name that only
    a design has, a comparison with the name of any, a pattern, or `design.kind` within a comparison
    or as a key.
    """
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in ("switchback", "interleave"):
            lines.add(node.lineno)
        deciding: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            deciding = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            deciding = [node.value]
        elif isinstance(node, ast.Subscript):
            deciding = [node.slice] if not _is_registry(node.value) else []
        for part in deciding:
            for leaf in ast.walk(part):
                named = isinstance(node, ast.Compare | ast.MatchValue) and (
                    isinstance(leaf, ast.Constant) and leaf.value in DESIGNS
                )
                kind = isinstance(leaf, ast.Attribute) and leaf.attr == "kind"
                if named or (kind and "design" in ast.unparse(leaf.value).lower()):
                    lines.add(leaf.lineno)
    return sorted(lines)


def _is_registry(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "DESIGNS"


@pytest.mark.parametrize(
    "line",
    [
        'if scenario.design.kind == "split": pass',
        "if self.design.kind in chosen: pass",
        'x = {"interleave": f}.get(kind)',
        "x = {one: f}[design.kind]",
        'paired = d == "paired"',
        'if kind in ("paired", "geo"): pass',
        'match kind:\n    case "split": pass',
    ],
)
def test_a_question_for_the_kind_is_seen(line: str):
    assert kinds_asked_for(line)


def test_nobody_else_asks_for_the_kind():
    asking = {
        f"{file.relative_to(ROOM)}:{line}"
        for file in ROOM.rglob("*.py")
        if file.parent.name != "designs"
        for line in kinds_asked_for(file.read_text(encoding="utf-8"))
    }
    assert not asking
