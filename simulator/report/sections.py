"""The sections of a report, in the order of reading: from its content to the blocks that page and
Markdown show.

Every key of the content is shown by some section, and nothing is shown that is not in it: the three
files say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from simulator.designs.registry import DESIGNS
from simulator.page.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Heading,
    Legend,
    Multiples,
    Points,
    Section,
    Table,
    Words,
    plain,
)
from simulator.page.words import (
    AGREEMENTS,
    LIGHTS,
    MEANINGS,
    SIGNS,
    better,
    compared,
    corrected,
    detects,
    directions,
    errors_by_day,
    interval,
    listed,
    needed,
    number,
    percent,
    probability,
    stated,
    title,
    whole,
)
from simulator.report import plots
from simulator.report.spread import QUANTILES

Content = Mapping[str, Any]

LEVELS = {"none": 0, "low": 1, "middle": 2, "high": 3}
"""The order of levels that have one; others stay in the order of the alphabet."""

READING = (
    "A lift is the difference of the arm's mean from the control's, as a share of the size of the"
    " control's. A 95% interval of a lift covers the true one in 95 of 100 runs; an adjusted"
    " p-value below .05 would be seen on any of the comparisons in at most 5 of 100 runs in which"
    " nothing differs. The detectable lift is the true change that a run of this size finds in four"
    " of five runs."
)


def document(c: Content) -> Document:
    """The report of a gathered content."""
    name = c["scenario"] or "A/B report"
    return Document(
        title=f"{name}: {listed(c['arms'][1:])} against {c['control']}",
        kicker="A/B report",
        heading=c["scenario"] or "Unnamed scenario",
        about=str(c["settings"].get("description") or ""),
        facts=_facts(c),
        gates=list(_gates(c)),
        sections=[
            section
            for key, make in SECTIONS
            if (not key or c[key]) and (section := make(c)) is not None and section.blocks
        ],
        closing=READING,
    )


def _facts(c: Content) -> Facts:
    size = c["size"]
    items = [
        ("Control", c["control"]),
        ("Against it", listed(c["arms"][1:])),
        ("Design", f"{c['design']}: {DESIGNS[c['design']].words}"),
    ]
    items.append(
        (f"Clusters ({c['clusters']})" if c["clusters"] else "Users", whole(size["users"]))
    )
    if size["days"]:
        items += [
            ("Days", str(size["days"])),
            ("Items", whole(size["items"])),
            ("Impressions", whole(size["impressions"])),
        ]
    if c["seed"] is not None:
        items.append(("Seed", str(c["seed"])))
    return Facts(items)


def _gates(c: Content) -> Iterator[Gate]:
    """What must be read before the lifts: each red check whole, amber ones by name."""
    for check in c["checks"]:
        if check["status"] == "red":
            yield Gate("red", f"Red: {check['name']}.", f"{check['value']} {check['meaning']}")
    amber = [check["name"].lower() for check in c["checks"] if check["status"] == "amber"]
    if amber:
        which = f"of {len(c['checks'])} checks: {listed(amber)}."
        yield Gate("amber", f"{len(amber)} amber", which)
    elif c["checks"] and all(check["status"] == "green" for check in c["checks"]):
        yield Gate("green", f"All {len(c['checks'])} checks are green.")


def _shown(show: Callable[..., str], value: float | None, *how: Any, **more: Any) -> Cell:
    """A number as `show` writes it, sorted by its value."""
    return Cell(show(value, *how), value, **more)


def _lift(row: Mapping[str, Any], key: str = "lift", **more: Any) -> Cell:
    return _shown(percent, row[key], **more)


def _p(p: float | None) -> Cell:
    return _shown(probability, p)


def _interval(row: Mapping[str, Any], low: str = "low", high: str = "high") -> Cell:
    return Cell(interval(row[low], row[high]) if row["lift"] is not None else "n/a")


def _columns(*heads: str, text: int = 2) -> list[Column]:
    """Columns of which the first few are text and the others numbers."""
    return [Column(head, number=i >= text) for i, head in enumerate(heads)]


def _of(row: Mapping[str, Any]) -> tuple[Cell, Cell]:
    return plain(title(row["metric"])), plain(row["arm"])


def _legend(c: Content, first: int = 1) -> Legend:
    return Legend(list(enumerate(c["arms"]))[first:])


def _verdict(c: Content) -> Section:
    """The lifts of each arm under the sentence that sums them up: what is decided on."""
    strips, axis = plots.forests(c)
    columns = [
        Column("Metric"),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
        Column("Adjusted p", number=True, label="adjusted p"),
        Column("Verdict"),
        Column("Detects", number=True, label="detects"),
    ]
    blocks: list[Block] = []
    for i, (said, rows) in enumerate(_by_arm(c), 1):
        lines = []
        for row, verdict in rows:
            tone = plots.tone(c, row["metric"], verdict["verdict"])
            lines.append(
                (
                    Cell(title(row["metric"]), sign=SIGNS[verdict["verdict"]], kind=tone),
                    _lift(row, kind=f"lift {tone}"),
                    Cell(figure=strips[row["arm"], row["metric"]]),
                    _interval(row),
                    _p(row["p_adjusted"]),
                    Cell(
                        _stated(c, verdict),
                        kind=f"verdict {tone}",
                        hint=MEANINGS[verdict["verdict"]],
                    ),
                    _shown(detects, row["mde"]),
                )
            )
        blocks += [
            Heading(said["sentence"], loud=True, id=f"arm-{i}"),
            Table(said["sentence"], columns, lines, kind="forest", foot=axis),
        ]
    note = (
        f"Per {c['unit']}; lift over the control with its 95% interval. Adjusted p: {corrected(c)}."
        " Detects: the smallest true lift that a run of this size calls up or down four times in"
        " five, after the adjustment. ▲ higher and ▼ lower than the control after adjustment; ○"
        " undecided: a difference is neither shown nor excluded; = identical. An arrow at the end"
        " of an interval: it goes on beyond the scale."
    )
    notes = [Words(text, note=True) for text in (note, *directions(c["metrics"]))]
    return Section("verdict", "Verdict", [*blocks, *notes], "Verdict", bare=True)


def _stated(c: Content, verdict: Mapping[str, Any]) -> str:
    return stated(verdict["verdict"], c["metrics"][verdict["metric"]]["higher_is_better"])


def _by_arm(
    c: Content,
) -> Iterator[tuple[dict[str, Any], list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Headline and rows, each with its verdict, of every arm."""
    pairs = [
        pair for pair in zip(c["lifts"], c["verdicts"], strict=True) if pair[0]["unit"] == c["unit"]
    ]
    for said in c["headlines"]:
        yield said, [pair for pair in pairs if pair[0]["arm"] == said["arm"]]


