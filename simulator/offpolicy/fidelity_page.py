"""The fidelity report as Markdown, as a scatter figure (SVG) and as one self-contained page. Every number comes from the content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from simulator.offpolicy.result import number, share
from simulator.report.figures import Scale

WIDTH, HEIGHT, COLUMNS = 300, 230, 3
_LEFT, _BOTTOM, _TOP, _RIGHT = 52, 40, 34, 12


def scatter(content: Mapping[str, Any]) -> str:
    """Small multiples: each offline figure (across) against the true online lift (up), one mark a policy; a standalone SVG."""
    figures = content["figures"]
    rows = -(-len(figures) // COLUMNS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}" role="img" '
        f'aria-label="offline figures against online lift" font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
    )
    panels = [_panel(figure, content["policies"], i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT) for i, figure in enumerate(figures)]
    return "\n".join([head, *panels, "</svg>"])


def _panel(figure: Mapping[str, Any], policies: list[Mapping[str, Any]], left: int, top: int) -> str:
    """One figure's scatter with error bars of both sides."""
    both = zip(figure["points"], policies, strict=True)
    points = [(point["value"], point["error"] or 0.0, policy) for point, policy in both if point["value"] is not None]
    floor = HEIGHT - _BOTTOM
    x = _scale([v for value, error, _ in points for v in (value - error, value + error)], _LEFT, WIDTH - _RIGHT)
    y = _scale([v for _, _, policy in points for v in (policy["low"], policy["high"])], floor, _TOP)
    parts = [
        f'<g transform="translate({left} {top})">',
        f'<text x="{_LEFT}" y="14" font-weight="600">{escape(figure["figure"])}</text>',
        f'<text x="{_LEFT}" y="27" opacity=".7">rho {number(figure["rho"], 2)}'
        f" [{number(figure['low'], 2)}, {number(figure['high'], 2)}]</text>",
        f'<path d="M{_LEFT} {_TOP}V{floor}H{WIDTH - _RIGHT}" fill="none" stroke="currentColor" opacity=".35"/>',
    ]
    parts += [f'<text x="{_LEFT - 4}" y="{y(t) + 4:.1f}" text-anchor="end" opacity=".7">{100 * t:.3g}%</text>' for t in y.ticks(4)]
    parts += [f'<text x="{x(t):.1f}" y="{floor + 14}" text-anchor="middle" opacity=".7">{number(t, 3)}</text>' for t in x.ticks(3)]
    for value, error, policy in points:
        said = f"{policy['policy']}: {figure['figure']} {number(value)}, online lift {share(policy['lift'])}"
        cx, cy = x(value), y(policy["lift"])
        across = f"M{x(value - error):.1f} {cy:.1f}H{x(value + error):.1f}"
        up = f"M{cx:.1f} {y(policy['low']):.1f}V{y(policy['high']):.1f}"
        parts.append(
            f'<g><title>{escape(said)}</title><path d="{across}{up}" stroke="#8aa4c8"/>'
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.6" fill="#1d5fa7"/>'
            f'<text x="{cx + 5:.1f}" y="{cy - 5:.1f}" font-size="9" opacity=".75">{escape(policy["policy"])}</text></g>'
        )
    return "\n".join([*parts, "</g>"])


def _scale(values: list[float], start: float, end: float) -> Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = (high - low or abs(high) or 1.0) * 0.08
    return Scale(low - margin, high + margin, start, end)


def markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Does offline predict online? {content['scenario']}",
        "",
        f"Truth: the simulated A/B, lift of {content['reward']} per user over `{content['control']}`. Offline: the last "
        f"{content['test_days']} days of the history ({content['rounds']:,} requests), every policy fitted on the days before.",
        "",
        "| policy | online lift | 95% interval | per request |",
        "|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in _policies(content)]
    lines += [
        "",
        "| offline figure | usable | Spearman | 95% interval | p | Kendall | relative error | covered | regret of its pick |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in _figures(content)]
    lines += ["", *_notes(content)]
    return "\n".join(lines) + "\n"


def _policies(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each policy, the best first."""
    rows = sorted(content["policies"], key=lambda p: -p["lift"])
    return [(p["policy"], f"{p['lift']:+.2%}", f"{p['low']:+.2%} to {p['high']:+.2%}", number(p["per_request"])) for p in rows]


def _figures(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each offline figure, the best correlated first."""
    rows: list[tuple[str, ...]] = []
    for f in content["figures"]:
        interval = f"{number(f['low'], 2)} to {number(f['high'], 2)}"
        covered = "" if f["covered"] is None else f"{f['covered']} of {f['policies']}"
        agreed = (number(f["rho"], 2), interval, number(f["p"], 2), number(f["kendall"], 2))
        rows.append((f["figure"], f"{f['usable']} of {f['policies']}", *agreed, share(f["error"]), covered, share(f["regret"])))
    return rows


def _notes(content: Mapping[str, Any]) -> list[str]:
    return [
        "Usable: for how many of the policies that have the figure its own verdict is not `unusable`. Spearman: rank correlation over "
        "these policies; its interval is over the noise of both sides (users resampled online, the figure's own standard error "
        "offline), p by permutations. Relative error and covered: only for figures that claim to be the reward per request. Regret: how "
        "much lift is lost by taking the policy that the figure puts first.",
        f"Figures that could not be had for three policies are left out; the log's own policy got {number(content['logged'])} per request.",
    ]


def page(content: Mapping[str, Any]) -> str:
    """The report as one self-contained page."""
    style = files("simulator.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    title = f"Does offline predict online? {content['scenario']}"
    names = ("Offline figure", "Usable", "Spearman", "95% interval", "p", "Kendall", "Relative error", "Covered", "Regret of its pick")
    body = Markup('<p class="kicker">Fidelity</p><h1>{}</h1><section><h2>The truth</h2>{}</section>').format(
        title, _table(("Policy", "Online lift", "95% interval", "Per request"), _policies(content))
    )
    body += Markup("<section><h2>Each offline figure against it</h2>{}</section>").format(_table(names, _figures(content)))
    body += Markup("<section><h2>Scatter</h2><figure>{}</figure></section>").format(Markup(scatter(content)))
    body += Markup("").join(Markup('<p class="note">{}</p>').format(note) for note in _notes(content))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{style}</style></head>'
        f'<body><div class="page">{body}</div></body></html>\n'
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Markup:
    top = Markup("").join(Markup('<th scope="col" class="{}">{}</th>').format("n" if i else "", name) for i, name in enumerate(head))
    lines = []
    for first, *rest in rows:
        cells = Markup("").join(Markup('<td class="n">{}</td>').format(cell) for cell in rest)
        lines.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(first, cells))
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        top, Markup("").join(lines)
    )


def save(content: Mapping[str, Any], folder: Path) -> Path:
    """Write fidelity.json, .md, .svg and .html, each by rename; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("fidelity.json", json.dumps(content, indent=1, allow_nan=False) + "\n"),
        ("fidelity.md", markdown(content)),
        ("fidelity.svg", scatter(content)),
        ("fidelity.html", page(content)),
    ):
        staging = folder / f"{name}.part"
        staging.write_text(text, encoding="utf-8")
        staging.rename(folder / name)
    return folder / "fidelity.html"
