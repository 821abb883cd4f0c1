"""The fidelity report as a document: the page, its Markdown, what the terminal shows, and its
scatter figure as a file of its own. Every number comes from the content.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from simulator.offpolicy.agreement import Agreement
from simulator.offpolicy.fidelity import FidelityResult
from simulator.offpolicy.offline_figure import READING
from simulator.offpolicy.online import OnlinePolicy
from simulator.offpolicy.settings import ROLLOUT
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Multiples,
    Prose,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.figures import Spot, Whiskers, picture, scatter
from simulator.page.words import (
    between,
    interval,
    is_defined,
    listed,
    number,
    percent,
    probability,
    two,
    whole,
)
from simulator.report.sections.several_arms import chance_words
from simulator.report.sections.several_arms import sentence as winner_sentence
from simulator.report.stored import encode
from simulator.stats.winners import Winner

COLUMNS, SIZE = 3, (300, 200)
"""Of the scatter figure as a file: panels side by side, their width and height in px."""


def document(content: FidelityResult) -> Document:
    """The report: the answer, the truth, every offline figure against it."""
    title = f"Does offline predict online? {content.scenario}"
    truth = (
        f"The simulated A/B: lift of {content.reward} per user over {content.control}."
        f" Offline: the last {content.test_days} days of the history"
        f" ({whole(content.rounds)} requests), every policy fitted on the days before. The log's"
        f" own policy got {number(content.logged)} per request."
    )
    if content.fits > 1:
        truth += (
            f" Policies that draw in training have {content.fits} fits on either side, over which"
            " users are divided; intervals are over users, and speak of these models."
        )
    left_out = "Figures that could not be had for three policies are left out."
    note = "A mark's number is the policy's place online, 1 the best, as in the table of policies."
    figures: list[Block] = [Words(NOTE, note=True), Words(left_out, note=True), _figures(content)]
    return Document(
        title=title,
        kicker="Fidelity",
        heading=title,
        about=answer(content),
        facts=Facts([]),
        gates=[],
        sections=[
            Section(
                "truth",
                "The truth",
                [Words(truth), *_best(content.best), _policies(content)],
                "The truth",
            ),
            Section("figures", "Each offline figure against it", figures, "Offline figures"),
            Section(
                "scatter",
                "Each offline figure across, the lift online up",
                [Words(note, note=True), Multiples(_scatters(content))],
                "Scatter",
            ),
        ],
    )


def _scatters(content: FidelityResult) -> list[tuple[str, Markup]]:
    """Each offline figure (across) against the true online lift (up), one mark a policy."""
    policies = content.policies
    place = {policy.policy: i for i, policy in enumerate(_ranked(policies), 1)}
    plots = []
    for figure in content.figures:
        spots = []
        for point, policy in zip(figure.points, policies, strict=True):
            value, error = point.value, point.error if is_defined(point.error) else 0.0
            if not is_defined(value):
                continue
            tip = (
                f"{policy.policy}: {figure.figure} {number(value)}, online lift"
                f" {percent(policy.lift, 1)}"
            )
            across = Whiskers(value, value - error, value + error)
            up = Whiskers(policy.lift, policy.low, policy.high)
            spots.append(Spot(across, up, str(place[policy.policy]), tip))
        agreement = f"rho {two(figure.rho)}, {_share(figure.ordered)} ordered right"
        label = f"{figure.figure} against online lift: {agreement}"
        plots.append((f"{figure.figure}: {agreement}", scatter(spots, label, SIZE[1])))
    return plots


def _share(value: float | None) -> str:
    return percent(value, 1, sign=False)


def _ranked(policies: Sequence[OnlinePolicy]) -> list[OnlinePolicy]:
    """The policies, best online first."""
    return sorted(policies, key=lambda p: -p.lift)


def answer(content: FidelityResult) -> str:
    """Which offline figure to read, and how far it may be believed: the figure of every policy that
    orders most differences right; where that is `rollout`, with its ties broken.
    """
    n = len(content.policies)
    whole = [f for f in content.figures if f.policies == n == f.usable and is_defined(f.ordered)]
    candidates = whole or [f for f in content.figures if is_defined(f.ordered)]
    if not candidates:
        return (
            "No two policies differ online beyond noise, so no offline figure can be judged: more"
            " users or days are needed."
        )
    best = max(candidates, key=lambda f: f.ordered)
    if best.figure == ROLLOUT:
        best = next((f for f in candidates if f.figure == READING), best)
    head = "Read"
    if not best.p_adjusted < 0.05:  # NaN: no permutation could be held against it
        head = (
            "No figure is shown to foretell the order online, whatever it says of itself; the least"
            " bad is"
        )
    return (
        f"{head} {best.figure}: it orders {_share(best.ordered)} of the {best.pairs}"
        f" proven differences right (standard error {_share(best.ordered_error)}; a coin: 50%)."
        f" Its rank correlation with the lift is {two(best.rho)}, for other policies of this"
        f" kind between {two(best.new_low)} and {two(best.new_high)}. Taking its pick,"
        f" {best.pick}, loses {_share(best.lost)} of lift (95% interval {_share(best.lost_low)} to"
        f" {_share(best.lost_high)}) against the best of the {n} policies, corrected for the best's"
        f" having been chosen by its luck, too.{_ties(best)} The figure was picked as the best of"
        f" {len(candidates)} on these policies, so expect less of it on others."
    )


def _ties(figure: Agreement) -> str:
    """What a figure cannot tell from its pick, and what it doubts of it."""
    said = " By its own error no other policy may be as good."
    if figure.tied:
        said = f" By its own error {listed(figure.tied)} may be as good."
    if figure.doubts:
        said += f" Its doubts: {'; '.join(figure.doubts)}."
    return said


NOTE = Prose(
    "Usable: for how many of the policies that have the figure its own verdict is not `unusable`."
    " Ordered right: share of the pairs of policies with a proven online difference that the figure"
    " puts in the right order, with its standard error (each policy left out in turn). Spearman:"
    " rank correlation with the lift; by noise: its 95% interval over users online and the figure's"
    " own error, for these policies; for new policies: its 95% interval if these are a sample of"
    " policies, which shrinks as 1 / sqrt(policies - 3). Adjusted p: by permutations, Holm over the"
    " figures. Relative error and covered: only for figures that claim to be the reward per"
    " request. Pick: the policy that the figure puts first; tied with it: how many others its own"
    " error does not let stand behind. Lift lost by its pick: how much that one stays behind the"
    " best, corrected for the best's having been chosen by its luck, too, with its 95% interval."
)


def _best(best: Winner | None) -> list[Block]:
    """The best policy online, corrected for having been chosen, in words."""
    return [] if best is None else [Words(winner_sentence(best, best.arms[0].arm))]


def _policies(content: FidelityResult) -> Table:
    """A row for each policy, the best first."""
    chances = {} if content.best is None else {one.arm: one.best for one in content.best.arms}
    rows = [
        (
            plain(i, i),
            plain(p.policy),
            numeric(percent, p.lift, 2),
            plain(interval(p.low, p.high, 2)),
            Cell(chance_words(chances[p.policy]), chances[p.policy])
            if p.policy in chances
            else plain("n/a"),
            numeric(number, p.per_request),
        )
        for i, p in enumerate(_ranked(content.policies), 1)
    ]
    heads = columns(
        "Place", "Policy", "Online lift", "95% interval", "Is best", "Per request", text=2
    )
    return Table("Policies online", heads, rows)


def _figures(content: FidelityResult) -> Table:
    """A row for each offline figure, the best correlated first."""
    rows = []
    for f in content.figures:
        ordered = Cell("n/a", None)
        if is_defined(f.ordered):
            ordered = Cell(f"{_share(f.ordered)} ± {_share(f.ordered_error)}", f.ordered)
        covered = "n/a" if f.covered is None else f"{f.covered} of {f.policies}"
        rows.append(
            (
                plain(f.figure),
                Cell(f"{f.usable} of {f.policies}", f.usable),
                ordered,
                numeric(two, f.rho),
                plain(between(f.low, f.high, two)),
                plain(between(f.new_low, f.new_high, two)),
                numeric(probability, f.p_adjusted),
                numeric(_share, f.error),
                plain(covered),
                plain(f.pick),
                plain(len(f.tied), len(f.tied)),
                Cell(f"{_share(f.lost)} ({_share(f.lost_low)} to {_share(f.lost_high)})", f.lost),
            )
        )
    heads = columns(
        "Offline figure",
        "Usable",
        "Ordered right",
        "Spearman",
        "By noise",
        "For new policies",
        "Adjusted p",
        "Relative error",
        "Covered",
        "Pick",
        "Tied with it",
        "Lift lost by its pick",
    )
    return Table("Offline figures", heads, rows)


def save(content: FidelityResult, folder: Path) -> Path:
    """Write fidelity.json, .md, .svg and .html; returns the page."""
    label = "offline figures against online lift"
    svg = picture(_scatters(content), COLUMNS, SIZE, label) + "\n"
    shown = document(content)
    return saved.save(folder, "fidelity", encode(content), shown, {"fidelity.svg": svg})
