"""Figures as inline SVG: drawn in percent of the width, so that they are sharp and legible on any
screen and in print.

Colours, sizes of type and light or dark come from the page's style sheet; a mark says its values in
`data-tip` (shown on hover and focus) and the figure as a whole in its `aria-label`. Every figure
stands beside a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from markupsafe import Markup, escape

from simulator.page.assets import asset
from simulator.page.escapes import printable
from simulator.page.words import interval, is_defined, number, percent, title

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
    pairs = "".join(f' {name}="{escape(_seen(value))}"' for name, value in names.items())
    return Markup("<{}{}>{}</{}>").format(
        Markup(tag), Markup(pairs), Markup("").join(map(_seen, children)), Markup(tag)
    )


def _seen(child: Any) -> Any:
    return printable(child) if type(child) is str else child


@dataclass(frozen=True)
class Whiskers:
    """A value and the two ends of its interval. NaN: the value is not known, or the end is open."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to percent of the width (or to pixels).

    Values outside are drawn at the edge; `inside` tells. `origin` is where nothing differs.
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    @property
    def origin(self) -> float:
        return 0.0

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


class RatioScale(Scale):
    """A logarithmic scale of ratios: a half is as far from 1 as the double."""

    @property
    def origin(self) -> float:
        return 1.0

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.start + (self.end - self.start) * share

    def ticks(self, n: int = 7) -> list[float]:
        """Ratios whose names are short; `n` is not asked for more of them than there are."""
        return [tick for tick in RATIOS if self.inside(tick)]


RATIOS = (0.5, 0.7, 0.9, 1.0, 1.1, 1.4, 2.0)
"""The ticks of ratios: neighbours look about as far from one another."""


def around(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale of all values with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low or abs(high) or 1.0)
    return Scale(low - margin, high + margin, start, end)


