"""Subject: a policy under check, and what a check says of it. The checks themselves are in
`policies.check`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from policies.base import Fitting, Histories, Policy, Slates, WorldBound
from policies.calls import CallError, Calls, Limit, calling
from policies.examples import Example, mixed

LIMIT = 600.0
"""Seconds that one check may take, where nothing else is said."""


class BrokenPromise(AssertionError):  # noqa: N818 - reads as what it is in a test report
    """A promise that a policy broke, with a minimal example."""


class NotPromised(Exception):  # noqa: N818 - not an error
    """A promise that this policy does not make."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check.

    Attributes:
        name: of the check.
        promise: what is promised.
        kept: whether it was kept.
        skipped: the policy does not make this promise.
        detail: the example where it was not kept, or why it was skipped.
        stops: nothing else can be checked: no fit, slates of a wrong form, out of time.
        crashed: the policy gave no answer at all.
    """

    name: str
    promise: str
    kept: bool
    skipped: bool = False
    detail: str = ""
    stops: bool = False
    crashed: bool = False


@dataclass
class Subject:
    """A policy under check: fits it once for all the checks that need no fit of their own.

    Attributes:
        policy: unfitted; never touched itself.
        seed: of the examples and the fits.
        world: what a `WorldBound` yardstick is bound to (an object with `n_users`, `n_items`), or
            None.
        device: torch device of the fits, as in `Fitting`.
        limit: seconds that a check may take.
        wrote: what `fit` wrote into, if it did.
    """

    policy: Policy
    seed: int = 0
    world: Any = None
    device: str = "cpu"
    limit: float = LIMIT
    example: Example = field(init=False)
    wrote: CallError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        size = {}
        if self.world is not None:
            size = {"n_users": int(self.world.n_users), "n_items": int(self.world.n_items)}
        self.asks = self.policy.asked_context()
        self.example = self.told(mixed(self.seed, **size))

    def told(self, example: Example) -> Example:
        """The example with a log that knows what the policy asks for."""
        return example.with_context(self.asks, self.seed)

    def calls(self, policy: Policy, *, own: bool = True) -> Calls:
        """The policy as it is called; `own`: with copies that it may write into, so that a write
        breaks no promise but its own.
        """
        return Calls(
            policy, type(policy).__name__, Limit(0, f"the {self.limit:g} s of a check"), own
        )

    def fit(
        self, example: Example, *, own: bool = True, seed: int | None = None, **changes: Any
    ) -> Policy:
        """A fresh copy of the policy with some hyper-parameters changed, bound and fitted on
        `example`; with the subject's seed, or another one.
        """
        policy = self.policy.with_params(**changes)
        self.bind(policy)
        fitting = Fitting(self.seed if seed is None else seed, self.device)
        self.calls(policy, own=own).fit(example.sequences, example.catalogue, fitting)
        return policy

    def recall(self, policy: Policy, histories: Histories, k: int, seed: int) -> Slates:
        """What a policy recalls; slates of the right types and shapes.

        Raises:
            CallError: others, or none.
        """
        return self.calls(policy).recall(histories, k, seed)

    def bind(self, policy: Policy) -> None:
        """Give a yardstick its world."""
        if isinstance(policy, WorldBound):
            self.calls(policy).bind(self.world)

    @cached_property
    def once(self) -> Policy:
        """Fitted on what it may only read; if it writes, again on copies of its own, and the write
        is remembered.
        """
        try:
            return self.fit(self.example, own=False)
        except CallError as error:
            if error.kind != "write":
                raise
            self.wrote = error
            return self.fit(self.example)

    @property
    def fitted(self) -> Policy:
        """The fitted policy as `fit` left it: a copy, so that no check inherits what another one
        did to it.
        """
        once = self.once
        with calling(type(self.policy).__name__, "copying it (copy.deepcopy)"):
            return copy.deepcopy(once)

    @cached_property
    def requests(self) -> Histories:
        return self.example.requests(context=self.asks)
