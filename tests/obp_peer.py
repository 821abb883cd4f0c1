"""Run by an interpreter that has obp (its own environment): the packaged estimates of the rounds in
argv[1], as JSON.
"""

import json
import sys

import numpy as np
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    DoublyRobustWithShrinkage,
    InverseProbabilityWeighting,
    ReplayMethod,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobust,
)


def estimates(rounds):
    """Value of every estimator that obp and abtest share."""
    given = {
        "reward": rounds["reward"],
        "action": rounds["action"],
        "position": np.zeros(len(rounds["action"]), dtype=int),
    }
    given["pscore"], given["action_dist"] = rounds["propensity"], rounds["law"][:, :, None]
    model = {"estimated_rewards_by_reg_model": rounds["predicted"][:, :, None]}
    plain = {key: value for key, value in given.items() if key != "pscore"}
    return {
        "ips": InverseProbabilityWeighting().estimate_policy_value(**given),
        "clipped_ips": InverseProbabilityWeighting(lambda_=3.0).estimate_policy_value(**given),
        "snips": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given),
        "dm": (
            DirectMethod().estimate_policy_value(
                **{k: v for k, v in plain.items() if k not in ("reward", "action")}, **model
            )
        ),
        "dr": DoublyRobust().estimate_policy_value(**given, **model),
        "sndr": SelfNormalizedDoublyRobust().estimate_policy_value(**given, **model),
        "switch_dr": SwitchDoublyRobust(lambda_=3.0).estimate_policy_value(**given, **model),
        "shrunk_dr": DoublyRobustWithShrinkage(lambda_=3.0).estimate_policy_value(**given, **model),
        "matching": (
            ReplayMethod().estimate_policy_value(
                **{**plain, "action_dist": rounds["one"][:, :, None]}
            )
        ),
    }


if __name__ == "__main__":
    print(
        json.dumps({name: float(value) for name, value in estimates(np.load(sys.argv[1])).items()})
    )
