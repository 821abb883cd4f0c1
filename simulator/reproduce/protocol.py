"""What each system of a table chooses for itself where the protocol leaves it free, read off its
policy, in words. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from policies.registry import make
from simulator.reproduce.systems import FAMILIES, Family, Protocol

if TYPE_CHECKING:
    from policies.losses import Loss
    from policies.train import Training


def printed(protocol: Protocol, families: Sequence[Family]) -> Protocol:
    """The protocol as it stands beside a table of `families`: with what they, and what they start
    from, choose; like choices together.
    """
    chosen: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(name for family in families for name in _line(family)):
        family = next((each for each in families if each.name == name), None) or FAMILIES[name]
        for what, how in choices(family, protocol).items():
            chosen.setdefault(what, {}).setdefault(how, []).append(name)
    further = {
        f"{what} of {', '.join(names)}": how
        for what, ways in chosen.items()
        for how, names in ways.items()
    }
    return replace(protocol, says={**protocol.says, **further})


def choices(family: Family, protocol: Protocol) -> dict[str, str]:
    """Start, losses, trainings, prompts and scores by the hyper-parameters of the family's policy,
    and what the family says of itself.
    """
    from policies.losses import Loss
    from policies.train import Training

    spec = next(iter(family.specs(protocol).values()))
    params, found = spec["params"], {}
    policy = make(spec["policy"], params)
    trained = policy.parts()[0] if family.pooled else policy
    for name, value in trained.params().items():
        if family.foundation and name.startswith("pretraining"):
            continue  # what it starts from was pre-trained by choices of its own
        if isinstance(value, Loss):
            found[name.replace("_", " ")] = loss(value)
        elif isinstance(value, Training):
            found[name.replace("_", " ")] = training(value)
    if family.foundation:
        found["start"] = f"the fit of {family.foundation}"
    elif params.get("start") == "spectral":
        found["start"] = "item vectors from a singular value decomposition of the log"
    if "prompts" in params:
        found["prompts"] = prompts(params["prompts"])
    if family.pooled or "counts" in params:
        found["scores"] = (
            "log probabilities pooled with counted transitions, by a weight of best NDCG@10 of the"
            " validation item; where the network stands alone, its inner products"
        )
    elif params.get("ranking") == "output":
        found["scores"] = (
            "by the output layer W_l that was tuned, where eq. 6 has the item embedding (e_i . F)"
        )
    if family.members > 1:
        found["networks"] = (
            f"{family.members}, each with a seed of its own; the mean of their inner products"
        )
    return found | dict(family.says)


def loss(chosen: Loss) -> str:
    """A loss in words."""
    own = (
        f"{chosen.negatives} uniform negative{'s' * (chosen.negatives > 1)} outside the user's"
        " items"
    )
    return {
        "bce": f"binary cross-entropy, {own}",
        "softmax": "full softmax over all items",
        "sampled": (
            f"sampled softmax, {chosen.negatives:,} negatives a batch ({chosen.sampler}),"
            " logQ-corrected"
        ),
        "gbce": f"generalised binary cross-entropy, t = {chosen.calibration:g}, {own}",
        "bpr": f"pairwise (BPR), {own}",
        "top1": f"pairwise (TOP1), {own}",
    }[chosen.kind]


def training(chosen: Training) -> str:
    """A training in words."""
    how = f"up to {chosen.epochs} epochs, batches of {chosen.batch:,}, Adam at {chosen.rate:g}"
    if chosen.schedule == "linear":
        from policies.train import RISE

        how += f", falling linearly to 0 after the first {RISE:.0%} of the steps"
    how += f", L2 {chosen.decay:g}" if chosen.decay else ""
    how += f", gradients up to {chosen.clip:g}" if chosen.clip else ""
    if not chosen.patience:
        last = f"mean of the last {chosen.average} epochs" if chosen.average > 1 else "last epoch"
        return f"{how}; no validation, weights: {last}"
    best = "best epoch"
    if chosen.average > 1:
        best = f"mean of the {chosen.average} best epochs, unless the best alone is better"
    every = f"every {chosen.every} epochs " if chosen.every > 1 else ""
    return (
        f"{how}; validated {every}on at most {chosen.sample:,} users, drawn by the seed; patience"
        f" {chosen.patience}; weights: {best}"
    )


def prompts(chosen: Mapping[str, Any]) -> str:
    """Hyper-parameters of prompts (`recgpt.prompts.Prompts`) in words."""
    if chosen["form"] == "tail":
        how = (
            f"the last {chosen['window']} input{'s' * (chosen['window'] > 1)} replaced by generated"
            " ones, in every batch"
        )
    else:
        how = f"{chosen['window']} before each item from the second on"
        how += ", of items that the user has not clicked" if chosen.get("fresh") else ""
        how += (
            f", where its probability is at least {chosen['least']:g}"
            if chosen.get("least")
            else ""
        )
        how += (
            f", for users with more than {chosen['beyond']} clicks" if chosen.get("beyond") else ""
        )
        how += f", for users with at most {chosen['until']} clicks" if chosen.get("until") else ""
        how += ", generated " + (
            "anew in every epoch" if chosen.get("anew") else "once, by the pre-trained model"
        )
    return how + (
        "; the next item is predicted from them as well" if chosen.get("everywhere") else ""
    )


def _line(family: Family) -> list[str]:
    """The names of what the family starts from, the first one first, and its own."""
    return [*(_line(FAMILIES[family.foundation]) if family.foundation else ()), family.name]
