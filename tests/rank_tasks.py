"""What ranks do in tests/test_ranks.py, in a module that is loaded in a moment."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.calls import calling
from policies.ranks import RankError, RankGroup


@dataclass(frozen=True)
class Fails:
    """Rank 1 goes wrong in a policy's code while rank 0 waits for it; then rank 0 hears of it."""

    way: str

    def __str__(self) -> str:
        return "fitting policy 'mine'"

    def of_rank(self, progress: Any, ranks: RankGroup) -> None:
        with calling("mine", "fit"):
            if ranks.rank == 0:
                while os.getppid() and self.way == "kill":
                    time.sleep(0.01)  # as in a sum that never comes
                raise RankError("connection closed")
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "exit":
                os._exit(7)
            time.sleep(0.2)  # the echo is there first
            raise ValueError("of another shape")


@dataclass(frozen=True)
class Sleeps:
    """Every rank writes its process id and sleeps."""

    folder: str

    def of_rank(self, progress: Any, ranks: RankGroup) -> None:
        staging = Path(self.folder) / f"rank-{ranks.rank}"
        staging.write_text(str(os.getpid()))
        staging.rename(Path(self.folder) / f"{ranks.rank}.pid")
        time.sleep(300)
