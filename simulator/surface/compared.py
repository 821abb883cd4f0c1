"""Which lift is asked for: an arm of a scenario, and a metric."""

from __future__ import annotations

from simulator.scenario.model import Scenario


def one_arm(
    scenario: Scenario, arm: str | None, metric: str, what: str, error: type[ValueError]
) -> str:
    """The arm that is compared with the control: the one that is named, or the only one.

    Args:
        scenario: whose arms.
        arm: None: the only one.
        metric: of the lift; checked.
        what: is made of it, as "A map".
        error: raised where it cannot be.

    Raises:
        ValueError: of the type `error`: no such arm or metric, or more than one arm.
    """
    from simulator.log.metrics import MetricError, chosen

    treatments = [name for name in scenario.arms if name != scenario.control]
    if not treatments:
        only = f"there is {scenario.control} alone"
        raise error(f"arms: {what.lower()} is of an arm over the control; {only}")
    if arm is None and len(treatments) > 1:
        raise error(f"--arm: which of {', '.join(treatments)}? {what} is of one")
    found = treatments[0] if arm is None else arm
    if found not in treatments:
        raise error(f"--arm: must be one of {', '.join(treatments)}; got {found!r}")
    try:
        (wanted,) = chosen((metric,))
    except MetricError as wrong:
        raise error(f"--metric: {wrong}") from wrong
    if wanted.supply is not None:
        raise error(f"--metric: {metric} is of the supply side; {what.lower()} is of one of users")
    return found