def _words(c: Content) -> Section:
    blocks: list[Block] = []
    for said, rows in _by_arm(c):
        blocks += [
            Heading(f"{said['arm']} against {c['control']}"),
            Points([(SIGNS[verdict["verdict"]], verdict["sentence"]) for _, verdict in rows]),
        ]
    return Section("words", "In words", blocks, "In words")


def _margins(c: Content) -> Section:
    note = (
        "A guardrail is safe where it is shown not to lose its margin (non-inferiority), harmed"
        " where it is shown to lose more. Equivalent: two one-sided tests show the lift to lie"
        " within the margin. Not shown is not a fault of the arm: the test is too small. Adjusted"
        " p: Holm over all guardrails, and over all equivalences. The interval is the test's own:"
        " it holds the margin where the one-sided test at 5% does not reject it, before adjustment."
    )
    tones = {"safe": "good", "equivalent": "good", "harmed": "bad"}
    rows = []
    for row in c["margins"]:
        asked = (
            plain(row["kind"]),
            plain(better(c["metrics"][row["metric"]])),
            _shown(percent, row["margin"], 2, False),
        )
        within = plain("n/a" if row["answer"] == "no data" else interval(row["low"], row["high"]))
        answer = Cell(row["answer"], kind=tones.get(row["answer"], "open"))
        rows.append(
            (*_of(row), *asked, _lift(row), within, _p(row["p"]), _p(row["p_adjusted"]), answer)
        )
    level = f"{c['margins'][0]['level']:.0%} interval"
    heads = _columns(
        "Metric", "Arm", "Asked", "Direction", "Margin", "Lift", level, "p", "Adjusted p", text=4
    )
    table = Table("Guardrails and equivalence", [*heads, Column("Answer")], rows)
    signs = {"safe": "✓", "equivalent": SIGNS["identical"], "harmed": "✗"}
    said = Points(
        [(signs.get(row["answer"], SIGNS["undecided"]), row["sentence"]) for row in c["margins"]]
    )
    return Section(
        "margins", "Guardrails and equivalence", [Words(note, note=True), table, said], "Guardrails"
    )


def _days(c: Content) -> Section:
    note = (
        "Each day alone, per user, with 95% intervals that are not adjusted for looking at several"
        " days. A lift that fades or grows is a novelty or a learning effect."
    )
    figures = plots.daily(c)
    same = [
        title(name).lower()
        for name in c["metrics"]
        if name not in {metric for metric, _ in figures}
    ]
    rows = [
        (*_of(row), plain(row["day"] + 1, row["day"]), _shown(number, row["control_mean"]),
         _shown(number, row["treatment_mean"]), _lift(row), _interval(row), _p(row["p"]),
         _shown(whole, row["n_units"]))
        for row in c["daily"]
        if row["lift"] is not None
    ]  # fmt: skip
    columns = _columns(
        "Metric", "Arm", "Day", c["control"], "Arm's mean", "Lift", "95% interval", "p", "Units"
    )
    blocks: list[Block] = [
        Words(note, note=True),
        _legend(c),
        Multiples([(title(metric), figure) for metric, figure in figures]),
    ]
    if same:
        blocks.append(Words(f"Without any difference on any day: {listed(same)}.", note=True))
    return Section(
        "days",
        "Lift by day",
        [*blocks, Fold("The same as a table", [Table("Lift by day", columns, rows)], screen=True)],
        "By day",
    )


RULES = {"always_valid": "Always valid", "obrien_fleming": "O'Brien-Fleming", "pocock": "Pocock"}
"""The stopping rules that are shown (fields of `sequential.Look`)."""


