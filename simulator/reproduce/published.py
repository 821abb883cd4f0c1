"""What RecGPT (arXiv 2404.08675v1) printed: Tables 1, 2 and 3; and what others printed on data sets
that it does not have, too. Nothing measured stands here.
"""

from __future__ import annotations

from typing import NamedTuple

METRICS = ("hit_rate@5", "ndcg@5", "hit_rate@10", "ndcg@10")
"""The columns of Table 2."""

DATASETS = {
    "sports": "Sports_and_Outdoors",
    "beauty": "Beauty",
    "toys": "Toys_and_Games",
    "yelp": "Yelp",
}
"""Short name of the paper's data sets -> name of the published file."""

STATISTICS = {
    "sports": (35_598, 18_357, 296_337, 8.3),
    "beauty": (22_363, 12_101, 198_502, 8.9),
    "toys": (19_412, 11_924, 167_597, 8.6),
    "yelp": (30_431, 20_033, 316_354, 10.3),
}
"""Table 1: users, items, actions, mean length."""

_TABLE_2_LEFT = """
PopRec      .0052 .0028 .0081 .0037  .0064 .0030 .0098 .0040
BPR         .0030 .0019 .0055 .0027  .0038 .0026 .0060 .0033
STAMP       .0079 .0051 .0119 .0064  .0077 .0045 .0114 .0057
GRU4Rec     .0113 .0072 .0190 .0097  .0162 .0097 .0300 .0141
NARM        .0132 .0085 .0234 .0118  .0230 .0142 .0401 .0197
S3-Rec      .0124 .0086 .0205 .0111  .0202 .0119 .0336 .0163
BERT4Rec    .0200 .0130 .0313 .0166  .0382 .0210 .0592 .0319
SASRec      .0203 .0135 .0324 .0174  .0398 .0261 .0614 .0331
Pre-train   .0203 .0132 .0324 .0171  .0418 .0272 .0610 .0334
Fine-tuning .0212 .0141 .0328 .0178  .0421 .0275 .0618 .0338
RecGPT1     .0213 .0141 .0333 .0180  .0426 .0283 .0651 .0356
RecGPT      .0219 .0143 .0339 .0181  .0440 .0289 .0654 .0357
"""
_TABLE_2_RIGHT = """
PopRec      .0039 .0021 .0070 .0031  .0045 .0023 .0091 .0038
BPR         .0030 .0019 .0047 .0024  .0023 .0015 .0039 .0021
STAMP       .0033 .0019 .0061 .0028  .0041 .0025 .0071 .0035
GRU4Rec     .0157 .0097 .0274 .0134  .0122 .0076 .0219 .0107
NARM        .0257 .0174 .0405 .0221  .0152 .0095 .0256 .0129
S3-Rec      .0227 .0146 .0397 .0200  .0159 .0094 .0269 .0129
BERT4Rec    .0455 .0307 .0683 .0380  .0156 .0096 .0262 .0130
SASRec      .0479 .0334 .0698 .0405  .0161 .0100 .0290 .0142
Pre-train   .0487 .0342 .0630 .0388  .0166 .0102 .0278 .0138
Fine-tuning .0492 .0335 .0701 .0402  .0168 .0103 .0287 .0141
RecGPT1     .0515 .0355 .0711 .0418  .0172 .0105 .0293 .0144
RecGPT      .0529 .0359 .0721 .0419  .0177 .0107 .0297 .0146
"""
_TABLE_3 = """
RecGPT     .0339 .0181  .0654 .0357  .0721 .0419  .0297 .0146
Variant_1  .0226 .0135  .0560 .0315  .0603 .0364  .0261 .0133
Variant_2  .0333 .0180  .0651 .0356  .0711 .0415  .0293 .0144
Variant_3  .0324 .0171  .0610 .0334  .0630 .0388  .0278 .0138
"""


def _read(
    text: str, metrics: tuple[str, ...], datasets: tuple[str, ...] = tuple(DATASETS)
) -> dict[tuple[str, str, str], float]:
    found = {}
    for line in text.split("\n"):
        name, *numbers = line.split() or [""]
        for place, number in enumerate(numbers):
            dataset, metric = datasets[place // len(metrics)], metrics[place % len(metrics)]
            found[name, dataset, metric] = float(number)
    return found


TABLE_2 = {
    **_read(_TABLE_2_LEFT, METRICS, tuple(DATASETS)[:2]),
    **_read(_TABLE_2_RIGHT, METRICS, tuple(DATASETS)[2:]),
}
"""(row, data set, metric) -> value."""

TABLE_3 = _read(_TABLE_3, METRICS[2:])
"""(row, data set, metric) -> value; rows as printed, `Variant_1` is two-step recall without tuning,
`Variant_3` one-step without tuning.
"""


class Elsewhere(NamedTuple):
    """A row of another paper, under leave-one-out with all items ranked: a single run.

    Attributes:
        model, source: whose it is, and where it stands.
        hit_rate, ndcg: at 10.
    """

    model: str
    source: str
    hit_rate: float
    ndcg: float


_BSAREC = ("BSARec", "Shin et al., AAAI 2024 (arXiv 2312.10325)")
_BEST = ("best for item ids", "reported elsewhere, not repeated")

ELSEWHERE = {
    "beauty": (Elsewhere(*_BSAREC, 0.1008, 0.0611), Elsewhere(*_BEST, 0.1050, 0.0623)),
    "sports": (Elsewhere(*_BEST, 0.0643, 0.0369),),
    "yelp": (Elsewhere(*_BEST, 0.0534, 0.0272),),
    "ml-1m": (Elsewhere(*_BEST, 0.295, 0.170),),
    "lastfm": (Elsewhere(*_BSAREC, 0.0807, 0.0435),),
}
"""By the name of the data set in lower case. ML-1M and LastFM are 5-cores that were made as those
of S3-Rec: 6,040 users and 3,416 items, and 1,090 users and 3,646 items.
"""
