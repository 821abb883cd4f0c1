"""Imported by the process that runs are forked from: a whole run, so that its libraries and kernels
are loaded once.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

import yaml

from simulator.cli import main
from tests.kills.runs import Variant


def _run() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a cache cut short would be read by the next run
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        scenario = Path(folder) / "s.yaml"
        scenario.write_text(yaml.safe_dump(Variant().scenario()))
        with contextlib.suppress(SystemExit):
            main(["run", str(scenario), "--quiet", "--out", str(Path(folder) / "out")])


_run()
