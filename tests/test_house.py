"""The house as docs/design.md tells it: rooms on floors, no circles, one name for one thing, and
a picture that is drawn from the present imports.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

PARALLEL = {
    "audit": "the command and what it asks",
    "base": "the protocol that a room's kinds keep",
    "bias": "the command and what it asks",
    "decision": "the rule and the section that shows it",
    "fidelity": "the command and what it asks",
    "pooled": "the command and what it asks",
    "power": "the command and what it asks",
    "replay": "the command and what it asks",
}
"""Module names that stand twice inside `simulator` on purpose (docs/design.md)."""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / ".ci/house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


house = load()


@pytest.fixture(scope="module")
def here() -> house.House:
    return house.House(ROOT)


def test_the_picture_is_that_of_the_imports() -> None:
    picture = (ROOT / "docs/house.svg").read_text(encoding="utf-8")
    assert picture == house.picture(ROOT), "run: make house"


def test_every_import_goes_down_or_stays_in_its_room(here: house.House) -> None:
    floor = {room: i for i, rooms in enumerate(house.floors(ROOT)) for room in rooms}
    floor |= {"abtest": -1, "recgpt": len(floor), "policies": len(floor) + 1}
    loose = {"simulator", "__main__"}
    for room, targets in here.room_arrows.items():
        for target in targets - loose:
            assert room in loose or floor[target] > floor[room], f"{room} imports {target}"


def test_no_circle_of_rooms_and_none_of_modules(here: house.House) -> None:
    assert house.circles(here.room_arrows) == []
    assert house.circles(here.arrows) == []


def test_no_module_name_stands_twice_but_for_parallel_roles(here: house.House) -> None:
    assert set(here.repeated_modules) <= PARALLEL.keys(), here.repeated_modules
    for places in here.repeated_modules.values():
        assert len(places) == 2, places


def test_no_class_name_stands_for_two_things(here: house.House) -> None:
    assert here.repeated_classes == {}


def test_a_circle_a_string_and_a_second_name_would_be_seen(tmp_path: Path) -> None:
    for name, text in {
        "simulator/__init__.py": "",
        "simulator/log/__init__.py": "",
        "simulator/log/rows.py": "if True:\n    from simulator.users import rows\nclass Row: ...\n",
        "simulator/users/__init__.py": "",
        "simulator/users/rows.py": "KIND = 'simulator.log.rows:Row'\nclass Row: ...\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    small = house.House(tmp_path)
    assert house.circles(small.room_arrows) == [["log", "users"]]
    assert house.circles(small.arrows) == [["simulator.log.rows", "simulator.users.rows"]]
    assert small.repeated_modules == {"rows": ["simulator.log.rows", "simulator.users.rows"]}
    assert small.repeated_classes == {"Row": ["simulator.log.rows", "simulator.users.rows"]}
    assert small.figures()["lines"] == "5"


def test_arrows_that_follow_from_others_are_left_out() -> None:
    arrows = {"a": frozenset("bcd"), "b": frozenset("c"), "c": frozenset(), "d": frozenset()}
    assert house.reduced(arrows)["a"] == frozenset("bd")
