"""What a run needs of every machine that computes pieces of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from policies.base import Progress
from policies.staging import staging_of
from simulator.log.files import FileError, writing
from simulator.log.remote import RemoteRun
from simulator.log.store import place
from simulator.log.workspace import RunError, Workspace
from simulator.run.tasks import CheckPolicies, CheckUserModels
from simulator.scenario.model import Scenario


@dataclass(frozen=True)
class LookAround:
    """Look whether this machine sees the run's folder, may write there, and makes the same policies
    as the machine that the run was started on.

    Attributes:
        root: the run's folder.
        holder: who holds it, as it says itself.
        folder: where the scenario lies.
        scenario: as JSON of `Scenario.resolved()`.
        behind: name and digest of every file behind its policies.
    """

    root: str
    holder: str
    folder: str
    scenario: str
    behind: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"looking for {self.root}"

    def __call__(self, progress: Progress) -> None:
        """
        Raises:
            RunError: something is missing or another one; the message says what to do.
        """
        self._see()
        scenario = Scenario.model_validate(json.loads(self.scenario))
        wrong, behind = CheckPolicies(self.folder, tuple(scenario.policies()))(progress)
        models = CheckUserModels(self.folder, tuple(scenario.user_models()))
        more_wrong, behind_users = models(progress)
        behind.update(behind_users)
        if wrong or more_wrong:
            texts = "; ".join(text for _, text in [*wrong, *more_wrong])
            raise RunError(f"something cannot be made there: {texts}. Install there what it needs")
        for name, digest in self.behind:
            there = behind.digests.get(name, "missing")
            if there != digest:
                raise RunError(
                    f"{name} is not as here (its digest is {there} there and {digest} here):"
                    " install the same package there, or give a path that leads to the same file"
                )

    def _see(self) -> None:
        where = Workspace(place(self.root))
        advice = "all nodes must see it under the same path, as on a network file system (--out)"
        try:
            is_same = where.holder() == self.holder
        except FileError as error:
            raise RunError(f"the run's folder {self.root} is not seen there: {advice}") from error
        if not is_same:
            raise RunError(f"the run's folder {self.root} is another one there: {advice}")
        remote = RemoteRun.of(where.root)
        if remote is not None:
            remote.follow(self.holder)
            return
        trial = staging_of(where.root / "trial")
        with writing(trial):
            trial.touch()
            trial.unlink()
