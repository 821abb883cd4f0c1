"""A/B tests of policies that are known: how much surer the pooled estimate of a lift is than that
of a split test, by how often the policies decide alike, and its error rates.

    python -m benchmarks.pooled [--users 600] [--repetitions 2000]

Two kinds of worlds, whose users live in both arms and are drawn again as split tests. In the first,
without memory, nothing that was shown changes anything later, and the policies differ in a stated
share of requests; users differ in how often they come and how much they click. The second is a
paired run of item-to-item transitions against policies more and more unlike it, in which what was
shown is not shown again (`abtest pooled RUN` does the same of any run).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.greedy import scenario
from policies.base import silent
from policies.streams import Purpose, uniform
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.pooled import (
    ArmSums,
    PooledAudit,
    arm_sums,
    carry_over,
    pooled_audit,
)
from simulator.offpolicy.pooled_run import pooled
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.target import Target
from simulator.run.pipeline import simulate

ITEMS = 10


@dataclass(frozen=True)
class Fixed:
    """A policy that shows one of the first items for each request; the treatment shows another in a
    share `unlike` of them. Which, is keyed by user and request.
    """

    name: str
    unlike: float = 0.0

    def show(self, user: np.ndarray, step: np.ndarray) -> np.ndarray:
        first = 1 + (user * 7 + step * 3) % (ITEMS // 2)
        other = uniform(5, Purpose.RECALL, user, step, 0) < self.unlike
        return np.where(other, first + ITEMS // 2, first)

    def __call__(self, rounds: Rounds) -> Target:
        assert rounds.histories is not None
        slate = self.show(rounds.user, rounds.histories.step)[:, None]
        return Target((slate == rounds.item).astype(float), slate[:, None, :], deterministic=True)


def memoryless(unlike: float, users: int, seed: int = 0) -> tuple[ArmSums, ArmSums]:
    """The sums of twins in a world without memory; the treatment's other items are clicked 2 points
    more often.
    """
    random = np.random.Generator(np.random.Philox(key=[31, seed]))
    often = random.negative_binomial(1.5, 1.5 / (1.5 + 20.0), users) + 1
    liking = random.beta(3.0, 7.0, users)
    policies = Fixed("control"), Fixed("treatment", unlike)
    user = np.repeat(np.arange(users), often)
    step = np.arange(len(user)) - np.repeat(np.cumsum(often) - often, often)
    coin = random.uniform(size=len(user))  # the same item in the same request gets the same answer
    columns = []
    for arm, policy in enumerate(policies):
        item = policy.show(user, step)
        chance = np.minimum(liking[user] + 0.02 * (item > ITEMS // 2), 1.0)
        click = coin < chance
        columns.append(np.stack([np.full(len(user), arm), user, step, item, click]))
    arm, user, step, item, click = np.concatenate(columns, axis=1)
    zero = np.zeros(len(user), dtype=np.int64)
    log = EventLog.from_columns(
        {
            "arm": arm,
            "user": user,
            "session": step,
            "request": zero,
            "position": zero,
            "t": step * 1000,
            "item": item,
            "click": click.astype(np.int8),
        },
        Metadata(("control", "treatment"), users, ITEMS),
    )
    everybody = np.arange(users)
    control, treatment = (
        arm_sums(Stream(log, arm=one.name, history=1), *policies, (0.5, 0.5), everybody)
        for one in policies
    )
    return control, treatment


def show(name: str, audit: PooledAudit, variation: float, carry: float) -> None:
    print(
        f"{name:14} {audit.level:8} {variation:7.1%} {audit.gain:7.1f} {audit.alike:9.1f}", end=""
    )
    print(f" {audit.error.value:7.1%} {audit.coverage.value:8.1%} {audit.bias:+7.2%}", end="")
    print(f" {audit.lift:+7.2%} {carry:8.2g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--repetitions", type=int, default=2000)
    given = parser.parse_args()
    print(
        f"{'policy':14} {'level':8} {'unlike':>7} {'gain':>7} {'by alike':>9} {'errors':>7}", end=""
    )
    print(f" {'covered':>8} {'bias':>7} {'lift':>7} {'carry p':>8}")
    for unlike in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
        control, treatment = memoryless(unlike, given.users)
        both = control.requests.sum() + treatment.requests.sum()
        audits = pooled_audit(
            control, treatment, given.users, given.repetitions, 0, ("life", "slate")
        )
        for audit in audits:
            level = audit.level
            differ = control.unlike[level].sum() + treatment.unlike[level].sum()
            carry = carry_over(control, treatment, level)
            show(f"{unlike:.0%} unlike", audit, differ / both, carry)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        simulate(scenario(1, given.users), root, folder=Path(), progress=silent)
        log = EventLog.open(root / "log")
        for one in pooled(log, root, repetitions=given.repetitions):
            for lift, audit in zip(one.lifts, one.audits, strict=True):
                show(one.treatment, audit, lift.variation, lift.carry)


if __name__ == "__main__":
    main()
