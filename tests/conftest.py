"""Where the real data lies; what is missing is named, not passed over."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before torch is loaded: the workers of pytest-xdist have one processor each. With more threads,
# small products wait for a thread that waits for a processor (eight times as long, measured).

os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
# For child processes: some run with a full disk or a limit of file sizes, under which Python before
# 3.12 leaves a cache of compiled code cut short, which no later process can read.

gc.set_threshold(50_000, 10, 10)
# A search for garbage at every 700 objects, as Python has it, takes an eighth of the tests' time:
# imports and compiling make many objects and little garbage.

signal.signal(signal.SIGINT, signal.default_int_handler)
# A shell starts a command in the background with Ctrl-C ignored, which child processes inherit;
# some tests press it.


FIRST = ("test_ray.py", "test_world_fit.py")
"""Files that take minutes: a worker that began one of them last would keep the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: ABTEST_DATA, or ../shared/data beside the checkout."""
    root = Path(
        os.environ.get("ABTEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    )
    if not root.is_dir():
        pytest.skip(f"real data missing: set ABTEST_DATA (looked at {root})")
    return root
