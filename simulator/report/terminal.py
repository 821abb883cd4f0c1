"""The report in the terminal: the lift table in the paper's style, at 80 columns, without colour
where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.page.escapes import printable
from simulator.page.words import (
    AGREEMENTS,
    SIGNS,
    compared,
    corrected,
    detects,
    directions,
    interval,
    needed,
    percent,
    probability,
    stated,
    title,
    tone,
    uses,
    whole,
)

STYLES = {"good": "green", "bad": "red", "open": ""}
STATUS = {"green": ("●", "green"), "amber": ("▲", "yellow"), "red": ("■", "bold red")}


def show(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the lifts by user of every arm, what is not green, and nothing that the log does not
    say.
    """
    console = console or Console(highlight=False, soft_wrap=False)
    size = content["size"]
    _flags(content, console, ("red",))
    for said in content["headlines"]:
        arm = said["arm"]
        console.print()
        console.print(
            _text(f"{arm} against {content['control']}", style="bold")
            + _text(
                f"  {content['design']}, {whole(size['users'])}"
                f" {'clusters' if content['clusters'] else 'users'}"
                + (f", {size['days']} days" if size["days"] else "")
            )
        )
        console.print(_table(content, arm))
        console.print(_text(said["sentence"]))
    console.print(
        _text(
            f"\n95% intervals by {content['unit']}; adjusted p: {corrected(content)}.", style="dim"
        )
    )
    console.print(
        _text("detects: the true lift that the verdict would find four times in five.", style="dim")
    )
    for text in directions(content["metrics"]):
        console.print(_text(text))
    for row in content["margins"]:
        console.print(_text(f"{row['kind']}: {row['sentence']}"))
    for line in uses(content["columns"]):
        console.print(_text(line, style="dim"))
    _flags(content, console, ("amber",))


def _text(text: str, style: str = "") -> Text:
    """Text that the terminal shows and does not act upon: names are those of people's files."""
    return Text(printable(text), style=style)


def _flags(content: Mapping[str, Any], console: Console, statuses: tuple[str, ...]) -> None:
    """The checks of the given colours: red ones stand before the lifts."""
    for check in content["checks"]:
        if check["status"] in statuses:
            sign, style = STATUS[check["status"]]
            head = _text(f"{sign} {check['status']}: {check['name']}. ", style=style)
            console.print(head + _text(f"{check['value']} {check['meaning']}"))


def _table(content: Mapping[str, Any], arm: str) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim"
    )
    for name, how in (
        ("lift", "left"),
        ("95% interval", "right"),
        ("adj. p", "right"),
        ("", "left"),
        ("detects", "right"),
    ):
        table.add_column(name, justify=how, no_wrap=name != "lift", overflow="fold")  # type: ignore[arg-type]
    for row, said in zip(content["lifts"], content["verdicts"], strict=True):
        if row["arm"] != arm or row["unit"] != content["unit"]:
            continue
        direction = content["metrics"][row["metric"]]["higher_is_better"]
        style = STYLES[tone(said["verdict"], direction)]
        table.add_row(
            _text(f"{percent(row['lift']):>9} {title(row['metric'])}", style=style),
            _text(interval(row["low"], row["high"])),
            _text(probability(row["p_adjusted"])),
            _text(f"{SIGNS[said['verdict']]} {stated(said['verdict'], direction)}", style=style),
            _text(detects(row["mde"])),
        )
    return table


def show_comparison(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the lift of every arm and metric in each run, and whether the runs agree."""
    console = console or Console(highlight=False)
    names = list(content["runs"])
    for number, (name, run) in enumerate(content["runs"].items(), 1):
        console.print(_text(f"[{number}] {name}: {run['scenario']}, seed {run['seed']}"))
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for head in ("arm", "metric", *(f"[{i}]" for i in range(1, len(names) + 1)), "agreement"):
        shown.add_column(_text(head), justify="right" if head.startswith("[") else "left")
    for row in content["rows"]:
        cells = [row["lifts"].get(name) for name in names]
        lifts = [
            _text("n/a" if cell is None else f"{SIGNS[cell['verdict']]} {percent(cell['lift'])}")
            for cell in cells
        ]
        style = {"same sign": "green", "opposite": "bold red"}.get(row["agree"], "")
        shown.add_row(
            _text(row["arm"]),
            _text(title(row["metric"])),
            *lifts,
            _text(AGREEMENTS[row["agree"]], style=style),
        )
    console.print(shown)
    _show_designs(content["designs"], console)
    for row in content["differences"][:20]:
        console.print(
            _text(
                f"{row['key']}: {' | '.join(str(row['values'][name]) for name in names)}",
                style="dim",
            )
        )
    for note in content["notes"]:
        console.print(_text(note))


def _show_designs(designs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Users that each design needs on the world that the runs share."""
    if not designs:
        return
    names = compared(designs)
    shown = Table(
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
        title="Users needed on this world",
        title_justify="left",
    )
    for head in ("arm", "metric", *names.values()):
        shown.add_column(_text(head.lower()), justify="right" if head in names.values() else "left")
    for row in designs:
        shown.add_row(
            _text(row["arm"]),
            _text(title(row["metric"])),
            *(_text(needed(row, name)) for name in names),
        )
    console.print(shown)
