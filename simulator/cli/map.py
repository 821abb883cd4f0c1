"""`abtest map`: where, over parameters of the world or of a policy, does an arm win?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.options import COUNT, FOLDER, SOURCE
from simulator.cli.studies import of_one_lift, study


@click.command("map")
@click.argument("scenario", type=SOURCE)
@click.option(
    "--over",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help=(
        "A key of the scenario and its values: LOW:HIGH, LOW:HIGH:log (equal ratios) or A,B,C."
        " Once or twice."
    ),
)
@click.option(
    "--runs",
    type=COUNT,
    default=24,
    show_default=True,
    help="At most so many, at least 5 (9 over two keys); fewer where every sign is decided before.",
)
@click.option(
    "--seeds",
    type=COUNT,
    help=(
        "Deal the runs over so many seeds; those of one seed share fits. Each run has its own if"
        " left out."
    ),
)
@click.option(
    "--level",
    type=click.FloatRange(0.5, 0.999),
    default=0.95,
    show_default=True,
    help="Of the band that holds the surface everywhere at once.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder of the map; runs/map/<name> if left out.",
)
@click.option("--seed", type=int, help="Overrides the scenario's seed: that of the first run.")
@click.option("--resume", is_flag=True, help="Take over the finished runs of the map in --out.")
@of_one_lift
def map_(scenario: Path, **how: Any) -> None:
    """The lift of an arm of SCENARIO as a surface over one parameter or two of the world or of a
    policy: where does it win, where does it lose, and where is that not decided?

    Runs are placed one after another where the sign is uncertain, each in a world of its own seed.
    Exit code 0: mapped. 2: bad input, one message. 130: interrupted; `--resume` continues.

    \b
    abtest map scenarios/kuaishou_like.yaml --arm recgpt \\
        --over users.drift.renewal=0:0.5 --over users.interests.per_user=1,2,4,8
    abtest map my.yaml --over arms.itemknn.params.neighbours=5:500:log --runs 16
    abtest map my.yaml --over serving.history=8,32,128 --metric watch_time
    """
    from simulator.surface.map_page import document, save
    from simulator.surface.mapping import map_lift

    study("runs", scenario, map_lift, save, document, **how)
