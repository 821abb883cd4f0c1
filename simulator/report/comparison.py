"""Several runs beside one another: what differs in their settings, the lift in each, whether signs
agree, and the lift over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from policies.base import Progress, silent
from simulator.designs.registry import DESIGNS
from simulator.log.files import write_texts
from simulator.page import words
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Heading,
    Section,
    Table,
    Words,
    plain,
)
from simulator.report import SCHEMA_VERSION, ReportError, as_json, load
from simulator.report.worlds import across


def read(paths: Sequence[Path], progress: Progress = silent) -> dict[str, Any]:
    """The comparison of the runs, logs or reports at `paths`, each named by as much of its path as
    tells it from the others.

    Raises:
        ReportError: fewer than two, one twice, or no report there.
        LogError: something is there, but it is not an event log.
    """
    places = [path.resolve() for path in paths]
    if len(set(places)) < 2 or len(set(places)) < len(places):
        raise ReportError(
            "a comparison needs at least two different runs; got"
            f" {', '.join(map(str, paths)) or 'none'}"
        )
    contents: dict[str, dict[str, Any]] = {}
    for i, (name, path) in enumerate(zip(_names(places), paths, strict=True)):
        progress("read the runs", i, len(paths), {})
        contents[name] = load(path)
    progress("read the runs", len(paths), len(paths), {})
    return compare(contents)


def compare(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put gathered reports side by side.

    Args:
        contents: by name of the run.

    Returns:
        `schema`, `runs` (their scenario, seed, control, size and red checks), `differences`
        (settings that are not the same in all: `key`, `values` by run), `rows` (see `world.across`;
        with `differ`, `pooled`, `low`, `high`), `designs` and `notes`.
    """
    runs = {name: _facts(content) for name, content in contents.items()}
    differences = list(
        _differences({name: dict(content["settings"]) for name, content in contents.items()})
    )
    seeds = [content["seed"] for content in contents.values()]
    independent = None not in seeds and len(set(seeds)) == len(seeds)
    repeats = independent and {row["key"] for row in differences} <= {"seed", "name", "description"}
    rows = [
        {**row, **_together(row["lifts"], contents, independent, repeats)}
        for row in across(contents)
    ]
    metrics = {
        name: metric for content in contents.values() for name, metric in content["metrics"].items()
    }
    return {
        "schema": SCHEMA_VERSION,
        "runs": runs,
        "differences": differences,
        "rows": rows,
        "designs": _designs(contents, {row["key"] for row in differences}),
        "notes": [*_notes(runs, independent, repeats), *words.directions(metrics)],
    }


def save(content: Mapping[str, Any], folder: Path) -> Path:
    """Write compare.json, compare.md and compare.html into `folder`, each by temporary name and
    rename; returns the page.
    """
    from simulator.page.html import page
    from simulator.page.markdown import markdown

    shown = document(content)
    write_texts(
        folder,
        {
            "compare.json": as_json(content),
            "compare.md": markdown(shown),
            "compare.html": page(shown),
        },
    )
    return folder / "compare.html"


def document(content: Mapping[str, Any]) -> Document:
    """The comparison as a report is shown."""
    from simulator.report.sections import across

    names, rows = list(content["runs"]), content["rows"]
    note = (
        "Per user, over the control of the run, with 95% intervals. Same sign: the verdict is up in"
        " all runs, or down in all. Opposite: up in one and down in another. Undecided: no"
        " contradiction, but not all runs show it."
    )
    sections = [
        Section(
            "verdict",
            "Lift in each run",
            [*map(Words, content["notes"]), Words(note, note=True), across(rows)],
            "Lifts",
        )
    ]
    together = [row for row in rows if row["differ"] is not None]
    if together:
        sections.append(Section("together", "Taken together", _pooled(together), "Together"))
    if content["designs"]:
        sections.append(
            Section(
                "designs",
                "Users that each design needs on this world",
                _needed(content["designs"]),
                "Designs",
            )
        )
    sections.append(Section("settings", "Runs and settings", _settings(content), "Settings"))
    facts = Facts([("Runs", str(len(names)))])
    return Document(
        f"{len(names)} runs compared",
        "A/B runs compared",
        words.listed(names),
        "",
        facts,
        [],
        sections,
    )