def _sequential(c: Content) -> Section:
    note = (
        "All days up to each day, with a 95% confidence sequence: unlike an ordinary interval it"
        " may be looked at every day, and the whole of it covers the true lift in 95 of 100 runs."
        " It is wider; that is the price of peeking."
    )
    rows, looks = [], []
    for peek in c["sequential"]:
        last = peek["looks"][-1]
        stops = (
            Cell(f"day {day}" if day else "not yet", day)
            for day in (peek["stop"][rule] for rule in RULES)
        )
        rows.append(
            (
                *_of(peek),
                _lift(last),
                _interval(last, "sequence_low", "sequence_high"),
                _p(last["p"]),
                *stops,
            )
        )
        for look in peek["looks"]:
            numbers = (_shown(number, look[key]) for key in ("t", *RULES))
            intervals = (_interval(look), _interval(look, "sequence_low", "sequence_high"))
            looks.append(
                (
                    *_of(peek),
                    _shown(str, look["day"]),
                    _lift(look),
                    *intervals,
                    _p(look["p"]),
                    *numbers,
                )
            )
    caption = (
        "The first day on which each rule, fixed beforehand, would have stopped with a difference"
        " shown in that metric alone (level 5%, a look every day)."
    )
    stopping = Table(
        "When one could have stopped",
        _columns(
            "Metric",
            "Arm",
            "Lift at the end",
            "Confidence sequence",
            "Always-valid p",
            *RULES.values(),
        ),
        rows,
        caption=caption,
        id="stopping",
    )
    every = Table(
        "Every look",
        _columns(
            "Metric",
            "Arm",
            "After day",
            "Lift so far",
            "Interval for one look",
            "Confidence sequence",
            "Always-valid p",
            "t",
            *(f"{rule}: stop beyond" for rule in RULES.values()),
        ),
        looks,
    )
    figures = Multiples([(title(metric), figure) for metric, figure in plots.so_far(c)])
    blocks: list[Block] = [
        Words(note, note=True),
        _legend(c),
        figures,
        stopping,
        Fold("Every day's look as a table", [every], screen=True),
    ]
    return Section("sequential", "Lift so far, and when one could have stopped", blocks, "So far")


def _funnel(c: Content) -> Section:
    arms, steps = c["arms"], plots.funnel(c)
    note = (
        "Totals of the run; the last columns say how much more or less each user does than under"
        f" {c['control']}. Bars are per impression; the steps below the rule are rarer and have a"
        " scale of their own."
    )
    columns = [
        Column("Step"),
        Column("Bars", figure=True, sorts=False),
        *(Column(arm, number=True) for arm in arms),
        Column("per 1,000 impressions", number=True),
        *(Column(f"{arm}, per user", number=True) for arm in arms[1:]),
    ]
    rows = [
        (
            plain(title(step["step"])),
            Cell(figure=step["figure"]),
            *(plain(whole(step["counts"][arm])) for arm in arms),
            Cell(lines=tuple(number(step["per_1000"][arm]) for arm in arms)),
            *(plain(percent(step["change"][arm], 2)) for arm in arms[1:]),
        )
        for step in steps
    ]
    rules = frozenset(
        i for i in range(1, len(steps)) if steps[i]["rare"] and not steps[i - 1]["rare"]
    )
    table = Table("Funnel of each arm", columns, rows, kind="funnel", sortable=False, rules=rules)
    users = Words(
        "Users in each arm, those who never came included:"
        f" {', '.join(f'{arm} {whole(n)}' for arm, n in c['units'].items())}."
    )
    return Section(
        "funnel", "Funnel", [Words(note, note=True), users, _legend(c, 0), table], "Funnel"
    )


def _spread(c: Content) -> Section:
    note = (
        "How a metric is spread over the users of each arm: the thin line from the 5% to the 95%"
        " quantile, the thick one over the middle half, a tick at the median, a dot at the mean."
    )
    columns = [
        Column("Metric"),
        Column("Figure", figure=True, sorts=False),
        Column("Arm"),
        Column("Mean", number=True),
        Column("Zeros", number=True),
        *(Column(f"{q:.0%}", number=True) for q in QUANTILES),
        Column("Max", number=True),
        Column("Units", number=True),
    ]
    rows: list[Sequence[Cell]] = []
    rules = set()
    for metric in c["metrics"]:
        mine = [row for row in c["distributions"] if row["metric"] == metric]
        rules.add(len(rows))
        for i, row in enumerate(mine):
            first, figure = (Cell(title(metric), span=0), Cell(span=0))
            if i == 0:
                first, figure = (
                    Cell(title(metric), span=len(mine)),
                    Cell(figure=plots.spread(mine), span=len(mine)),
                )
            quantiles = (plain(number(q)) for q in row["quantiles"])
            shown = (
                plain(number(row["mean"])),
                plain(percent(row["zeros"], 1, False)),
                *quantiles,
                plain(number(row["max"])),
            )
            rows.append(
                (
                    first,
                    figure,
                    Cell(row["arm"], kind=f"arm-{c['arms'].index(row['arm']) % 6}"),
                    *shown,
                    plain(whole(row["n"])),
                )
            )
    table = Table(
        "Distribution of each metric",
        columns,
        rows,
        kind="spread",
        sortable=False,
        rules=frozenset(rules - {0}),
    )
    return Section(
        "spread", "Distributions", [Words(note, note=True), _legend(c, 0), table], "Distributions"
    )


