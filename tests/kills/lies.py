"""Plug-ins that do what they must not: each ends with one message, or changes nothing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.fuzz.harness import Chance, WrongEndError
from tests.kills.runs import Ended, Place, Variant, expect

PLUG_IN = """
import ctypes, os, sys, threading, time, warnings
from dataclasses import dataclass
import numpy as np
from policies.base import Slates
from policies.popularity import Random
{top}

class Sly(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Local(Exception):
    def __init__(self, one, two):
        super().__init__(one)

@dataclass
class Lies(Random):
    def fit(self, log, catalogue, fitting):
        {fit}
        return super().fit(log, catalogue, fitting)

    def recall(self, histories, k, seed):
        {recall}
        return self.changed(super().recall(histories, k, seed), histories)

    def changed(self, slates, histories):
        {changed}
        return slates
"""


class Lie(NamedTuple):
    """What a plug-in does.

    Attributes:
        place: the part of PLUG_IN that it stands in.
        code: what it does.
        end: the run is refused; or it is what the honest plug-in's is; or one of the two, as chance
            has it; or, in a process that has no other above it, it ends at once.
    """

    place: Literal["top", "fit", "recall", "changed"]
    code: str
    end: Literal["refused", "same", "same or refused", "ended"]


LIES = {
    "writes into the items of histories": Lie("recall", "histories.items[:] = 1", "refused"),
    "writes into the clicks of histories": Lie("recall", "histories.clicked[:] = True", "refused"),
    "writes into what was seen": Lie("recall", "histories.seen[:] = 0", "refused"),
    "writes into the log it is fitted on": Lie("fit", "log.item[:] = 1", "refused"),
    "ends the process, importing": Lie("top", "sys.exit(0)", "refused"),
    "ends the process, in fit": Lie("fit", "sys.exit(0)", "refused"),
    "ends the process, in recall": Lie("recall", "sys.exit('enough')", "refused"),
    "hangs in recall": Lie("recall", "time.sleep(1000)", "refused"),
    "is busy in recall": Lie("recall", "while True: pass", "refused"),
    "hangs in fit": Lie("fit", "time.sleep(1000)", "refused"),
    "is gone, in fit": Lie("fit", "os._exit(0)", "ended"),
    "is gone, in recall": Lie("recall", "os._exit(7)", "ended"),
    "crashes": Lie("recall", "ctypes.string_at(0)", "ended"),
    "returns nothing": Lie("changed", "return None", "refused"),
    "returns text": Lie("changed", "return 'items'", "refused"),
    "returns numbers of items with fractions": Lie(
        "changed", "slates = Slates(slates.items + .5, slates.scores)", "refused"
    ),
    "returns objects": Lie(
        "changed", "slates = Slates(slates.items.astype(object), slates.scores)", "refused"
    ),
    "returns lists": Lie(
        "changed", "slates = Slates(slates.items.tolist(), slates.scores)", "refused"
    ),
    "returns unknown items": Lie(
        "changed", "slates = Slates(slates.items + 10**6, slates.scores)", "refused"
    ),
    "returns one item again and again": Lie(
        "changed", "slates = Slates(np.ones_like(slates.items), slates.scores)", "refused"
    ),
    "returns scores that are no numbers": Lie(
        "changed", "slates = Slates(slates.items, slates.scores * np.nan)", "refused"
    ),
    "returns scores of text": Lie(
        "changed", "slates = Slates(slates.items, slates.scores.astype(str))", "refused"
    ),
    "returns complex scores": Lie(
        "changed", "slates = Slates(slates.items, slates.scores * 1j)", "refused"
    ),
    "returns too little": Lie(
        "changed", "slates = Slates(slates.items[:, :1], slates.scores[:, :1])", "refused"
    ),
    "raises what has no words": Lie("recall", "raise Sly()", "refused"),
    "raises what cannot be pickled": Lie("fit", "raise Local(1, 2)", "refused"),
    "raises a very long message": Lie("recall", "raise ValueError('x' * 1_000_000)", "refused"),
    "raises control characters": Lie("recall", "raise ValueError('\\x1b[31m\\0')", "refused"),
    "runs out of memory": Lie("fit", "raise MemoryError", "refused"),
    "recurses without end": Lie("recall", "return self.recall(histories, k, seed)", "refused"),
    "prints": Lie("recall", "print('hello'); print('hello', file=sys.stderr)", "same"),
    "warns": Lie("recall", "warnings.warn('beware')", "same"),
    "closes stdout": Lie("recall", "sys.__stdout__.close()", "refused"),
    "closes stderr": Lie("recall", "sys.stderr.close()", "refused"),
    "closes what stderr is": Lie("fit", "os.close(2)", "refused"),
    "closes all that it may print to": Lie("recall", "os.close(1); os.close(2)", "refused"),
    "moves elsewhere": Lie("fit", "os.chdir('/')", "same"),
    "makes NumPy raise": Lie("fit", "np.seterr(all='raise')", "same"),
    "keeps what it returned, and changes it": Lie(
        "changed",
        "old = getattr(self, 'old', None); self.old = slates; old is not None and"
        " old.items.fill(1)",
        "same",
    ),
    "writes through the base of an array": Lie("recall", "histories.items.base[:] = 1", "refused"),
    "takes the protection off": Lie(
        "recall", "histories.items.flags.writeable = True; histories.items[:] = 1", "refused"
    ),
    "writes through an array of other strides": Lie(
        "recall",
        "a = histories.items; np.lib.stride_tricks.as_strided(a, a.shape, a.strides)[:] = 1",
        "refused",
    ),
    "writes by its address": Lie(
        "recall",
        "a = histories.items; ctypes.memset(a.ctypes.data, 1, a.nbytes)",
        "refused",
    ),
    "writes through a tensor": Lie(
        "recall",
        "import torch; warnings.simplefilter('ignore'); torch.from_numpy(histories.items).fill_(1)",
        "refused",
    ),
    "returns what it was lent": Lie(
        "changed",
        "slates = Slates(histories.seen[:, : slates.items.shape[1]], slates.scores)",
        "refused",
    ),
    "returns another answer whenever it is asked": Lie(
        "changed",
        "slates = Slates(type('Never', (), {'__array__': lambda s, *a, **b:"
        " np.random.default_rng().integers(1, 9, slates.items.shape)})(), slates.scores)",
        "refused",
    ),
    "returns an array that denies": Lie(
        "changed",
        "slates = Slates((slates.items * 0 + 9**9).view(type('Denies', (np.ndarray,), {n: lambda s,"
        " *a, **b: 1 for n in ('min', 'max', 'any', 'all')})), slates.scores)",
        "refused",
    ),
    "returns far too much": Lie(
        "changed",
        "slates = Slates(np.tile(slates.items, 10**5), np.tile(slates.scores, 10**5))",
        "refused",
    ),
    "kills its process": Lie("recall", "os.kill(os.getpid(), 9)", "ended"),
    "terminates its process": Lie("recall", "os.kill(os.getpid(), 15)", "ended"),
    "changes what it returned from a thread, later": Lie(
        "changed",
        "threading.Thread(target=lambda s=slates: (time.sleep(.002), s.items.fill(1)),"
        " daemon=True).start()",
        "same or refused",
    ),
    "makes warnings errors": Lie("fit", "warnings.simplefilter('error')", "same"),
    "seeds what is global": Lie(
        "recall", "np.random.seed(0); __import__('random').seed(0)", "same"
    ),
    "computes by other numbers": Lie(
        "top", "import torch; torch.set_default_dtype(torch.float64)", "same"
    ),
    "forgets its environment": Lie("fit", "os.environ.clear()", "same"),
    "leaves a thread behind": Lie(
        "fit", "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "same"
    ),
}


def case(chance: Chance, folder: Path) -> str:
    """One lie after another, each under both executors."""
    names = list(LIES)
    name = names[chance.number // 2 % len(names)]
    lie, executor = LIES[name], ["serial", "processes"][chance.number % 2]
    place = _place(folder, {lie.place: lie.code}, executor)
    ended = place.run()
    if lie.end == "same" or (lie.end == "same or refused" and ended.code == 0):
        expect(ended, 0)
        if _lifts(place.out) != _honest():
            raise WrongEndError(f"{name}: other lifts")
    elif lie.end != "ended" or executor == "processes":
        _refused(expect(ended, 2), name)
    if ended.code != 0 and (place.out / "report.json").exists():
        raise WrongEndError(f"{name}: a report of it")
    return f"{executor}: {lie.end}"


COUNT = 2 * len(LIES)


def _refused(ended: Ended, name: str) -> None:
    if "mine.py" not in ended.err:
        raise WrongEndError(f"{name}: it does not say whose fault it is: {ended}")


def _place(folder: Path, code: dict[str, str], executor: str) -> Place:
    places = {"top": "", "fit": "pass", "recall": "pass", "changed": "pass"}
    (folder / "mine.py").write_text(PLUG_IN.format(**{**places, **code}))
    engine = {"executor": executor, "shards": 2, "time_limit": 2, "fit_limit": 2}
    arms = {"a": {"policy": "popularity"}, "b": {"policy": "mine.py:Lies"}}
    return Place(folder, Variant().scenario(arms=arms, engine=engine), executor)


@cache
def _honest() -> Any:
    """The lifts of a plug-in that does nothing of the kind."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = _place(Path(folder), {}, "serial")
        expect(place.run(), 0)
        return _lifts(place.out)


def _lifts(out: Path) -> Any:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))["lifts"]