def _pooled(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    note = (
        "Differ: the p-value that the true lift is the same in all runs (Cochran's Q). Pooled: the"
        " inverse-variance mean, for repeats of one scenario only."
    )
    columns = [
        Column("Metric"),
        Column("Arm"),
        *(Column(head, number=True) for head in ("Differ, p", "Pooled", "95% interval")),
    ]
    lines = [
        (
            plain(words.title(row["metric"])),
            plain(row["arm"]),
            Cell(words.probability(row["differ"]), row["differ"]),
            Cell(words.percent(row["pooled"]), row["pooled"]),
            plain("n/a" if row["pooled"] is None else words.interval(row["low"], row["high"])),
        )
        for row in rows
    ]
    return [Words(note, note=True), Table("Runs taken together", columns, lines)]


def _needed(designs: Sequence[Mapping[str, Any]]) -> list[Block]:
    note = (
        "To find, four times in five after the adjustment of each run's report, what was there."
        " Whole feeds (paired, split, switchback) show a lift; interleaving shows a preference"
        " within one slate, a relative difference of credits, which is larger than the lift of a"
        " feed and not the same question. The switchback is given at its best, without carry-over."
    )
    names = words.compared(designs)
    columns = [
        Column("Metric"),
        Column("Arm"),
        *(Column(shown, number=True) for shown in names.values()),
    ]
    lines = [
        (
            plain(words.title(row["metric"])),
            plain(row["arm"]),
            *(
                Cell(
                    words.needed(row, n),
                    row["users"].get(n),
                    under=f"for {words.percent(row['lifts'].get(n))}",
                )
                for n in names
            ),
        )
        for row in designs
    ]
    return [Words(note, note=True), Table("Users needed by each design", columns, lines)]


def _settings(content: Mapping[str, Any]) -> list[Block]:
    """What the runs are, and in which settings they differ."""
    columns = [Column(head) for head in ("Run", "Scenario", "Seed", "Design", "Control", "Arms")]
    runs = [
        (
            plain(name),
            plain(run["scenario"]),
            plain(run["seed"]),
            plain(run["design"]),
            plain(run["control"]),
            plain(words.listed(run["arms"])),
            plain(words.whole(run["size"]["users"])),
            plain(run["size"]["days"] or "n/a"),
            plain(", ".join(run["red"]) or "none"),
        )
        for name, run in content["runs"].items()
    ]
    columns += [Column("Users", number=True), Column("Days", number=True), Column("Red checks")]
    heads = [Column("Key"), *map(Column, content["runs"])]
    rows = [
        (plain(row["key"]), *(plain(row["values"][name]) for name in content["runs"]))
        for row in content["differences"]
    ]
    differ: Block = (
        Table("Settings that differ", heads, rows, sortable=False) if rows else Words("None.")
    )
    return [Table("Runs", columns, runs, sortable=False), Heading("Settings that differ"), differ]


def _names(places: Sequence[Path]) -> list[str]:
    for depth in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return list(map(str, places))


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    red = [check["name"] for check in content["checks"] if check["status"] == "red"]
    return {
        **{key: content[key] for key in ("scenario", "seed", "design", "control", "arms", "size")},
        "red": red,
    }


def _differences(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every dotted key of the resolved scenarios whose value is not the same in all runs; a missing
    key is None.
    """
    flat = {name: dict(_flat(given, "")) for name, given in settings.items()}
    for key in sorted(set().union(*flat.values())):
        values = {name: given.get(key) for name, given in flat.items()}
        if len({repr(value) for value in values.values()}) > 1:
            yield {"key": key, "values": values}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _together(
    lifts: Mapping[str, Mapping[str, Any]],
    contents: Mapping[str, Any],
    independent: bool,
    repeats: bool,
) -> dict[str, Any]:
    """What independent runs say together: whether they differ (p of Cochran's Q), and, of repeats
    of one scenario, the pooled lift.

    Q = sum w_i (l_i - l)^2 with w_i = 1 / se_i^2 and l the weighted mean is chi-square with k - 1
    degrees of freedom where all true lifts are equal; the fixed-effect estimate l has variance 1 /
    sum w_i (Cochran, "The combination of estimates from different experiments", Biometrics 1954).
    se_i is the half-width of the 95% interval over the normal quantile.
    """
    from scipy.stats import chi2, norm

    nothing = {"differ": None, "pooled": None, "low": None, "high": None}
    known = [
        cell
        for cell in lifts.values()
        if None not in (cell["lift"], cell["low"], cell["high"]) and cell["high"] > cell["low"]
    ]
    if not independent or len(known) < 2 or len(known) < len(contents):
        return nothing
    q = float(norm.ppf(0.975))
    weights = [(2 * q / (cell["high"] - cell["low"])) ** 2 for cell in known]
    mean = sum(w * cell["lift"] for w, cell in zip(weights, known, strict=True)) / sum(weights)
    heterogeneity = sum(
        w * (cell["lift"] - mean) ** 2 for w, cell in zip(weights, known, strict=True)
    )
    half = q / math.sqrt(sum(weights))
    differ = {"differ": float(chi2.sf(heterogeneity, len(known) - 1))}
    return (
        nothing
        | differ
        | ({"pooled": mean, "low": mean - half, "high": mean + half} if repeats else {})
    )


def _designs(
    contents: Mapping[str, Mapping[str, Any]], differences: set[str]
) -> list[dict[str, Any]]:
    """How many users each design needs on one world: of a paired run and an interleaved one of the
    same scenario, seeds aside.

    Returns:
        Rows with `metric`, `arm`, `lifts` (what each design finds: a lift, or a relative difference
        of credits) and `users` by design; none where the runs are of different worlds or of one
        design.
    """
    by_kind = {content["design"]: content for content in contents.values() if content["designs"]}
    same_world = all(
        key.split(".")[0] in ("design", "seed", "name", "description") for key in differences
    )
    if (
        not same_world
        or len(by_kind) < 2
        or len({content["control"] for content in by_kind.values()}) > 1
    ):
        return []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for content in by_kind.values():
        for one in content["designs"]:
            row = rows.setdefault(
                (one["arm"], one["metric"]),
                {"metric": one["metric"], "arm": one["arm"], "lifts": {}, "users": {}},
            )
            row["lifts"] |= dict.fromkeys(one["users"], one["lift"])
            row["users"] |= one["users"]
    return [row for row in rows.values() if set(by_kind) <= set(row["users"])]


def _notes(runs: Mapping[str, Mapping[str, Any]], independent: bool, repeats: bool) -> list[str]:
    notes = []
    controls = {run["control"] for run in runs.values()}
    if len(controls) > 1:
        notes.append(
            f"The runs have different controls ({', '.join(sorted(controls))}): their lifts are"
            " lifts over different things."
        )
    drafted = [name for name, run in runs.items() if DESIGNS[run["design"]].shares_slates]
    if drafted and len(drafted) < len(runs):
        notes.append(
            f"{', '.join(drafted)}: interleaved; its lifts are of credits within shared slates, not"
            " of whole feeds."
        )
    notes += [
        f"{name}: red checks: {', '.join(run['red']).lower()}. Do not act on its lifts."
        for name, run in runs.items()
        if run["red"]
    ]
    if not independent:
        notes.append(
            "Runs of the same seed share their users and random numbers: they are not independent,"
            " and no test compares them."
        )
    elif repeats:
        notes.append(
            "The runs differ in their seed only: they are repeats, and their lifts are pooled by"
            " inverse variance."
        )
    return notes
