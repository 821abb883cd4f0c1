"""The report as Markdown: the same content, in tables that read well as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.report.html import command, settings
from simulator.report.spread import QUANTILES
from simulator.report.words import (
    AGREEMENTS,
    DESIGNS,
    SIGNS,
    compared,
    detects,
    interval,
    listed,
    needed,
    number,
    percent,
    probability,
    title,
    whole,
)


def document(content: Mapping[str, Any]) -> str:
    """The Markdown text of a gathered report. Names are escaped, so that none of them becomes markup."""
    c = content
    blocks = [
        f"# {text(c['scenario'] or 'A/B report')}: {listed([text(a) for a in c['arms'][1:]])} against {text(c['control'])}",
        _facts(c),
        *(f"**RED: {text(k['name'])}.** {text(k['value'])} {text(k['meaning'])}" for k in c["checks"] if k["status"] == "red"),
        *_verdict(c),
        *_margins(c),
        *_over_days(c),
        *_sequential(c),
        *_funnel(c),
        *_spread(c),
        *_segments(c),
        *_otherwise(c),
        *_designs(c),
        *_worlds(c),
        *_served(c),
        *_published(c),
        *_calibration(c),
        *_checks(c),
        *_audit(c),
        *_repeat(c),
    ]
    return "\n\n".join(blocks) + "\n"


def _facts(c: Mapping[str, Any]) -> str:
    size = c["size"]
    parts = [f"{c['design']} ({DESIGNS[c['design']]})", f"{whole(size['users'])} users"]
    if size["days"]:
        parts += [f"{size['days']} days", f"{whole(size['impressions'])} impressions"]
    if c["seed"] is not None:
        parts.append(f"seed {c['seed']}")
    return ", ".join(parts) + "."


def _over_days(c: Mapping[str, Any]) -> list[str]:
    if not c["daily"]:
        return []
    head = ("Metric", "Arm", "Lift", "95% interval", "t", "df", "p", "Adjusted p")
    return [
        "## By day, as in the paper",
        "The unit is a day. Days of the same users are not independent: audited, this table errs in 1 to 11% of tests in place of 5%, "
        "and its intervals are too wide (coverage 99 to 100%). The verdict is by user.",
        table(head, (_by_day(row) for row in c["lifts"] if row["unit"] == "day")),
        "## Lift on each day",
        table(("Metric", "Arm", *(f"Day {d + 1}" for d in range(c["size"]["days"]))), _days(c)),
    ]


def _sequential(c: Mapping[str, Any]) -> list[str]:
    if not c["sequential"]:
        return []
    head = ("Metric", "Arm", "Lift so far", "95% confidence sequence", "Always-valid p", "Always valid", "O'Brien-Fleming", "Pocock")
    rows = []
    for peek in c["sequential"]:
        last = peek["looks"][-1]
        stops = (f"day {day}" if day else "not yet" for day in peek["stop"].values())
        said = (percent(last["lift"]), interval(last["sequence_low"], last["sequence_high"]), probability(last["p"]))
        rows.append((title(peek["metric"]), text(peek["arm"]), *said, *stops))
    return ["## When one could have stopped", table(head, rows)]


def _funnel(c: Mapping[str, Any]) -> list[str]:
    rows = ((title(step["step"]), *(whole(step["counts"][arm]) for arm in c["arms"])) for step in c["funnel"])
    return ["## Funnel", table(("Step", *map(text, c["arms"])), rows)] if c["funnel"] else []


def _spread(c: Mapping[str, Any]) -> list[str]:
    head = ("Metric", "Arm", "Mean", "Zeros", *(f"{q:.0%}" for q in QUANTILES), "Max")
    rows = (
        (
            title(r["metric"]),
            text(r["arm"]),
            number(r["mean"]),
            percent(r["zeros"], 1, False),
            *map(number, r["quantiles"]),
            number(r["max"]),
        )
        for r in c["distributions"]
    )
    return ["## Distributions over units", table(head, rows)]


def _segments(c: Mapping[str, Any]) -> list[str]:
    if not c["segments"]:
        return []
    tests = {(t["group"], t["metric"], t["arm"]): t["p_adjusted"] for t in c["segments"]["interactions"]}
    head = ("Group", "Level", "Metric", "Arm", "Lift", "95% interval", "Adjusted p", "Units", "Do levels differ? Adjusted p")
    rows = (
        (text(r["group"]), text(r["level"]), title(r["metric"]), text(r["arm"]), percent(r["lift"]), interval(r["low"], r["high"]),
         probability(r["p_adjusted"]), whole(r["n_units"]), probability(tests[r["group"], r["metric"], r["arm"]]))
        for r in c["segments"]["rows"]
    )  # fmt: skip
    return ["## Segments", text(c["segments"]["warning"]), table(head, rows)]


def _calibration(c: Mapping[str, Any]) -> list[str]:
    if not c["calibration"]:
        return []
    rows = sorted(c["calibration"]["rows"], key=lambda row: row["within"])
    lines = (
        (text(r["name"]), number(r["target"]), number(r["simulated"]), number(r["ratio"]), "yes" if r["within"] else "NO") for r in rows
    )
    said = f"Measured on {c['calibration']['basis']}; tolerance {c['calibration']['tolerance']:.0%}."
    return ["## Calibration of the world", text(said), table(("Marginal", "Target", "Simulated", "Ratio", "Within"), lines)]


def text(value: Any) -> str:
    """A name as Markdown that shows it literally."""
    result = " ".join(str(value).split())
    for sign in "\\`*_{}[]<>#|~":
        result = result.replace(sign, "&lt;" if sign == "<" else "&gt;" if sign == ">" else "\\" + sign)
    return result


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _verdict(c: Mapping[str, Any]) -> list[str]:
    blocks = []
    for said in c["headlines"]:
        rows = [(r, v) for r, v in zip(c["lifts"], c["verdicts"], strict=True) if r["arm"] == said["arm"] and r["unit"] == c["unit"]]
        head = ("", "Lift", "95% interval", "p", "Adjusted p", "Verdict", "Detects", text(c["control"]), text(said["arm"]), "Units")
        lines = (
            (SIGNS[v["verdict"]], f"**{percent(r['lift'])} {title(r['metric'])}**", interval(r["low"], r["high"]), probability(r["p"]),
             probability(r["p_adjusted"]), v["verdict"], detects(r["mde"]), number(r["control_mean"]), number(r["treatment_mean"]),
             whole(r["n_units"]))
            for r, v in rows
        )  # fmt: skip
        blocks += [f"## {text(said['sentence'])}", table(head, lines), "\n".join(f"- {text(v['sentence'])}" for _, v in rows)]
    return [
        *blocks,
        f"Adjusted p: Holm over {c['family']}. Detects: the smallest true lift that a run of this size finds four times in five.",
    ]


def _margins(c: Mapping[str, Any]) -> list[str]:
    if not c["margins"]:
        return []
    head = ("Asked", "Metric", "Arm", "Margin", "Lift", "95% interval", "p", "Adjusted p", "Answer")
    rows = (
        (r["kind"], title(r["metric"]), text(r["arm"]), percent(r["margin"], 2, False), percent(r["lift"]), interval(r["low"], r["high"]),
         probability(r["p"]), probability(r["p_adjusted"]), r["answer"])
        for r in c["margins"]
    )  # fmt: skip
    return ["## Guardrails and equivalence", table(head, rows), "\n".join(f"- {text(r['sentence'])}" for r in c["margins"])]


def _by_day(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        title(row["metric"]), text(row["arm"]), percent(row["lift"]), interval(row["low"], row["high"]),
        number(row["t"]), number(row["df"]), probability(row["p"]), probability(row["p_adjusted"]),
    )  # fmt: skip


def _days(c: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    lifts = {(row["metric"], row["arm"], row["day"]): row["lift"] for row in c["daily"]}
    for metric in c["metrics"]:
        for arm in c["arms"][1:]:
            yield (title(metric), text(arm), *(percent(lifts.get((metric, arm, day))) for day in range(c["size"]["days"])))


def _otherwise(c: Mapping[str, Any]) -> list[str]:
    head = ("Metric", "Arm", "t test p", "Ranks p", "Winsorised lift", "p", "Median lift", "p", "Ninth decile lift", "p")

    def cell(found: Mapping[str, Any] | None) -> tuple[str, str]:
        return ("n/a", "n/a") if found is None else (percent(found["lift"]), probability(found["p"]))

    rows = (
        (title(r["metric"]), text(r["arm"]), probability(r["p"]), probability(r["ranks"]), *cell(r["winsorised"]),
         *cell(r["quantiles"]["p50"]), *cell(r["quantiles"]["p90"]))
        for r in c["otherwise"]
    )  # fmt: skip
    return ["## Computed otherwise", table(head, rows)]


def _designs(c: Mapping[str, Any]) -> list[str]:
    blocks = []
    if c["designs"]:
        names = compared(c["designs"])
        rows = ((title(r["metric"]), text(r["arm"]), percent(r["lift"]), *(needed(r, name) for name in names)) for r in c["designs"])
        head = ("Metric", "Arm", "Lift found", *names.values())
        notes = {f"{names[name]}: {note}" for r in c["designs"] for name, note in r["notes"].items()}
        blocks += [
            "## Users that each design needs for the lift found",
            table(head, rows),
            "\n".join(f"- {text(n)}" for n in sorted(notes)),
        ]
    if c["preference"]:
        lines = (
            (title(r["metric"]), text(r["arm"]), whole(r["preferring"]), whole(r["against"]), whole(r["tied"]), probability(r["p_sign"]),
             probability(r["p"]))
            for r in c["preference"]
        )  # fmt: skip
        head = ("Metric", "Arm", "Prefer it", f"Prefer {text(c['control'])}", "Tied", "Sign test p", "t test p")
        blocks += ["## Preference within slates", table(head, lines)]
    return blocks


def _span(found: Mapping[str, Any] | None) -> str:
    return "n/a" if found is None else f"{percent(found['lift'])} ({interval(found['low'], found['high'])})"


def _worlds(c: Mapping[str, Any]) -> list[str]:
    if not c["worlds"]:
        return []
    names = list(c["worlds"][0]["lifts"])
    rows = (
        (
            title(row["metric"]),
            text(row["arm"]),
            *(_cell(row["lifts"].get(name)) for name in names),
            _span(row["all"]),
            AGREEMENTS[row["agree"]],
        )
        for row in c["worlds"]
    )
    return ["## The same arms in other worlds", table(("Metric", "Arm", *map(text, names), "Over all worlds", "Agreement"), rows)]


def _served(c: Mapping[str, Any]) -> list[str]:
    blocks = []
    if c["channels"]:
        shares = c["channels"]["shares"]
        rows = ((text(name), *(percent(shares[arm][i], 1, False) for arm in c["arms"])) for i, name in enumerate(c["channels"]["names"]))
        blocks += ["## Where the impressions came from", table(("Channel", *map(text, c["arms"])), rows)]
    if any(c["answered_by_log"].values()):
        shares = ", ".join(f"{text(arm)} {percent(share, 1, False)}" for arm, share in c["answered_by_log"].items())
        blocks.append(f"Impressions that the real log answered, in place of a model of users: {shares}.")
    if c["support"]:
        head = ("Arm", "Answered by the log", "Overlap with the log", "Items with few logged answers", "with none", "Users with none")
        figures = ("logged", "overlap", "thin", "never", "cold")
        blocks.append(table(head, ((text(r["arm"]), *(percent(r[f], 1, False) for f in figures)) for r in c["support"])))
    return blocks


def _published(c: Mapping[str, Any]) -> list[str]:
    if not c["published"]:
        return []
    rows = (
        (title(r["metric"]), text(r["arm"]), percent(r["published"]), percent(r["lift"]), interval(r["low"], r["high"]), whole(r["users"]))
        for r in c["published"]
    )
    return ["## Published beside ours", table(("Metric", "Arm", "Published", "Here", "95% interval", "Users needed to show it"), rows)]


def _checks(c: Mapping[str, Any]) -> list[str]:
    if not c["checks"]:
        return []
    rows = ((text(k["name"]), k["status"], text(k["value"]), text(k["meaning"])) for k in c["checks"])
    return ["## Checks", table(("Check", "Status", "Found", "What it means"), rows)]


def _audit(c: Mapping[str, Any]) -> list[str]:
    found = c["audit"]
    if not found:
        return []
    head = ("Metric", "Arm", "Analysis", "Users", "False positives", "Power", "Coverage", "Bias of the lift", "Holds")
    rows = (
        (title(r["metric"]), text(r["arm"]), text(r["analysis"]), whole(r["n"]), *(_rate(r[k]) for k in ("error", "power", "coverage")),
         percent(r["bias"]), "yes" if r["holds"] else "NO")
        for r in found["rows"]
    )  # fmt: skip
    wrong = ((text(w["analysis"]), title(w["metric"]), _rate(w["error"]), text(w["why"])) for w in found["wrong"])
    looks = ((title(r["rule"]), title(r["metric"]), r["design"], _rate(r["error"])) for r in found["looking"])
    other = found["beside"]
    return [
        "## Audit of the tests",
        f"{found['repetitions']:,} samples of each size from {found['n_users']:,} users; nominal: 5% false positives, 95% coverage.",
        table(head, rows),
        f"Printed beside the verdict: {other['held']} of {other['of']} rows hold.",
        "\n".join(f"- {text(w)}" for w in other["warnings"]),
        table(("Usual wrong analysis", "Metric", "False positives", "Why"), wrong),
        table(("Looking every day", "Metric", "Design", "False positives"), looks),
    ]


def _rate(rate: Mapping[str, float | None]) -> str:
    return percent(rate["value"], 1, False)


def _repeat(c: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items())
    blocks = ["## Repeat it"]
    if c["settings"]:
        blocks += [f"    {command(c)}", "with the scenario:", "\n".join("    " + line for line in settings(c).splitlines())]
    return [*blocks, f"Versions: {text(versions)}."] if versions else blocks


def comparison(content: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    names = list(content["runs"])
    head = ("Metric", "Arm", *map(text, names), "Agreement", "Differ? p", "Pooled")
    rows = (
        (title(row["metric"]), text(row["arm"]), *(_cell(row["lifts"].get(name)) for name in names), AGREEMENTS[row["agree"]],
         probability(row["differ"]), "n/a" if row["pooled"] is None else f"{percent(row['pooled'])} ({interval(row['low'], row['high'])})")
        for row in content["rows"]
    )  # fmt: skip
    differences = ((text(row["key"]), *(text(row["values"][name]) for name in names)) for row in content["differences"])
    runs = ((text(name), text(run["scenario"]), text(run["seed"]), text(run["control"])) for name, run in content["runs"].items())
    blocks = [
        f"# {len(names)} runs compared",
        table(("Run", "Scenario", "Seed", "Control"), runs),
        "\n".join(f"- {text(note)}" for note in content["notes"]),
        "## Lifts by user",
        table(head, rows),
        *_needed(content["designs"]),
        "## Settings that differ",
        table(("Key", *map(text, names)), differences),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _needed(designs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not designs:
        return []
    names = compared(designs)
    rows = (
        (title(r["metric"]), text(r["arm"]), *(f"{whole(r['users'].get(n))} for {percent(r['lifts'].get(n))}" for n in names))
        for r in designs
    )
    return ["## Users that each design needs on this world", table(("Metric", "Arm", *names.values()), rows)]


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["lift"] is None:
        return "n/a"
    return f"{SIGNS[cell['verdict']]} {percent(cell['lift'])} ({interval(cell['low'], cell['high'])})"