def _segments(c: Content) -> Section:
    """For each group of users a line for each metric and arm: the lift in every level and the
    interaction test.
    """
    note = (
        "Below each lift its 95% interval, and p adjusted by Holm over all segments, metrics and"
        " arms."
    )
    blocks: list[Block] = [
        Words(c["segments"]["warning"], lead="A warning."),
        Words(note, note=True),
    ]
    for group in dict.fromkeys(row["group"] for row in c["segments"]["rows"]):
        cells = {
            (row["metric"], row["arm"], row["level"]): row
            for row in c["segments"]["rows"]
            if row["group"] == group
        }
        levels = sorted(
            dict.fromkeys(level for _, _, level in cells), key=lambda level: LEVELS.get(level, 0)
        )
        rows = []
        for test in c["segments"]["interactions"]:
            if test["group"] == group:
                found = (cells.get((test["metric"], test["arm"], level)) for level in levels)
                rows.append(
                    (
                        *_of(test),
                        *(Cell("n/a", None) if row is None else _within(row) for row in found),
                        _p(test["p_adjusted"]),
                    )
                )
        heads = (
            *(f"{level} ({_sizes(cells, level)} users)" for level in levels),
            "Do they differ? Adjusted p",
        )
        blocks += [
            Heading(f"By {title(group).lower()}"),
            Table(f"Lift by {group}", _columns("Metric", "Arm", *heads), rows),
        ]
    return Section("segments", "Segments", blocks, "Segments")


def _sizes(cells: Mapping[tuple[str, str, str], Mapping[str, Any]], level: str) -> str:
    """The users of a level who are compared: of each pair of arms, or once where all pairs have as
    many.
    """
    by_arm: dict[str, int] = {}
    for (_, arm, at), row in cells.items():
        if at == level:
            by_arm[arm] = max(by_arm.get(arm, 0), row["n_units"])
    if len(set(by_arm.values())) == 1:
        return whole(next(iter(by_arm.values())))
    return ", ".join(f"{arm} {whole(n)}" for arm, n in by_arm.items())


def _within(row: Mapping[str, Any]) -> Cell:
    """The lift in a segment, its interval and adjusted p below."""
    if row["lift"] is None:
        return Cell("n/a", None)
    return _lift(
        row, under=f"{interval(row['low'], row['high'], 1)}; p {probability(row['p_adjusted'])}"
    )


FIGURES: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("control_mean", "", number),
    ("treatment_mean", "Arm's mean", number),
    ("lift", "Lift", percent),
    ("low", "Low", percent),
    ("high", "High", percent),
    ("t", "t", number),
    ("df", "df", number),
    ("p", "p", probability),
    ("p_adjusted", "Adjusted p", probability),
    ("n_units", "Units", whole),
    ("mde", "Detects", detects),
)
"""The figures of a row of `lifts`: key, head (that of the control's mean is its name), and how it
is shown.
"""


def _all(row: Mapping[str, Any]) -> Iterator[Cell]:
    for key, _, show in FIGURES:
        open_end = key in ("low", "high") and row[key] is None and row["lift"] is not None
        yield Cell("unbounded" if open_end else show(row[key]), row[key])


def _numbers(c: Content) -> Section:
    heads = [head or c["control"] for _, head, _ in FIGURES]
    how = "paired across arms" if c["paired"] else "compared between arms"
    blocks: list[Block] = [Words(f"By user: the unit is a user, {how}. {_chosen(c)}", note=True)]
    if c["adjusted"]:
        said = (
            "Adjusted for the pre-period of the same user (CUPED):"
            f" {listed([title(m).lower() for m in c['adjusted']])}. The same "
        )
        blocks.append(Words(f"{said}without adjustment stands below.", note=True))
    shown = [row for row in c["lifts"] if row["unit"] == c["unit"] or row["unit"] == "user"]
    units = len({row["unit"] for row in shown}) > 1
    rows = [(*_of(row), *([plain(row["unit"])] if units else []), *_all(row)) for row in shown]
    columns = _columns("Metric", "Arm", *(["Unit"] if units else []), *heads, text=2 + units)
    blocks.append(Table("All numbers", columns, rows, id="lifts"))
    described = [
        (title(name), f"{metric['description']} ({better(metric)})")
        for name, metric in c["metrics"].items()
    ]
    blocks.append(Fold("What each metric is", [Facts(described)]))
    if c["beside"]:
        rows = [(*_of(row), *_all(row)) for row in c["beside"]["rows"]]
        blocks += [
            Heading(c["beside"]["title"]),
            Table(c["beside"]["title"], _columns("Metric", "Arm", *heads), rows, id="beside"),
        ]
    return Section("numbers", "All numbers", blocks, "All numbers")


