"""The fidelity report as Markdown, as a scatter figure (SVG) and as one self-contained page. Every
number comes from the content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from simulator.log.files import write_texts
from simulator.offpolicy.result import number, share
from simulator.page.figures import Scale
from simulator.page.markdown import text

WIDTH, HEIGHT, COLUMNS = 300, 230, 3
_LEFT, _BOTTOM, _TOP, _RIGHT = 52, 40, 34, 12


def scatter(content: Mapping[str, Any]) -> str:
    """Small multiples: each offline figure (across) against the true online lift (up), one mark a
    policy; a standalone SVG.

    A mark's number is the policy's place online, 1 the best, as in the table of policies.
    """
    figures = content["figures"]
    rows = -(-len(figures) // COLUMNS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}"'
        ' role="img" aria-label="offline figures against online lift" font-family="system-ui,'
        ' sans-serif" font-size="11" fill="currentColor">'
    )
    panels = [
        _panel(figure, content["policies"], i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT)
        for i, figure in enumerate(figures)
    ]
    return "\n".join([head, *panels, "</svg>"])


def _panel(
    figure: Mapping[str, Any], policies: list[Mapping[str, Any]], left: int, top: int
) -> str:
    """One figure's scatter with error bars of both sides."""
    both = zip(figure["points"], policies, strict=True)
    place = {policy["policy"]: i for i, policy in enumerate(_ranked(policies), 1)}
    points = [
        (point["value"], point["error"] or 0.0, policy)
        for point, policy in both
        if point["value"] is not None
    ]
    floor = HEIGHT - _BOTTOM
    x = _scale(
        [v for value, error, _ in points for v in (value - error, value + error)],
        _LEFT,
        WIDTH - _RIGHT,
    )
    y = _scale([v for _, _, policy in points for v in (policy["low"], policy["high"])], floor, _TOP)
    parts = [
        f'<g transform="translate({left} {top})">',
        f'<text x="{_LEFT}" y="14" font-weight="600">{escape(figure["figure"])}</text>',
        (
            f'<text x="{_LEFT}" y="27" opacity=".7">rho {_two(figure["rho"])},'
            f" {share(figure['ordered'])} ordered right</text>"
        ),
        (
            f'<path d="M{_LEFT} {_TOP}V{floor}H{WIDTH - _RIGHT}" fill="none" stroke="currentColor"'
            ' opacity=".35"/>'
        ),
    ]
    parts += [
        f'<text x="{_LEFT - 4}" y="{y(t) + 4:.1f}" text-anchor="end"'
        f' opacity=".7">{100 * t:.3g}%</text>'
        for t in y.ticks(4)
    ]
    parts += [
        f'<text x="{x(t):.1f}" y="{floor + 14}" text-anchor="middle"'
        f' opacity=".7">{number(t, 3)}</text>'
        for t in x.ticks(3)
    ]
    for value, error, policy in points:
        said = (
            f"{policy['policy']}: {figure['figure']} {number(value)}, online lift"
            f" {share(policy['lift'])}"
        )
        cx, cy = x(value), y(policy["lift"])
        across = f"M{x(value - error):.1f} {cy:.1f}H{x(value + error):.1f}"
        up = f"M{cx:.1f} {y(policy['low']):.1f}V{y(policy['high']):.1f}"
        parts.append(
            f'<g><title>{escape(said)}</title><path d="{across}{up}" stroke="#8aa4c8"/><circle'
            f' cx="{cx:.1f}" cy="{cy:.1f}" r="3.6" fill="#1d5fa7"/><text x="{cx + 5:.1f}"'
            f' y="{cy - 5:.1f}" font-size="9" opacity=".75">{place[policy["policy"]]}</text></g>'
        )
    return "\n".join([*parts, "</g>"])


def _scale(values: list[float], start: float, end: float) -> Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low or abs(high) or 1.0) * 0.08
    return Scale(low - margin, high + margin, start, end)


def _two(value: float | None) -> str:
    """A correlation or a p-value with two decimals."""
    return "n/a" if value is None else f"{value:.2f}"