def around_zero(rows: Iterable[Whiskers]) -> Scale:
    """A scale symmetric about zero.

    The widest intervals are cut (and drawn with an arrow) where they are more than four times the
    median half-width of all, so that one rare metric does not flatten the others.
    """
    reach = sorted(
        max(abs(end) for end in (row.value, row.low, row.high) if is_defined(end))
        for row in rows
        if is_defined(row.value)
    )
    if not reach or reach[-1] == 0:
        return Scale(-0.01, 0.01, 2, 98)
    limit = min(reach[-1], 4 * (reach[len(reach) // 2] or reach[-1])) * 1.08
    return Scale(-limit, limit, 2, 98)


def percents(ticks: Sequence[float]) -> list[str]:
    """Labels of ticks that are fractions: `−2%`, `0`, `+2%`, with as many digits as their step
    needs.
    """
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) if ticks else 0.0
    return [_percent(tick, step) for tick in ticks]


def _percent(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9)) if step else 0
    text = f"{100 * value:.{digits}f}"
    return "0" if float(text) == 0 else f"{'+' if value > 0 else ''}{text}%".replace("-", "−")


def numbers(ticks: Sequence[float]) -> list[str]:
    """Labels of ticks that are numbers of any size."""
    return [number(tick).replace("-", "−") for tick in ticks]


Labels = Callable[[Sequence[float]], list[str]]


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


def strip(
    row: Whiskers,
    scale: Scale,
    tone: str,
    label: str,
    *,
    region: tuple[float, float] | None = None,
    shape: str = "circle",
    height: int = 30,
) -> Markup:
    """One row of a forest plot: the interval as a line, the value as a dot, zero as a rule.

    Args:
        row: nothing is drawn of it where its value is not defined.
        scale: shared by all rows of the plot.
        tone: `good`, `bad` or `open`: the colour class.
        label: what the row says, for screen readers and hover.
        region: what the interval is held against (the interval of the truth, a tolerance), a band
            behind it.
        shape: of the mark at the value.
        height: px.
    """
    middle = height / 2
    behind = [
        element(
            "line",
            x1=scale.at(t),
            x2=scale.at(t),
            y1=0,
            y2=height,
            class_="zero" if t == scale.origin else "rule",
        )
        for t in scale.ticks()
    ]
    if region is not None:
        left, right = map(scale, region)
        width = f"{right - left:.3f}%"
        behind.append(
            element("rect", x=f"{left:.3f}%", y=0, width=width, height=height, class_="region")
        )
    shapes: list[Markup] = []
    if is_defined(row.value):
        low = row.low if is_defined(row.low) else -math.inf
        high = row.high if is_defined(row.high) else math.inf
        shapes.append(
            element("line", x1=scale.at(low), x2=scale.at(high), y1=middle, y2=middle, class_="bar")
        )
        shapes += [_end(scale, value, middle) for value in (low, high)]
        if scale.inside(row.value):
            shapes.append(marker(shape, scale.at(row.value), middle, min(5, height / 4)))
        shapes.append(element("rect", x="0", y=0, width="100%", height=height, class_="hit"))
    return element(
        "svg",
        *behind,
        mark(label, *shapes),
        class_=f"strip {tone}",
        role="img",
        aria_label=label,
        width="100%",
        height=height,
    )


def _end(scale: Scale, value: float, y: float) -> Markup:
    """The end of an interval: a small bar, or an arrow where it goes on beyond the scale."""
    if scale.inside(value):
        return element(
            "line", x1=scale.at(value), x2=scale.at(value), y1=y - 4, y2=y + 4, class_="bar thin"
        )
    right = value > scale.high
    points = "0,-5 6,0 0,5" if right else "0,-5 -6,0 0,5"
    return element(
        "svg",
        element("polygon", points=points, class_="dot"),
        x=scale.at(value),
        y=y,
        overflow="visible",
    )


def axis(scale: Scale, labels: Labels = percents) -> Markup:
    """The axis of a forest plot."""
    ticks = scale.ticks()
    parts = [
        element("text", label, x=scale.at(t), y=14, class_="tick", text_anchor="middle")
        for t, label in zip(ticks, labels(ticks), strict=True)
    ]
    return element("svg", *parts, class_="axis", aria_hidden="true", width="100%", height=22)


@dataclass(frozen=True)
class Line:
    """A line of a forest plot that stands alone: a name, its strip and a few words to the right;
    without a strip a heading.
    """

    name: str
    strip: Markup | None = None
    note: str = ""


def forest(lines: Sequence[Line], scale: Scale, labels: Labels, label: str) -> Markup:
    """A forest plot with its names, for a file of its own (on a page it is a table with strips).

    `scale` leaves room for the names to the left, and for the notes to the right.
    """
    parts = []
    for i, line in enumerate(lines):
        y = LINE * i
        if line.strip is None:
            parts.append(element("text", line.name, x="0", y=y + 13, class_="head"))
            continue
        left = f"{scale.start - 2:.1f}%"
        parts += [
            element("svg", line.strip, y=y, width="100%", height=LINE),
            element("text", line.name, x=left, y=y + 13, class_="name", text_anchor="end"),
            element("text", line.note, x="100%", y=y + 13, class_="tick", text_anchor="end"),
        ]
    parts.append(element("svg", axis(scale, labels), y=LINE * len(lines), width="100%"))
    return element(
        "svg",
        *parts,
        class_="lines",
        role="img",
        aria_label=label,
        width="100%",
        height=forest_height(len(lines)),
    )


LINE = 18
"""The height of a line of a forest plot that stands alone, px."""


def forest_height(n_lines: int) -> int:
    """The height of a forest plot that stands alone, px."""
    return LINE * n_lines + 22


@dataclass(frozen=True)
class Point:
    """What a series has at a step: the step's place from 0, and what is said of it."""

    place: int
    at: Whiskers
    tip: str


@dataclass(frozen=True)
class Series:
    """One arm's values over days, or over other steps; `index` gives its colour and shape, and
    `large` is the place whose mark stands out.
    """

    name: str
    index: int
    points: Sequence[Point]
    large: int | None = None


SERIES_HEIGHT = 170
"""The height of values over days or other steps, px."""


def over_days(series: Sequence[Series], days: int, label: str, *, band: bool = False) -> Markup:
    """Lift by day about zero; the scale is cut at six times the middle of all values, so that one
    day of few events does not flatten the others.
    """
    reach = sorted(map(abs, _values(series)))
    limit = (
        max(min(reach[-1], 6 * reach[len(reach) // 2] or reach[-1]) if reach else 0.0, 1e-4) * 1.1
    )
    y = Scale(-limit, limit, SERIES_HEIGHT - 22, 6)
    names = [str(day + 1) for day in range(days)]
    return _along(series, names, label, y, percents, band=band)


def over_steps(
    series: Sequence[Series], names: Sequence[str], label: str, *, band: bool = False
) -> Markup:
    """Values over steps that have names (thresholds, hyper-parameters), from the least to the
    greatest.
    """
    y = around(_values(series), SERIES_HEIGHT - 22, 6)
    return _along(series, names, label, y, numbers, band=band)


def _values(series: Sequence[Series]) -> list[float]:
    return _ends(point.at for one in series for point in one.points)


def _ends(rows: Iterable[Whiskers]) -> list[float]:
    return [end for row in rows for end in (row.value, row.low, row.high) if is_defined(end)]


def _along(
    series: Sequence[Series],
    names: Sequence[str],
    label: str,
    y: Scale,
    labels: Labels,
    *,
    band: bool,
) -> Markup:
    """The series with their intervals, side by side within a step; with `band` as lines with a
    bound above and below.
    """
    x = Scale(-0.5, len(names) - 0.5, 15, 99)
    parts = horizontals(y, labels, "15%", "14%")
    every = max(1, math.ceil(len(names) / 10))
    parts += [
        element(
            "text", names[i], x=x.at(i), y=SERIES_HEIGHT - 6, class_="tick", text_anchor="middle"
        )
        for i in range(0, len(names), every)
    ]
    width = min(0.18, 0.7 / max(len(series), 1))
    for s in series:
        offset = 0.0 if band or len(series) == 1 else (s.index - (len(series) - 1) / 2) * width
        parts.append(_series(s, x, y, offset, band))
    return element(
        "svg",
        *parts,
        class_="days",
        role="img",
        aria_label=label,
        width="100%",
        height=SERIES_HEIGHT,
    )


def horizontals(y: Scale, labels: Labels, start: str, names: str) -> list[Markup]:
    """The rules of a vertical scale, from `start` to the right edge, and the names of its ticks."""
    ticks = y.ticks(5)
    parts = []
    for tick in ticks:
        # A tick is a whole number of steps, which in binary may miss 0 by a last bit.
        at, kind = f"{y(tick):.1f}", "zero" if abs(tick) < 1e-15 else "rule"
        parts.append(element("line", x1=start, x2="99%", y1=at, y2=at, class_=kind))
    for tick, text in zip(ticks, labels(ticks), strict=True):
        at = f"{y(tick) + 4:.1f}"
        parts.append(element("text", text, x=names, y=at, class_="tick", text_anchor="end"))
    return parts


def _series(series: Series, x: Scale, y: Scale, offset: float, band: bool) -> Markup:
    shape = SHAPES[series.index % len(SHAPES)]
    shapes: list[Markup] = []
    previous: Point | None = None
    for point in series.points:
        now, at = point.at, x.at(point.place + offset)
        drawn: list[Markup] = []
        if is_defined(now.low) and is_defined(now.high) and not band:
            low, high = f"{y(now.low):.1f}", f"{y(now.high):.1f}"
            drawn.append(element("line", x1=at, x2=at, y1=low, y2=high, class_="bar"))
        if band and previous is not None:
            x1, then = x.at(previous.place), previous.at
            for kind, before, after in (
                ("bar", then.value, now.value),
                ("bound", then.low, now.low),
                ("bound", then.high, now.high),
            ):
                if is_defined(before) and is_defined(after):
                    y1, y2 = f"{y(before):.1f}", f"{y(after):.1f}"
                    shapes.append(element("line", class_=kind, x1=x1, x2=at, y1=y1, y2=y2))
        if is_defined(now.value):
            size = 6.0 if point.place == series.large else 3.6
            drawn.append(marker(shape, at, round(y(now.value), 1), size))
        if drawn:
            shapes.append(mark(point.tip, *drawn))
        previous = point
    return element("g", *shapes, class_=f"arm-{series.index % 6}")


@dataclass(frozen=True)
class Spot:
    """A point of a scatter plot with its intervals both ways, a name beside it and a tip."""

    across: Whiskers
    up: Whiskers
    name: str
    tip: str


def scatter(spots: Sequence[Spot], label: str, height: int = 200) -> Markup:
    """Numbers across against fractions up, with the intervals of both."""
    x = around(_ends(spot.across for spot in spots), 18, 97)
    y = around(_ends(spot.up for spot in spots), height - 22, 6)
    parts = horizontals(y, percents, "18%", "17%")
    ticks = x.ticks(4)
    for tick, text in zip(ticks, numbers(ticks), strict=True):
        at = x.at(tick)
        parts.append(element("text", text, x=at, y=height - 6, class_="tick", text_anchor="middle"))
    for spot in spots:
        across, left, right = map(x.at, (spot.across.value, spot.across.low, spot.across.high))
        up, low, high = (f"{y(end):.1f}" for end in (spot.up.value, spot.up.low, spot.up.high))
        shapes = (
            element("line", x1=left, x2=right, y1=up, y2=up, class_="bound"),
            element("line", x1=across, x2=across, y1=low, y2=high, class_="bound"),
            marker("circle", across, float(up), 3.6),
            element("text", spot.name, x=across, y=up, dx=5, dy=-5, class_="tick"),
        )
        parts.append(mark(spot.tip, *shapes, class_="arm-1"))
    return element(
        "svg", *parts, class_="scatter", role="img", aria_label=label, width="100%", height=height
    )


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


class Box(Protocol):
    """A distribution: its 5%, 25%, 50%, 75% and 95% quantiles (further ones are not drawn), and its
    mean.
    """

    @property
    def quantiles(self) -> Sequence[float]: ...
    @property
    def mean(self) -> float: ...


def boxes(rows: Sequence[Box], label: str, tips: Sequence[str]) -> Markup:
    """One line for each arm's distribution: 5% to 95%, the middle half, the median and the mean."""
    height = 34
    low = min(0.0, *(row.quantiles[0] for row in rows))
    high = max(0.0, *(max(row.quantiles[4], row.mean) for row in rows))
    x = Scale(low, high if high > low else low + 1.0, 1, 99)
    shapes = [element("line", x1=x.at(0), x2=x.at(0), y1=0, y2=height * len(rows), class_="rule")]
    for i, (row, tip) in enumerate(zip(rows, tips, strict=True)):
        y = height * i + height / 2
        at = [x.at(q) for q in row.quantiles]
        drawn = (
            element("rect", x=0, y=height * i, width="100%", height=height, class_="hit"),
            element("line", x1=at[0], x2=at[4], y1=y, y2=y, class_="bar thin"),
            element("line", x1=at[1], x2=at[3], y1=y, y2=y, class_="half"),
            element("line", x1=at[2], x2=at[2], y1=y - 8, y2=y + 8, class_="bar"),
            marker("circle", x.at(row.mean), y, 3.2),
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


def describe(metric: str, arm: str, lift: Whiskers) -> str:
    """What a mark says: `Comment, recgpt: +0.772%, 95% interval -0.310% to +1.854%`."""
    ends = interval(lift.low, lift.high)
    return f"{title(metric)}, {arm}: {percent(lift.value)}, 95% interval {ends}"


def picture(
    plots: Sequence[tuple[str, Markup]],
    columns: int,
    size: tuple[int, int],
    label: str,
    *,
    heading: str = "",
) -> str:
    """Figures with their titles as one self-contained SVG file, `columns` side by side; `size` is
    the width of each and the height of the highest, px.
    """
    gap, title_height, top = 18, 22, 30 if heading else 6
    step = size[0] + gap, size[1] + title_height + gap
    width, height = columns * step[0] + gap, top + -(-len(plots) // columns) * step[1]
    parts = [element("text", heading, x=gap, y=20, class_="head")] if heading else []
    for i, (name, figure) in enumerate(plots):
        x, y = gap + i % columns * step[0], top + i // columns * step[1]
        parts.append(element("text", name, x=x, y=y + 14, class_="head"))
        parts.append(element("svg", figure, x=x, y=y + title_height, width=size[0]))
    return str(
        element(
            "svg",
            element("style", Markup(asset("figure.css"))),
            element("rect", width="100%", height="100%", class_="paper"),
            *parts,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
            role="img",
            aria_label=label,
        )
    )