def _chosen(c: Content) -> str:
    chosen = c["choices"]
    names = {
        "fieller": "Fieller's theorem",
        "log": "the delta method on the logarithm",
        "delta": "the delta method",
    }
    return (
        f"Intervals of the relative lift by {names[chosen['interval']]}; adjusted p:"
        f" {corrected(c)}."
    )


def _paper(c: Content) -> Section | None:
    """The day x arm table that papers print."""
    rows = [(*_of(row), *_all(row)) for row in c["lifts"] if row["unit"] == "day"]
    if not rows or c["unit"] == "day":
        return None
    days = c["size"]["days"]
    note = (
        f"The unit is a day, paired across arms, with t({days - 1}): the kind of table that the"
        f" paper prints. {errors_by_day(c['audit'], c['paired'])} The verdict rests on the users."
    )
    heads = [head or c["control"] for _, head, _ in FIGURES]
    table = Table(
        "By day, as in the paper", _columns("Metric", "Arm", *heads), rows, id="paper-table"
    )
    return Section(
        "paper", "By day, as in the paper", [Words(note, note=True), table], "As in the paper"
    )


def _otherwise(c: Content) -> Section:
    """Whether the verdict hangs on the method: p of each, and the lifts and intervals of each."""
    found = c["otherwise"]
    tested = list(dict.fromkeys(row["method"] for row in found if row["p"] is not None))
    p = {(row["metric"], row["arm"], row["method"]): row["p"] for row in found}
    pairs = list(dict.fromkeys((row["metric"], row["arm"]) for row in found))
    rows = [
        (plain(title(metric)), plain(arm), *(_p(p.get((metric, arm, method))) for method in tested))
        for metric, arm in pairs
    ]
    caption = (
        "Whether the verdict hangs on the method: p of each, none of them adjusted for several"
        " metrics. Ranks test another hypothesis than equal means. n/a: not asked, or not to be had"
        " (the reason stands in the table below)."
        + (
            " The verdict is adjusted for the pre-period where there is one, the other methods are"
            " not."
            if c["adjusted"]
            else ""
        )
    )
    lifts = [
        (
            *_of(row),
            plain(row["method"]),
            _lift(row),
            _interval(row),
            _p(row["p"]),
            plain(row["note"]),
        )
        for row in found
    ]
    every = Table(
        "Lift by each method",
        [*_columns("Metric", "Arm", "Method", "Lift", "95% interval", "p", text=3), Column("Note")],
        lifts,
    )
    blocks = [
        Table(
            "Computed otherwise",
            _columns("Metric", "Arm", *tested),
            rows,
            caption=caption,
            id="otherwise",
        )
    ]
    return Section(
        "otherwise",
        "Computed otherwise",
        [*blocks, Fold("Lift and interval by each method", [every], screen=True)],
        "Otherwise",
    )


def _power(c: Content) -> Section:
    names = compared(c["power"])
    caption = (
        "To find a true lift four times in five after the adjustment of this report, as the only"
        " one among its comparisons. Paired: the same users in both arms; split: all users of two"
        " equal arms; CUPED: split, adjusted for each user's past."
    )
    rows = [
        (
            *_of(row),
            plain("published" if row["published"] else "round figure"),
            _lift(row),
            *_needs(row, names),
        )
        for row in c["power"]
    ]
    columns = _columns("Metric", "Arm", "From", "Lift to find", *names.values(), text=3)
    said = []
    for row in c["power"]:
        if not row["published"]:
            continue
        users = [
            f"{needed(row, name)} users ({shown[0].lower()}{shown[1:]})"
            for name, shown in names.items()
        ]
        sentence = (
            f"To see the published {percent(row['lift'])} {title(row['metric']).lower()} of"
            f" {row['arm']} you would need {listed(users, 'or')}."
        )
        said.append(("○", sentence))
    blocks: list[Block] = [Table("Users needed", columns, rows, caption=caption, id="power")]
    return Section(
        "needed", "Users needed", [*blocks, Points(said)] if said else blocks, "Users needed"
    )


def _needs(row: Mapping[str, Any], names: Iterable[str]) -> Iterator[Cell]:
    for name in names:
        yield Cell(
            needed(row, name), row["users"].get(name), hint=row.get("notes", {}).get(name, "")
        )


def _designs(c: Content) -> Section:
    names = compared(c["designs"])
    caption = (
        "Users that each design would need, on the same world, to find this difference of credits"
        " four times in five, after the adjustment. A preference within one slate is not the lift"
        " of a whole feed; abtest compare puts it beside a paired run of the same scenario."
        if DESIGNS[c["design"]].shares_slates
        else (
            "Users that each design would need, on the same world, to find the lift found here four"
            " times in five, after the adjustment. A paired run knows both answers of every user,"
            " so every design that serves whole feeds can be tried on it; how interleaving does is"
            " told by abtest compare with an interleaved run of the same scenario."
        )
    )
    rows = [(*_of(row), _lift(row), *_needs(row, names)) for row in c["designs"]]
    table = Table(
        "Users needed by each design",
        _columns("Metric", "Arm", "Lift", *names.values()),
        rows,
        caption=caption,
        id="designs",
    )
    notes = sorted(
        {f"{names[name]}: {note}." for row in c["designs"] for name, note in row["notes"].items()}
    )
    return Section(
        "designs",
        "Designs compared",
        [table, *(Words(note, note=True) for note in notes)],
        "Designs",
    )


