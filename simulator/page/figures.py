"""Figures as inline SVG: drawn in percent of the width, so that they are sharp and legible on any
screen and in print.

Colours, sizes of type and light or dark come from the page's style sheet; a mark says its values in
`data-tip` (shown on hover and focus) and the figure as a whole in its `aria-label`. Every figure
stands beside a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from simulator.page.escapes import printable
from simulator.page.words import interval, percent, title

SHAPES = ("circle", "square", "diamond", "triangle")
"""Shapes of the arms, in turn: an arm is never told by colour alone."""


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An SVG element; text and attribute values are escaped, `_` in attribute names becomes `-` and
    a trailing one is dropped.
    """
    names = {
        name.rstrip("_").replace("_", "-"): value
        for name, value in attributes.items()
        if value is not None
    }
    given = "".join(f' {name}="{escape(_seen(value))}"' for name, value in names.items())
    return Markup("<{}{}>{}</{}>").format(
        Markup(tag), Markup(given), Markup("").join(map(_seen, children)), Markup(tag)
    )


def _seen(child: Any) -> Any:
    return printable(child) if type(child) is str else child


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to percent of the width (or to pixels).

    Values outside are drawn at the edge; `inside` tells.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def at(self, value: float) -> str:
        """`value` as a percentage for an SVG attribute."""
        return f"{self(value):.3f}%"

    def inside(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, n: int = 5) -> list[float]:
        """About `n` round values within the scale, zero among them if it is inside."""
        rough = (self.high - self.low) / max(n - 1, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def around_zero(
    rows: Iterable[Mapping[str, Any]], *, clip: float = 4.0, margin: float = 1.08
) -> Scale:
    """A scale symmetric about zero for rows with `lift`, `low`, `high`.

    The widest intervals are cut (and drawn with an arrow) where they are more than `clip` times the
    median half-width of all, so that one rare metric does not flatten the others.
    """
    reach = sorted(
        max(abs(v) for v in (row["lift"], row["low"], row["high"]) if v is not None)
        for row in rows
        if row["lift"] is not None
    )
    if not reach or reach[-1] == 0:
        return Scale(-0.01, 0.01, 2, 98)
    limit = min(reach[-1], clip * (reach[len(reach) // 2] or reach[-1])) * margin
    return Scale(-limit, limit, 2, 98)


def _tick(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9)) if step else 0
    text = f"{100 * value:.{digits}f}"
    return "0" if float(text) == 0 else f"{'+' if value > 0 else ''}{text}%".replace("-", "−")


def _labels(ticks: Sequence[float]) -> list[str]:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) if ticks else 0
    return [_tick(t, step) for t in ticks]


def marker(shape: str, x: str, y: float, size: float = 4.5, class_: str = "") -> Markup:
    """A mark of a given shape centred at `x` (percent) and `y` (px)."""
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=size, class_=f"dot {class_}")
    s = size * {"square": 0.9, "diamond": 1.3, "triangle": 1.25}[shape]
    points = {
        "square": f"{-s},{-s} {s},{-s} {s},{s} {-s},{s}",
        "diamond": f"0,{-s} {s},0 0,{s} {-s},0",
        "triangle": f"0,{-s} {s},{s * 0.8:.2f} {-s},{s * 0.8:.2f}",
    }[shape]
    return element(
        "svg",
        element("polygon", points=points, class_=f"dot {class_}"),
        x=x,
        y=y,
        overflow="visible",
    )


def mark(tip: str, *children: Markup, class_: str = "") -> Markup:
    """A group of shapes that answers hover and focus with `tip`; without script the browser shows
    it as the title.
    """
    return element(
        "g", element("title", tip), *children, class_=f"mark {class_}".strip(), data_tip=tip
    )


def strip(row: Mapping[str, Any], scale: Scale, tone: str, label: str) -> Markup:
    """One row of a forest plot: the interval as a line, the lift as a dot, zero as a rule.

    Args:
        row: of `lifts`.
        scale: shared by all rows of the plot.
        tone: `good`, `bad` or `open`: the colour class.
        label: what the row says, for screen readers and hover.
    """
    middle = 15.0
    rules = [
        element(
            "line", x1=scale.at(t), x2=scale.at(t), y1=0, y2=30, class_="zero" if t == 0 else "rule"
        )
        for t in scale.ticks()
    ]
    shapes: list[Markup] = []
    if row["lift"] is not None:
        low = -math.inf if row["low"] is None else row["low"]
        high = math.inf if row["high"] is None else row["high"]
        shapes.append(
            element("line", x1=scale.at(low), x2=scale.at(high), y1=middle, y2=middle, class_="bar")
        )
        shapes += [_end(scale, value, middle) for value in (low, high)]
        if scale.inside(row["lift"]):
            shapes.append(marker("circle", scale.at(row["lift"]), middle, 5))
        shapes.append(element("rect", x="0", y=0, width="100%", height=30, class_="hit"))
    return element(
        "svg",
        *rules,
        mark(label, *shapes),
        class_=f"strip {tone}",
        role="img",
        aria_label=label,
        width="100%",
        height=30,
    )


def _end(scale: Scale, value: float, y: float) -> Markup:
    """The end of an interval: a small bar, or an arrow where it goes on beyond the scale."""
    if scale.inside(value):
        return element(
            "line", x1=scale.at(value), x2=scale.at(value), y1=y - 4, y2=y + 4, class_="bar thin"
        )
    right = value > 0
    points = "0,-5 6,0 0,5" if right else "0,-5 -6,0 0,5"
    return element(
        "svg",
        element("polygon", points=points, class_="dot"),
        x=scale.at(value),
        y=y,
        overflow="visible",
    )


def axis(scale: Scale, height: int = 22) -> Markup:
    """The axis of a forest plot."""
    ticks = scale.ticks()
    parts = [
        element("text", escape(label), x=scale.at(t), y=14, class_="tick", text_anchor="middle")
        for t, label in zip(ticks, _labels(ticks), strict=True)
    ]
    return element("svg", *parts, class_="axis", aria_hidden="true", width="100%", height=height)


Point = tuple[int, float | None, float | None, float | None, str]
"""Day from 0, middle, low, high (None where not defined), tip."""


@dataclass(frozen=True)
class Series:
    """One arm's values over days; `index` gives its colour and shape."""

    name: str
    index: int
    points: Sequence[Point]


def over_days(
    series: Sequence[Series], days: int, label: str, *, band: bool = False, height: int = 170
) -> Markup:
    """Lift by day with intervals, the arms side by side within a day (or, with `band`, as lines
    with a bound above and below).
    """
    values = [
        v for s in series for p in s.points for v in p[1:4] if v is not None and math.isfinite(v)
    ]
    reach = sorted(abs(v) for v in values)
    limit = (
        max(min(reach[-1], 6 * reach[len(reach) // 2] or reach[-1]) if reach else 0.0, 1e-4) * 1.1
    )
    x = Scale(-0.5, days - 0.5, 15, 99)
    y = Scale(-limit, limit, height - 22, 6)
    ticks = y.ticks(5)
    parts = [
        element(
            "line",
            x1="15%",
            x2="99%",
            y1=f"{y(t):.1f}",
            y2=f"{y(t):.1f}",
            class_="zero" if abs(t) < 1e-15 else "rule",
        )
        for t in ticks
    ]
    parts += [
        element(
            "text", escape(text), x="14%", y=f"{y(t) + 4:.1f}", class_="tick", text_anchor="end"
        )
        for t, text in zip(ticks, _labels(ticks), strict=True)
    ]
    every = max(1, math.ceil(days / 10))
    parts += [
        element("text", str(d + 1), x=x.at(d), y=height - 6, class_="tick", text_anchor="middle")
        for d in range(0, days, every)
    ]
    for s in series:
        offset = (
            0.0
            if band
            else (s.index - (len(series) - 1) / 2) * min(0.18, 0.7 / max(len(series), 1))
        )
        parts.append(_series(s, x, y, offset, band))
    return element(
        "svg", *parts, class_="days", role="img", aria_label=label, width="100%", height=height
    )


def _series(series: Series, x: Scale, y: Scale, offset: float, band: bool) -> Markup:
    shapes: list[Markup] = []
    previous: tuple[int, float | None, float | None, float | None] | None = None
    for day, middle, low, high, tip in series.points:
        at = x.at(day + offset)
        drawn: list[Markup] = []
        if low is not None and high is not None and not band:
            drawn.append(
                element("line", x1=at, x2=at, y1=f"{y(low):.1f}", y2=f"{y(high):.1f}", class_="bar")
            )
        if band and previous is not None:
            for now, then, kind in (
                (middle, previous[1], "bar"),
                (low, previous[2], "bound"),
                (high, previous[3], "bound"),
            ):
                if now is not None and then is not None:
                    ends = {
                        "x1": x.at(previous[0]),
                        "x2": at,
                        "y1": f"{y(then):.1f}",
                        "y2": f"{y(now):.1f}",
                    }
                    shapes.append(element("line", class_=kind, **ends))
        if middle is not None:
            drawn.append(marker(SHAPES[series.index % len(SHAPES)], at, round(y(middle), 1), 3.6))
        if drawn:
            shapes.append(mark(tip, *drawn))
        previous = (day, middle, low, high)
    return element("g", *shapes, class_=f"arm-{series.index % 6}")


def bars(
    values: Sequence[tuple[str, int, float]], limit: float, label: str, tips: Sequence[str]
) -> Markup:
    """Horizontal bars from zero, one for each (arm, arm index, value); `limit` is the value of the
    full width.
    """
    row = 14
    shapes = []
    for i, ((_, index, value), tip) in enumerate(zip(values, tips, strict=True)):
        width = 0.0 if limit <= 0 else 100 * value / limit
        bar = element(
            "rect", x=0, y=i * row + 2, width=f"{width:.3f}%", height=row - 4, rx=1.5, class_="fill"
        )
        shapes.append(
            mark(
                tip,
                element("rect", x=0, y=i * row, width="100%", height=row, class_="hit"),
                bar,
                class_=f"arm-{index % 6}",
            )
        )
    return element(
        "svg",
        *shapes,
        class_="bars",
        role="img",
        aria_label=label,
        width="100%",
        height=max(row * len(values), 1),
    )


def boxes(rows: Sequence[Mapping[str, Any]], label: str, tips: Sequence[str]) -> Markup:
    """One line for each arm's distribution: 5% to 95%, the middle half, the median and the mean."""
    height = 34
    low = min(0.0, *(row["quantiles"][0] for row in rows))
    high = max(0.0, *(max(row["quantiles"][4], row["mean"]) for row in rows))
    x = Scale(low, high if high > low else low + 1.0, 1, 99)
    shapes = [element("line", x1=x.at(0), x2=x.at(0), y1=0, y2=height * len(rows), class_="rule")]
    for i, (row, tip) in enumerate(zip(rows, tips, strict=True)):
        y = height * i + height / 2
        at = [x.at(q) for q in row["quantiles"]]
        drawn = (
            element("rect", x=0, y=height * i, width="100%", height=height, class_="hit"),
            element("line", x1=at[0], x2=at[4], y1=y, y2=y, class_="bar thin"),
            element("line", x1=at[1], x2=at[3], y1=y, y2=y, class_="half"),
            element("line", x1=at[2], x2=at[2], y1=y - 8, y2=y + 8, class_="bar"),
            marker("circle", x.at(row["mean"]), y, 3.2),
        )
        shapes.append(mark(tip, *drawn, class_=f"arm-{i % 6}"))
    return element(
        "svg",
        *shapes,
        class_="boxes",
        role="img",
        aria_label=label,
        width="100%",
        height=height * len(rows),
    )


def swatch(index: int) -> Markup:
    """The sign of an arm in a legend."""
    return element(
        "svg",
        element("g", marker(SHAPES[index % len(SHAPES)], "50%", 7, 4.5), class_=f"arm-{index % 6}"),
        class_="swatch",
        aria_hidden="true",
        width=14,
        height=14,
    )


def spoken(row: Mapping[str, Any]) -> str:
    """What a mark says: `Comment, recgpt: +0.772%, 95% interval -0.310% to +1.854%`."""
    return (
        f"{title(row['metric'])}, {row['arm']}: {percent(row['lift'])}, 95% interval"
        f" {interval(row['low'], row['high'])}"
    )
