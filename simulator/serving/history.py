"""The policy that writes the history of a synthetic world; runs and calibration ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, Fitting, Policy, Sequences, Stochastic, WorldBound
from policies.calls import Calls
from policies.explore import Explore
from policies.registry import make, resolve
from simulator.scenario.parts import Logging
from simulator.users.base import Users


def logging_policy(
    logging: Logging, catalogue: Catalogue, users: Users, seed: int, folder: Path
) -> Policy:
    """A stochastic policy with exact conditional propensities, ready to serve: one that is none
    itself explores.

    Args:
        logging: which policy, and how it explores.
        catalogue: of the world.
        users: of the world; a yardstick looks into them.
        seed: of the fit, for a policy that draws its first state.
        folder: where plug-in files are looked up.

    Raises:
        PolicyError: as `make`; or whatever its code does, as `Calls`.
    """
    kind = resolve(logging.policy, folder)
    spread: dict[str, Any] = {"temperature": logging.temperature, "epsilon": logging.epsilon}
    policy: Policy
    if issubclass(kind, Stochastic):
        known = {name: value for name, value in spread.items() if name in kind.__dataclass_fields__}
        policy = make(logging.policy, {**known, **logging.params}, folder)
        if isinstance(policy, Explore):
            policy.found_in(folder)
    else:
        policy = Explore(logging.policy, logging.params, **spread).found_in(folder)
    nothing = np.zeros(0, dtype=np.int64)
    nobody = Sequences(
        nothing, np.zeros(1, dtype=np.int64), nothing, nothing.astype(np.bool_), nothing
    )
    calls = Calls(policy, logging.policy)
    calls.fit(nobody, catalogue, Fitting(seed))
    if isinstance(policy, WorldBound):
        calls.bind(users)
    return policy