def _preference(c: Content) -> Section:
    caption = (
        "Team-draft interleaving: each credit goes to the arm that drafted the item. Users who"
        " credited the arm more, less, and equally; the share of the former two that prefer it,"
        " with its interval; half of the ties given to each side, less a half; p of the sign test"
        " and of the paired t test."
    )
    rows = []
    for row in c["preference"]:
        wins = row["wins"]
        counts = (_shown(whole, row[key]) for key in ("preferring", "against", "tied"))
        shares = (
            _shown(percent, wins["value"], 1, False),
            plain(interval(wins["low"], wins["high"], 1, sign=False)),
        )
        tests = (
            _p(row["p_sign"]),
            _shown(number, row["t"]),
            _shown(number, row["df"]),
            _p(row["p"]),
        )
        rows.append((*_of(row), *counts, *shares, _shown(percent, row["share"], 1), *tests))
    heads = (
        "Prefer it",
        f"Prefer {c['control']}",
        "Tied",
        "Share",
        "95% interval",
        "Margin",
        "Sign test, p",
        "t",
        "df",
        "t test, p",
    )
    table = Table(
        "Preference within slates",
        _columns("Metric", "Arm", *heads),
        rows,
        caption=caption,
        id="preference",
    )
    return Section("preferred", "Preference within slates", [table], "Preference")


def _published(c: Content) -> Section:
    caption = (
        "Published lifts come from another system, its users and its days; a simulated world is not"
        " expected to repeat them."
    )
    rows = [
        (*_of(row), _shown(percent, row["published"]), _lift(row), _interval(row),
         plain({True: "yes", False: "no", None: "n/a"}[row["inside"]]), _shown(whole, row["users"]))
        for row in c["published"]
    ]  # fmt: skip
    columns = [
        *_columns("Metric", "Arm", "Published", "Here", "95% interval"),
        Column("Published within it"),
    ]
    table = Table(
        "Published figures",
        [*columns, Column("Users needed to show it", number=True)],
        rows,
        caption=caption,
        id="published-table",
    )
    return Section("published", "Published beside ours", [table], "Published")


