"""What is run for the tables: systems by registry name with their hyper-parameters, and the
protocol that they share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SPLITS = tuple(f"{10 - n}_{n}" for n in range(6))
"""m_n of the two-step recall, 10_0 (one step) to 5_5 (Fig. 5, 6)."""


@dataclass(frozen=True)
class Protocol:
    """How systems are trained and judged: what users of recommender libraries disagree on, in one
    place, printed with every table.

    Attributes:
        name: as given to `--protocol`.
        loss: of every sequence model that takes one (`policies.losses`); a model with a loss of its
            own keeps it.
        says: the other choices, by what is chosen.
    """

    name: str
    loss: Mapping[str, Any]
    says: Mapping[str, str]


_COMMON = {
    "split": "leave-one-out: AB -> C trains, ABC -> D validates, ABCD -> E tests",
    "augmentation": (
        "none: one sequence a user, its last 50 items; every position of it is predicted in one"
        " pass; else as said below"
    ),
    "ranking": "all items; the user's own history is masked (an item bought again cannot be hit)",
    "ties": "fixed pseudo-random order of the item ids, the same for all systems",
    "selection": (
        "early stopping and weights by NDCG@10 of the validation item, of the users said below;"
        " nothing on the test item"
    ),
}
PROTOCOLS = {
    "paper": Protocol(
        "paper",
        {"kind": "bce", "negatives": 1},
        {
            "loss": (
                "binary cross-entropy, one uniform negative outside the user's items (eq. 4); whose"
                " it is, and other losses, below"
            ),
            **_COMMON,
        },
    ),
    "softmax": Protocol(
        "softmax",
        {"kind": "softmax"},
        {"loss": "full softmax over all items; whose it is, and other losses, below", **_COMMON},
    ),
}
"""By name: `paper`, as the published rows most likely were made; `softmax`, the same models under
one strong loss.
"""


POOLED = "policies.pooled:PooledNetwork"
TRAINING_PART = "simulator.reproduce.part:TrainingPart"


@dataclass(frozen=True)
class Family:
    """Systems that share one fit and so one scenario.

    Attributes:
        name: of the family.
        policy: registered name.
        params: hyper-parameters.
        arms: system -> further hyper-parameters, of serving only.
        losses: names of the hyper-parameters that the protocol's loss is given to.
        deterministic: whether seeds make no difference.
        foundation: name of the family whose fit this one starts from, given to it as `pretrained`;
            "" = none.
        validates: whether the policy itself holds each user's last click out for validation; else
            it is kept from it.
        pooled: whether the network of the policy is pooled with counts (`policies.pooled`), to
            which the hyper-parameters of its arms then belong.
        members: networks of the pool, each with a seed of its own.
        says: what else it does otherwise than the protocol says, and its hyper-parameters do not
            show (`choices`), by what is chosen.
        role: `floor` (stands beside every table), `baseline` (a row of the paper), `other` (beside
            them), or `ours` (the paper's method).
    """

    name: str
    policy: str
    params: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    deterministic: bool = False
    validates: bool = True
    foundation: str = ""
    pooled: bool = False
    members: int = 1
    says: Mapping[str, str] = field(default_factory=dict)
    role: str = "baseline"

    def systems(self) -> tuple[str, ...]:
        """Names of the systems."""
        return tuple(self.arms) or (self.name,)

    @property
    def has_steps(self) -> bool:
        """Whether some of its systems recall in two steps, m:n."""
        return any(len(further.get("quotas", ())) > 1 for further in self.arms.values())

    def specs(self, protocol: Protocol) -> dict[str, dict[str, Any]]:
        """System -> its arm in a scenario: policy and hyper-parameters."""
        shared = {**self.params, **{name: dict(protocol.loss) for name in self.losses}}
        arms = self.arms or {self.name: {}}
        policy = self.policy
        if self.pooled:
            policy, shared = POOLED, {"policy": policy, "policy_params": shared}
            if self.members > 1:
                shared["members"] = self.members
        made = {
            system: {"policy": policy, "params": {**shared, **further}}
            for system, further in arms.items()
        }
        if self.validates:
            return made
        wrapped = {
            system: {"policy": arm["policy"], "settings": arm["params"]}
            for system, arm in made.items()
        }
        return {
            system: {"policy": TRAINING_PART, "params": params}
            for system, params in wrapped.items()
        }


def _quotas(split: str) -> list[int]:
    return [int(part) for part in split.split("_") if int(part)]


TRAINING = {"epochs": 200, "batch": 256, "rate": 1e-3, "patience": 10}
"""Section 5.1: Adam, 1e-3, batches of 256. Epochs and patience are not said."""

WRITTEN = {
    "width": 64,
    "feedforward": 256,
    "layers": 1,
    "heads": 2,
    "length": 50,
    "activation": "relu",
    "attention": "softmax",
    "norm": "post",
    "embedding_norm": True,
    "embedding_dropout": 0.5,
    "attention_dropout": 0.5,
    "dropout": 0.5,
    "users": "free",
    "user_dropout": 0.0,
    "masked": True,
    "output": "untied",
}
"""The network as written: section 5.1; dropout and norms, of which the paper says nothing, as in
RecBole's SASRec.
"""

RELEASED = {
    "width": 256,
    "feedforward": 512,
    "layers": 1,
    "heads": 2,
    "length": 50,
    "activation": "gelu",
    "attention": "flow",
    "norm": "post",
    "embedding_norm": False,
    "embedding_dropout": 0.0,
    "attention_dropout": 0.0,
    "dropout": 0.1,
    "users": "none",
    "user_dropout": 0.0,
    "masked": False,
    "output": "biased",
}
"""The network of the authors' public code."""

_AS_WRITTEN = {"shape": WRITTEN, "windows": "last", "pretraining": TRAINING}
_TUNED = {
    "shape": WRITTEN,
    "windows": "last",
    "tuning": {**TRAINING, "patience": 5},
    "tuning_loss": {"kind": "softmax"},
    "ranking": "output",
}
_AS_RELEASED = {
    "shape": RELEASED,
    "windows": "last",
    "pretraining": {**TRAINING, "epochs": 30, "patience": 0},
    "pretraining_loss": {"kind": "bce", "negatives": 1},
    "tuning": {**TRAINING, "rate": 5e-4, "patience": 40},
    "tuning_loss": {"kind": "softmax"},
    "ranking": "items",
    "prompts": {"window": 1, "source": "model", "form": "tail", "everywhere": True},
}
BEST = {
    **WRITTEN,
    "layers": 2,
    "activation": "gelu",
    "attention_dropout": 0.0,
    "relative": True,
    "users": "none",
    "output": "tied",
    "trace": True,
}
"""Our best network: as written but for a second layer, GELU, terms for distances, a trace, tied
output, no user module and no dropout of attention weights.
"""

_SAMPLED = {"kind": "sampled", "negatives": 1024, "sampler": "popularity"}
_BEST_START = {
    "shape": BEST,
    "windows": "last",
    "start": "spectral",
    "pretraining_loss": _SAMPLED,
    "pretraining": {**TRAINING, "epochs": 60, "batch": 64, "patience": 5, "average": 5},
    "counts": {},
}
_LINEAR = {
    **TRAINING,
    "epochs": 8,
    "batch": 128,
    "rate": 3e-3,
    "schedule": "linear",
    "patience": 0,
}
"""Of each member of a committee: one that is stopped early takes some three times as long."""

COMMITTEE = 6
"""Networks of a committee: together they fit in about the time of one that is stopped early and
tuned.
"""

_TUNED_BEST = {
    **_BEST_START,
    "tuning": {**TRAINING, "epochs": 10, "batch": 64, "rate": 2e-4, "patience": 2, "average": 3},
    "tuning_loss": _SAMPLED,
}
_PROMPT = {"window": 1, "source": "model", "form": "between"}
BEST_PROMPTS: dict[str, dict[str, Any]] = {
    "Best RecGPT": _PROMPT,
    "Best RecGPT fresh": {**_PROMPT, "fresh": True},
    "Best RecGPT sure": {**_PROMPT, "least": 0.05},
    "Best RecGPT short": {**_PROMPT, "until": 8},
    "Best RecGPT long": {**_PROMPT, "beyond": 8},
    "Best RecGPT anew": {**_PROMPT, "anew": True},
}
"""Prompts that the best network is tuned with: as in 4.3; of items that the user has not clicked;
only those that the network is sure of; only for short histories; only for long ones; made anew in
each epoch, by the network that is tuned."""

_CUTS = {
    "augmentation": (
        "at most 10 places of each user, drawn anew in every epoch; the last 20 clicks before each"
        " are read"
    )
}
_NO_VALIDATION = {"fit": "counts, without the validation item"}
_SEQUENCE = {"width": 64, "length": 50, "training": TRAINING}
_SASREC = {**_SEQUENCE, "blocks": 1, "heads": 2, "inner": 256, "norm": "post"}
_SLOW = {**_SEQUENCE, "training": {**TRAINING, "patience": 20}}
"""Of models whose first epochs, under one-negative cross-entropy, hardly move validation: less
patience stops some seeds there.
"""


def _served(name: str) -> dict[str, dict[str, Any]]:
    """One step, 9:1, two steps whose items compete by their log probabilities, a second step in
    expectation, and 9:1 by the network alone.
    """
    return {
        f"{name} 10_0": {"quotas": [1]},
        f"{name} 9_1": {"quotas": [9, 1]},
        f"{name} pool": {"quotas": [1, 1], "merge": "pool"},
        f"{name} marginal": {"quotas": [1], "second": "marginal"},
        f"{name} network": {"quotas": [9, 1], "weight": 0.0},
    }


def _committee(name: str) -> dict[str, dict[str, Any]]:
    """One step of a pool, a second step in expectation, and one step of its networks alone.

    Beam and share are the best on the mean over validation clicks of Beauty of three committees
    of five, one of which alone would choose hardly a second step; so no fit chooses them.
    """
    served: dict[str, dict[str, Any]] = {
        name: {},
        f"{name} marginal": {"continuation": {"beam": 1, "share": 2.0}},
        f"{name} network": {"weight": 0.0},
    }
    return {system: {"chooses": False, **further} for system, further in served.items()}


def _comirec(extractor: str, rate: float) -> dict[str, Any]:
    """ComiRec with the learning rate that its authors published for an extractor."""
    return {"width": 64, "extractor": extractor, "training": {**TRAINING, "rate": rate}}


def recgpt(window: int) -> Family:
    """RecGPT as written with K = `window`, for every m_n; at K = 0 it is fine-tuning with segments
    that nothing uses.
    """
    prompts = {"window": window, "source": "model", "form": "between"}
    arms = {f"RecGPT K={window} {split}": {"quotas": _quotas(split)} for split in SPLITS}
    return Family(
        f"RecGPT K={window}",
        "recgpt",
        {**_TUNED, "prompts": prompts},
        arms,
        foundation="Pre-train",
        role="ours",
    )


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "Transitions",
            "itemknn",
            deterministic=True,
            validates=False,
            says=_NO_VALIDATION,
            role="floor",
        ),
        Family("PopRec", "popularity", deterministic=True, validates=False, says=_NO_VALIDATION),
        Family(
            "BPR",
            "bpr",
            {"width": 64},
            says={"augmentation": "none: every click is a sample of its own"},
        ),
        Family("STAMP", "stamp", _SEQUENCE, losses=("loss",)),
        Family("GRU4Rec", "gru4rec", _SEQUENCE, losses=("loss",)),
        Family("NARM", "narm", {**_SLOW, "hidden": 128}, losses=("loss",)),
        Family(
            "S3-Rec",
            "s3rec",
            _SLOW,
            losses=("loss",),
            says={"objectives": "masked items and segments (no attributes)"},
        ),
        Family(
            "S3-Rec attributes",
            "s3rec",
            {**_SLOW, "objectives": ["aap", "mip", "map", "sp"]},
            losses=("loss",),
            says={"objectives": "attributes, masked items, masked attributes, segments"},
            role="other",
        ),
        Family(
            "BERT4Rec",
            "bert4rec",
            # Trained by its own default: it needs more epochs than the others.
            {"width": 64, "length": 50},
            says={
                "augmentation": "Cloze: masks drawn anew in every epoch, only they are predicted"
            },
        ),
        Family(
            "SASRec",
            "sasrec",
            _SASREC,
            losses=("loss",),
        ),
        Family(
            "SASRec sampled",
            "sasrec",
            {
                **_SASREC,
                "loss": _SAMPLED,
                "training": _BEST_START["pretraining"],
            },
            {"SASRec sampled": {"weight": 0.0}, "SASRec pooled": {}},
            pooled=True,
            role="other",
        ),
        Family(
            "SASRec committee",
            "sasrec",
            {**_SASREC, "loss": _SAMPLED, "training": _LINEAR},
            _committee("SASRec committee"),
            pooled=True,
            members=COMMITTEE,
            role="other",
        ),
        Family("ComiRec-DR", "comirec", _comirec("dr", 5e-3), says=_CUTS, role="other"),
        Family("ComiRec-SA", "comirec", _comirec("sa", 1e-3), says=_CUTS, role="other"),
        Family(
            "Pre-train",
            "pretrain",
            _AS_WRITTEN,
            {
                "Pre-train": {},
                **{f"Pre-train {split}": {"quotas": _quotas(split)} for split in SPLITS[1:]},
            },
            ("pretraining_loss",),
        ),
        Family("Fine-tuning", "finetune", _TUNED, foundation="Pre-train"),
        *(recgpt(window) for window in range(7)),
        Family(
            "Best pre-train",
            "pretrain",
            _BEST_START,
            {
                "Best pre-train": {},
                **{f"Best pre-train {split}": {"quotas": _quotas(split)} for split in SPLITS[1:]},
                "Best pre-train marginal": {"second": "marginal"},
                "Best pre-train network": {"weight": 0.0},
            },
            role="ours",
        ),
        Family(
            "Best committee",
            "pretrain",
            {
                "shape": {**BEST, "embedding_dropout": 0.4, "dropout": 0.4},
                "windows": "last",
                "start": "spectral",
                "pretraining_loss": _SAMPLED,
                "pretraining": _LINEAR,
            },
            _committee("Best committee"),
            pooled=True,
            members=COMMITTEE,
            role="ours",
        ),
        Family(
            "Best fine-tuning", "finetune", _TUNED_BEST, foundation="Best pre-train", role="ours"
        ),
        *(
            Family(
                name,
                "recgpt",
                {**_TUNED_BEST, "prompts": prompts},
                _served(name),
                foundation="Best pre-train",
                role="ours",
            )
            for name, prompts in BEST_PROMPTS.items()
        ),
        Family(
            "RecGPT as released",
            "recgpt",
            _AS_RELEASED,
            {f"RecGPT as released {split}": {"quotas": _quotas(split)} for split in SPLITS},
            role="ours",
        ),
    )
}
"""Every family by name."""

