"""Small made files in the published format of every data set, for tests of the readers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIDNIGHT = 1_650_816_000_000
"""2022-04-25 00:00 in China, ms."""
DAY = 86_400_000

LOG_HEAD = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)

USER_HEAD = "user_id,degree,follow_user_num,fans_user_num,friend_user_num,register_days"


def impression(user: int, video: int, t: int, click: Any = 0) -> str:
    return f"{user},{video},20220425,0,{t},{click},0,0,0,0,0,0,1000,20000,0,0,0,0,1"


KUAIRAND = {
    "log_standard_1_pure.csv": [
        LOG_HEAD,
        impression(70, 9, MIDNIGHT, 1),
        impression(12, 4, MIDNIGHT + 1000),
        impression(70, 4, MIDNIGHT + DAY, 1),
    ],
    "user_features_pure.csv": [USER_HEAD, "70,high,5,0,0,9", "12,low,,0,0,9", "99,high,1,0,0,9"],
    "video_features_basic_pure.csv": [
        "video_id,author_id,video_type,upload_dt,video_duration,tag",
        '4,50,NORMAL,2022-04-20,30000,"3,8"',
        "9,51,AD,,9000,8",
        "77,51,AD,,9000,8",
    ],
}
BANDIT_HEAD = ",timestamp,item_id,position,click,propensity_score,user_feature_0"
BANDIT_ROWS = [
    "0,2019-11-24 00:03:24.688993+00:00,2,2,0,0.25,a", "1,2019-11-24 10:03:56+00:00,0,1,1,0.5,b",
    "2,2019-11-26 23:59:56+00:00,3,3,0,0.125,c"
]  # fmt: skip
BANDIT = {
    **{f"{arm}/shop/shop.csv": [BANDIT_HEAD, *BANDIT_ROWS] for arm in ("random", "bts")},
    **{
        f"{arm}/shop/item_context.csv": [
            "item_id,item_feature_0,item_feature_1",
            "2,0.5,x",
            "5,1.5,y",
            "0,2.5,x",
        ]
        for arm in ("random", "bts")
    },
}
INTER = {
    "toy.inter": [
        "user_id:token\titem_id:token\ttimestamp:float\tlabel:float",
        "u1\ta\t1\t1",
        "u2\tb\t1\t1",
        "u1\t007\t2\t0",
        "u1\tb\t3\t1",
        "u2\ta\t2\t1",
    ],
    "toy.item": [
        "item_id:token\tprice:float\tbrand:token\tgenres:token_seq",
        "b\t2.5\tx\tg1 g2",
        "z\t1\ty\tg1",
        "a\t\t\t",
    ],
    "toy.user": ["user_id:token\tage:token", "u2\told", "u1\tyoung"],
}
S3REC = {
    "Toy.txt": ["1 5 6 7", "2 6 5", "3 9"],
    "Toy_item2attributes.json": ['{"6": [2, 1],', '"5": [], "1000": [7]}'],
}
SETS: dict[str, tuple[dict[str, list[str]], str]] = {
    "kuairand": (KUAIRAND, ""),
    "open_bandit": (BANDIT, "random/shop"),
    "inter": (INTER, ""),
    "s3rec": (S3REC, "Toy.txt"),
}
"""`data.source` -> its files by line, and what of them `data.path` names."""


TABLES: dict[str, dict[str, list[str]]] = {
    "movielens": {
        "ratings.csv": [
            "userId,movieId,rating,timestamp",
            "1,31,2.5,1500000000",
            "1,1029,4.0,1500086400",
            "2,31,5.0,1500000100",
        ],
        "movies.csv": [
            "movieId,title,genres",
            '31,"Dangerous Minds, The (1995)",Drama',
            "1029,Dumbo (1941),Animation|Children|Drama|Musical",
        ],
    },
    "movielens-1m": {
        "ratings.dat": ["1::1193::5::978300760", "1::661::3::978400109", "2::661::4::978300000"],
        "users.dat": ["1::F::1::10::48067", "2::M::56::16::70072"],
    },
    "mind": {
        "behaviors.tsv": [
            "1\tU1\t11/11/2019 9:05:58 AM\tN5 N4\tN55-1 N35-0",
            "2\tU2\t11/12/2019 6:11:30 PM\t\tN20-0",
        ],
        "news.tsv": ["N55\tsports\tnfl\tA\tText\thttps://x\t[]\t[]"],
    },
}
"""`data.format` -> files of a folder, by line."""

TABLE_COLUMNS = {"user": "who", "item": "what", "time": "when", "click": "yes"}


def write(
    root: Path,
    files: dict[str, list[str]],
    dress: Callable[[str], bytes] = str.encode,
    ending: str = "",
) -> None:
    for name, lines in files.items():
        path = root / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = dress("".join(f"{line}\n" for line in lines))
        path.write_bytes(gzip.compress(content) if ending else content)


def amazon(user: str, item: str, t: int, **more: Any) -> dict[str, Any]:
    return {"reviewerID": user, "asin": item, "unixReviewTime": t, **more}


def yelp(user: str, item: str, t: int, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "business_id": item, "date": f"2019-05-01 10:00:{t:02}", **more}


def reviews(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a dump of reviews."""
    return [json.dumps(row) for row in rows]