def across(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The lift of each arm and metric in each of several worlds or runs (rows of
    `world.across`).
    """
    names = list(rows[0]["lifts"])
    over = any("all" in row for row in rows)
    tones = {"same sign": "good", "opposite": "bad"}
    lines = []
    for row in rows:
        cells = [_signed(row["lifts"].get(name)) for name in names]
        if over:
            cells.append(
                Cell("n/a", None)
                if not row.get("all")
                else _lift(row["all"], under=interval(row["all"]["low"], row["all"]["high"]))
            )
        lines.append(
            (
                *_of(row),
                *cells,
                Cell(AGREEMENTS[row["agree"]], kind=tones.get(row["agree"], "open")),
            )
        )
    heads = [*names, *(["Over all worlds"] if over else [])]
    return Table(
        "Lift by world or run",
        [*_columns("Metric", "Arm", *heads), Column("Agreement")],
        lines,
        kind="across",
    )


def _signed(cell: Mapping[str, Any] | None) -> Cell:
    if cell is None or cell["lift"] is None:
        return Cell("n/a", None)
    return Cell(
        f"{SIGNS[cell['verdict']]} {percent(cell['lift'])}",
        cell["lift"],
        under=interval(cell["low"], cell["high"]),
    )


def _worlds(c: Content) -> Section:
    said = (
        "A policy may win because it shares its assumptions with the simulated users. A lift that"
        " keeps its sign among users of another kind does not. The lift over all worlds has an"
        " interval that includes what they disagree about."
    )
    return Section(
        "worlds", "The same arms in other worlds", [Words(said), across(c["worlds"])], "Worlds"
    )


def _offline(c: Content) -> Section:
    blocks: list[Block] = []
    if c["offline"]:
        said = (
            "What a replay of this run's log says of the policies: estimated value per impression"
            " with its 95% interval, the logging policy's own value, and whether the estimate may"
            " be believed."
        )
        rows = [
            (
                plain(row["policy"]),
                plain(row["arm"] or "no arm"),
                plain(title(row["reward"])),
                plain(row["estimator"]),
                _shown(number, row["value"]),
                plain(f"{number(row['low'])} to {number(row['high'])}"),
                _shown(number, row["logged"]),
                _shown(percent, row["online"]),
                plain(
                    ": ".join(
                        part
                        for part in (row["verdict"] or "n/a", "; ".join(row["reasons"]))
                        if part
                    )
                ),
            )
            for row in c["offline"]
        ]
        heads = _columns(
            "Policy",
            "Arm",
            "Reward",
            "Estimator",
            "Estimate",
            "95% interval",
            "Logged",
            "Online lift",
            text=4,
        )
        blocks += [
            Words(said),
            Table("Offline estimates", [*heads, Column("May one believe it?")], rows),
        ]
    if c["foretold"]:
        said = (
            "Offline figures of the same arms, from the history's last days, and how well each"
            " figure foretells the online lift over all policies that abtest fidelity has tried:"
            " rank correlation, and share of pairs in the right order."
        )
        figures = [
            (
                plain(row["figure"]),
                plain(row["arm"]),
                plain(title(row["reward"])),
                _shown(number, row["control"]),
                _shown(number, row["value"]),
                _shown(percent, row["online"]),
                _shown(number, row["rho"]),
                _shown(percent, row["ordered"], 0, False),
            )
            for row in c["foretold"]
        ]
        heads = _columns(
            "Offline figure",
            "Arm",
            "Reward",
            c["control"],
            "Arm's figure",
            "Online lift",
            "Rank correlation",
            "In order",
            text=3,
        )
        blocks += [Words(said), Table("Offline figures", heads, figures)]
    return Section(
        "offline", "Offline figures and estimates beside the online lift", blocks, "Offline"
    )


def _served(c: Content) -> Section:
    blocks: list[Block] = []
    if c["channels"]:
        shares = c["channels"]["shares"]
        rows = [
            (plain(name), *(plain(percent(shares[arm][i], 1, False)) for arm in c["arms"]))
            for i, name in enumerate(c["channels"]["names"])
        ]
        said = (
            "Only part of each slate came from the policy under test; the rest came from recall"
            " channels that all arms share. The smaller the tested share, the smaller an online"
            " lift can be."
        )
        table = Table(
            "Share of impressions by recall channel",
            _columns("Channel", *c["arms"], text=1),
            rows,
            sortable=False,
        )
        blocks += [Words(said), table]
    if any(c["answered_by_log"].values()):
        answered = ", ".join(
            f"{arm} {percent(c['answered_by_log'][arm], 1, False)}" for arm in c["arms"]
        )
        blocks.append(
            Words(
                f"Impressions that the real log answered, in place of a model of users: {answered}."
            )
        )
    if c["support"]:
        said = (
            "A model answers best where it has data. An arm that shows items of which little was"
            " logged is judged by a guess, and may win by it. Shares are of its impressions."
        )
        keys = ("logged", "overlap", "thin", "never", "cold")
        rows = [
            (
                plain(row["arm"]),
                *(plain(percent(row[key], 1, False)) for key in keys),
                plain(whole(row["items"])),
                plain(percent(row["top"], 1, False)),
            )
            for row in c["support"]
        ]
        heads = (
            "Answered by the log",
            "Overlap with the log",
            "Items with few logged answers",
            "Items with none",
            "Users with none",
            "Items shown",
            "On the top 1%",
        )
        table = Table(
            "Support of each arm in the log",
            _columns("Arm", *heads, text=1),
            rows,
            id="support",
            sortable=False,
        )
        blocks += [Words(said), table]
    return Section("served", "What was served, and who answered", blocks, "Served")


def _calibration(c: Content) -> Section:
    found = c["calibration"]
    said = (
        "What the simulated users do, against what real ones are known to do. "
        f"Measured on {found['basis']}; tolerance {percent(found['tolerance'], 0, False)}."
    )
    columns = _columns(
        "Marginal", "Target", "Simulated", "Standard error", "Simulated / target", text=1
    )
    blocks: list[Block] = [Words(said)]
    for within in (False, True):
        rows = [
            (Cell(row["name"], sign="✓" if within else "✗", kind="good" if within else "bad"),
             *(_shown(number, row[key]) for key in ("target", "simulated", "se", "ratio")))
            for row in found["rows"]
            if row["within"] == within
        ]  # fmt: skip
        if rows:
            summary = (
                f"{len(rows)} of {len(found['rows'])} marginals {'within' if within else 'out of'}"
                " tolerance"
            )
            blocks.append(Fold(summary, [Table("Calibration", columns, rows)], open=not within))
    return Section("calibration", "Calibration of the world", blocks, "Calibration")


def _checks(c: Content) -> Section:
    rows = [
        (
            plain(check["name"]),
            Cell(f"{LIGHTS[check['status']]} {check['status']}", kind=f"status {check['status']}"),
            plain(check["value"]),
            plain(check["meaning"]),
        )
        for check in c["checks"]
    ]
    columns = [Column("Check"), Column("Status"), Column("Found"), Column("What it means")]
    return Section(
        "checks",
        "Checks",
        [Table("Checks", columns, rows, kind="checks", sortable=False)],
        "Checks",
    )


def _audit(c: Content) -> Section:
    found = c["audit"]
    note = (
        "This run knows both answers of every user, so the assignment can be drawn anew:"
        f" {whole(found['repetitions'])} samples of each size from {whole(found['n_users'])} users."
        " False positives where both arms answer alike (nominal 5%), power for what was there, how"
        " often the 95% interval holds the true lift, and the mean error of the lift. Of what is"
        f" printed beside the verdict, {found['beside']['held']} of {found['beside']['of']} rows"
        " hold."
    )
    rows = [
        (
            *_of(row),
            plain(row["analysis"]),
            _shown(whole, row["n"]),
            *(_rate(row[k]) for k in ("error", "power", "coverage")),
            _lift(row, "bias"),
            _lift(row),
            Cell("yes" if row["holds"] else "no", kind="good" if row["holds"] else "bad"),
        )
        for row in found["rows"]
    ]
    heads = _columns(
        "Metric",
        "Arm",
        "Analysis",
        "Users",
        "False positives",
        "Power",
        "Coverage",
        "Bias",
        "True lift",
        text=3,
    )
    blocks: list[Block] = [
        Words(note, note=True),
        Table("Audit of the tests", [*heads, Column("Holds")], rows),
    ]
    for summary, warnings in (
        ("What the verdict rests on and does not hold", found["warnings"]),
        ("What is printed beside the verdict and does not hold", found["beside"]["warnings"]),
    ):
        if warnings:
            blocks.append(
                Fold(
                    f"{summary} ({len(warnings)})",
                    [Points([("▲", warning) for warning in warnings])],
                )
            )
    wrong = [
        (
            plain(row["analysis"]),
            plain(title(row["metric"])),
            plain(row["why"]),
            _rate(row["error"]),
        )
        for row in found["wrong"]
    ]
    columns = _columns("Analysis", "Metric", "What is wrong", "False positives", text=3)
    blocks += [
        Heading("What the usual wrong analyses would have done"),
        Table("Usual wrong analyses", columns, wrong),
    ]
    if found["looking"]:
        looks = [
            (
                plain(title(row["rule"])),
                plain(title(row["metric"])),
                plain(row["design"]),
                _rate(row["error"]),
            )
            for row in found["looking"]
        ]
        columns = _columns("Rule", "Metric", "Design", "False positives", text=3)
        blocks += [
            Heading("Looking at the end of every day"),
            Table("Looking every day", columns, looks),
        ]
    return Section("audit", "Audit of the tests", blocks, "Audit")


def _rate(rate: Mapping[str, float | None]) -> Cell:
    """A share of samples with its Monte-Carlo interval."""
    within = (
        ""
        if rate["value"] is None
        else f"{percent(rate['low'], 1, False)} to {percent(rate['high'], 1, False)}"
    )
    return _shown(percent, rate["value"], 1, False, under=within)


def _uses(c: Content) -> Section:
    note = (
        "What each column of the table was taken for, and how it was read. Only metrics are tested;"
        " nothing else of the table is."
    )
    rows = [(plain(use["column"]), plain(use["role"]), plain(use["note"])) for use in c["columns"]]
    table = Table("Columns", _columns("Column", "Taken for", "How, or why", text=3), rows)
    return Section("columns", "Columns of the table", [Words(note, note=True), table], "Columns")


def _repeat(c: Content) -> Section:
    blocks: list[Block] = []
    if c["settings"]:
        blocks += [
            Words(
                "The same scenario and seed give the same log, byte for byte. Save the scenario"
                " below and run:"
            ),
            Code(c["command"] or "abtest run scenario.yaml"),
            Fold("Scenario, resolved", [Code(settings(c))], open=True),
        ]
    elif c["size"]["days"]:
        blocks.append(Words("The log carries no scenario: it was not written by abtest run."))
    else:
        blocks.append(Words("Made by abtest report from a table of users."))
        if c["command"]:
            blocks.append(Code(c["command"]))
    if c["versions"]:
        blocks.append(
            Words(
                "Versions:"
                f" {', '.join(f'{name} {version}' for name, version in c['versions'].items())}.",
                note=True,
            )
        )
    if c["notes"]:
        blocks += [
            Heading("Notes that the log carries"),
            Facts([(name, str(value)) for name, value in c["notes"].items()]),
        ]
    if c["runtime"]:
        times = [
            (title(k), number(v) if isinstance(v, (int, float)) else str(v))
            for k, v in c["runtime"].items()
        ]
        blocks += [Heading("Run time"), Facts(times)]
    blocks.append(Words(f"Schema of report.json: {c['schema']}.", note=True))
    return Section("repeat", "Repeat it", blocks, "Repeat it")


SECTIONS: tuple[tuple[str, Callable[[Content], Section | None]], ...] = (
    ("headlines", _verdict),
    ("headlines", _words),
    ("margins", _margins),
    ("checks", _checks),
    ("lifts", _paper),
    ("daily", _days),
    ("sequential", _sequential),
    ("funnel", _funnel),
    ("distributions", _spread),
    ("segments", _segments),
    ("lifts", _numbers),
    ("otherwise", _otherwise),
    ("power", _power),
    ("designs", _designs),
    ("preference", _preference),
    ("published", _published),
    ("worlds", _worlds),
    ("", _offline),
    ("", _served),
    ("calibration", _calibration),
    ("audit", _audit),
    ("columns", _uses),
    ("", _repeat),
)
"""Every section in the order of reading, with the key of the content without which there is nothing
to show ("": it has several).
"""


def settings(c: Content) -> str:
    """The resolved scenario as YAML, as the log carries it."""
    import yaml

    return (
        yaml.safe_dump(
            dict(c["settings"]),
            sort_keys=False,
            allow_unicode=True,
            width=100,
            default_flow_style=None,
        )
        if c["settings"]
        else ""
    )