OWNER = {system: family for family in FAMILIES.values() for system in family.systems()}
"""System -> its family."""

ROWS = {
    "Transitions": "Transitions",
    **{
        name: name
        for name in (
            "PopRec",
            "BPR",
            "STAMP",
            "GRU4Rec",
            "NARM",
            "S3-Rec",
            "BERT4Rec",
            "SASRec",
            "ComiRec-DR",
            "ComiRec-SA",
        )
    },
    "Pre-train": "Pre-train",
    "Fine-tuning": "Fine-tuning",
    "RecGPT1": "RecGPT K=1 10_0",
    "RecGPT": "RecGPT K=1 9_1",
    "RecGPT as released": "RecGPT as released 9_1",
    "SASRec sampled": "SASRec sampled",
    "Best RecGPT network": "Best RecGPT network",
    "SASRec pooled": "SASRec pooled",
    "Best RecGPT pooled": "Best RecGPT 9_1",
}
"""Table 2: row -> system, in the order of print; K = 1, m:n = 9:1. The three RecGPT: as written, as
released, best.
"""

ON_REQUEST = (
    "RecGPT as released",
    "SASRec sampled",
    "Best RecGPT network",
    "SASRec pooled",
    "Best RecGPT pooled",
)
"""Rows of Table 2 that are made only when they are asked for: larger networks and longer schedules
than all others.
"""

VARIANTS = {
    "RecGPT": "RecGPT K=1 9_1",
    "Variant_1": "Pre-train 9_1",
    "Variant_2": "RecGPT K=1 10_0",
    "Variant_3": "Pre-train",
}
"""Table 3: row -> system."""