def _ranked(policies: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The policies, best online first."""
    return sorted(policies, key=lambda p: -p["lift"])


def answer(content: Mapping[str, Any]) -> str:
    """Which offline figure to read, and how far it may be believed: the figure of every policy that
    orders most differences right.
    """
    n = len(content["policies"])
    whole = [
        f
        for f in content["figures"]
        if f["policies"] == n and f["usable"] == n and f["ordered"] is not None
    ]
    known = whole or [f for f in content["figures"] if f["ordered"] is not None]
    if not known:
        return (
            "No two policies differ online beyond noise, so no offline figure can be judged: more"
            " users or days are needed."
        )
    best = max(known, key=lambda f: f["ordered"])
    shown = best["p_adjusted"] is not None and best["p_adjusted"] < 0.05
    head = (
        "Read"
        if shown
        else (
            "No figure is shown to foretell the order online, whatever it says of itself; the least"
            " bad is"
        )
    )
    return (
        f"{head} {best['figure']}: it orders {share(best['ordered'])} of the {best['pairs']} proven"
        f" differences right (standard error {share(best['ordered_error'])}; a coin: 50%). Its rank"
        f" correlation with the lift is {_two(best['rho'])}, for other policies of this kind"
        f" between {_two(best['new_low'])} and {_two(best['new_high'])}. Taking its pick,"
        f" {best['pick']}, loses {share(best['regret'])} of lift against the best of the {n}"
        f" policies. It was picked as the best of {len(known)} figures on these policies, so expect"
        " less of it on others."
    )


POLICY_HEAD = ("", "policy", "online lift", "95% interval", "per request")
FIGURE_HEAD = (
    "offline figure",
    "usable",
    "ordered right",
    "Spearman",
    "by noise",
    "for new policies",
    "adj. p",
    "relative error",
    "covered",
    "lift lost by its pick",
)


def markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Does offline predict online? {text(content['scenario'])}",
        "",
        text(answer(content)),
        "",
        (
            f"Truth: the simulated A/B, lift of {content['reward']} per user over"
            f" {text(content['control'])}. Offline: the last {content['test_days']} days of the"
            f" history ({content['rounds']:,} requests), every policy fitted on the days before."
        ),
    ]
    for head, rows in ((POLICY_HEAD, _policies(content)), (FIGURE_HEAD, _figures(content))):
        lines += [
            "",
            "| " + " | ".join(head) + " |",
            "|---" * len(head) + "|",
            *("| " + " | ".join(map(text, row)) + " |" for row in rows),
        ]
    lines += ["", *_notes(content)]
    return "\n".join(lines) + "\n"


def _policies(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each policy, the best first."""
    return [
        (
            str(i),
            p["policy"],
            f"{p['lift']:+.2%}",
            f"{p['low']:+.2%} to {p['high']:+.2%}",
            number(p["per_request"]),
        )
        for i, p in enumerate(_ranked(content["policies"]), 1)
    ]


def _figures(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each offline figure, the best correlated first."""
    rows: list[tuple[str, ...]] = []
    for f in content["figures"]:
        noise, new = (
            f"{_two(f[low])} to {_two(f[high])}"
            for low, high in (("low", "high"), ("new_low", "new_high"))
        )
        covered = "" if f["covered"] is None else f"{f['covered']} of {f['policies']}"
        ordered = f"{share(f['ordered'])} ± {share(f['ordered_error'])}"
        agreed = (ordered, _two(f["rho"]), noise, new, _two(f["p_adjusted"]))
        error = "" if f["error"] is None else share(f["error"])
        rows.append(
            (
                f["figure"],
                f"{f['usable']} of {f['policies']}",
                *agreed,
                error,
                covered,
                share(f["regret"]),
            )
        )
    return rows


def _notes(content: Mapping[str, Any]) -> list[str]:
    return [
        (
            "Usable: for how many of the policies that have the figure its own verdict is not"
            " `unusable`. Ordered right: share of the pairs of policies with a proven online"
            " difference that the figure puts in the right order, with its standard error (each"
            " policy left out in turn). Spearman: rank correlation with the lift; by noise: its 95%"
            " interval over users online and the figure's own error, for these policies; for new"
            " policies: its 95% interval if these are a sample of policies, which shrinks as 1 /"
            " sqrt(policies - 3). adj. p: by permutations, Holm over the figures. Relative error"
            " and covered: only for figures that claim to be the reward per request. Lift lost by"
            " its pick: how much the policy that the figure puts first stays behind the best."
        ),
        (
            "Figures that could not be had for three policies are left out; the log's own policy"
            f" got {number(content['logged'])} per request."
        ),
    ]


def page(content: Mapping[str, Any]) -> str:
    """The report as one self-contained page."""
    style = (
        files("simulator.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    )
    title = f"Does offline predict online? {content['scenario']}"
    body = Markup(
        '<p class="kicker">Fidelity</p><h1>{}</h1><p>{}</p><section><h2>The truth</h2>{}</section>'
    ).format(title, answer(content), _table(POLICY_HEAD, _policies(content)))
    body += Markup("<section><h2>Each offline figure against it</h2>{}</section>").format(
        _table(FIGURE_HEAD, _figures(content))
    )
    body += Markup("<section><h2>Scatter</h2><figure>{}</figure></section>").format(
        Markup(scatter(content))
    )
    body += Markup("").join(
        Markup('<p class="note">{}</p>').format(note) for note in _notes(content)
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy"'
        f' content="{policy}"><title>{escape(title)}</title><style>{style}</style></head><body><div'
        f' class="page">{body}</div></body></html>\n'
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Markup:
    top = Markup("").join(
        Markup('<th scope="col" class="{}">{}</th>').format("n" if i else "", name)
        for i, name in enumerate(head)
    )
    lines = []
    for first, *rest in rows:
        cells = Markup("").join(Markup('<td class="n">{}</td>').format(cell) for cell in rest)
        lines.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(first, cells))
    return Markup(
        '<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(top, Markup("").join(lines))


def save(content: Mapping[str, Any], folder: Path) -> Path:
    """Write fidelity.json, .md, .svg and .html, each by rename; returns the page."""
    texts = {
        "fidelity.json": json.dumps(content, indent=1, allow_nan=False) + "\n",
        "fidelity.md": markdown(content),
        "fidelity.svg": scatter(content),
        "fidelity.html": page(content),
    }
    write_texts(folder, texts)
    return folder / "fidelity.html"
