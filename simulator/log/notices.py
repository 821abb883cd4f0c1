"""What a run notices of its policies that does not stop it: promises that are not kept at a spot
check (`simulator.serving.promises`), empty places, warnings; and the files that keep it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from policies.calls import Warned
from simulator.log.files import read_json, write_text

FILE = "notices.json"
"""In the folders of fits and shards, each its own; in that of the run, all of them."""

WARNINGS = "warnings"
"""In place of a promise: what a policy's code warned of."""


class NoticeError(ValueError):
    """A file of notices that is none."""


@dataclass(frozen=True, order=True)
class Notice:
    """Something noticed of a policy.

    Attributes:
        arm: that asked the policy; "" = a fit, which arms may share.
        policy: as the scenario calls it.
        promise: the check of `abtest policies check` that looks closer, or WARNINGS.
        what: a sentence, of the first case.
    """

    arm: str
    policy: str
    promise: str
    what: str

    def __str__(self) -> str:
        whose = f"arm {self.arm!r}: policy" if self.arm else "policy"
        return f"{whose} {self.policy!r}: {self.what}"


def of_warnings(arm: str, policy: str, warned: Warned) -> Counter[Notice]:
    """Warnings as notices."""
    return Counter({Notice(arm, policy, WARNINGS, what): n for what, n in warned.counts().items()})


def as_text(notices: Counter[Notice]) -> str:
    """Notices as the content of a file."""
    rows = [{**asdict(notice), "times": n} for notice, n in sorted(notices.items())]
    return json.dumps(rows, indent=1) + "\n"


def keep(folder: Path, notices: Counter[Notice]) -> None:
    """Write notices into `folder`, unless there are none."""
    if notices:
        write_text(folder / FILE, as_text(notices))


def kept(files: Iterable[Path]) -> Counter[Notice]:
    """The notices of several files together.

    Raises:
        FileError, NoticeError: a file that is damaged, or no such file.
    """
    found: Counter[Notice] = Counter()
    for file in files:
        rows = read_json(file)
        try:
            for row in rows:
                words = {name: str(row[name]) for name in Notice.__dataclass_fields__}
                found[Notice(**words)] += int(row["times"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            rule = "not what abtest run notices of policies"
            raise NoticeError(
                f"{file}: {rule} ({type(error).__name__}: {error}); remove the file"
            ) from error
    return found
