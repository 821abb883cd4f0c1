"""Allocation: how many users, fits and worlds show a lift of two *methods* at the least CPU time.

The relative difference of two methods, of n users and F fits in each of W worlds, has variance

    V = (A / n + B / F + E / (n F) + T) / W,

with the variances that a user (A), a fit (B), a user with one fit (E) and a world (T) add, each in
squared units of the control's mean (`stats.replication`, `stats.ensemble`); in one world T is left
out, and what is said is said of that world. Where users are divided over fits, E is in A and has no
part of its own. Worlds of one seed have the same users and the same seeds of training: their noise
is one error, which further worlds do not average away, as the verdict over them knows:

    V = A / n + B / F + E / (n F) + T / W.

It costs

    C = W (w + F f + n u),    u times F where users live with every fit,

with the seconds of a world, of a fit and of a user's test in all arms. Without regard to degrees of
freedom the cheapest has n / F = sqrt(A f / (B u)) where users are divided: the optimum of sampling
in two stages (Cochran, "Sampling techniques", 3rd edition 1977, section 10.6).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from simulator.stats.ensemble import FEWEST
from simulator.stats.power import MOST, Arms, PowerError
from simulator.stats.replication import Components, Dealing, mixed_df
from simulator.stats.verdict import noncentrality

MANY = 1000
"""Fits of an arm, or worlds, beyond which no plan is looked for."""

FEWEST_USERS = 8
"""Users of each fit where they are divided: fewer have no variance to speak of."""


@dataclass(frozen=True)
class Spread:
    """What the variance of a relative difference is made of, in squared units of the control's
    mean.

    Attributes:
        users, fits, interaction: as in `Components`; never below 0, and the interaction NaN where
            users are divided over fits.
        users_ends, fits_ends: 95% intervals of the first two, as if values were normal.
        n_users, n_fits: what these come from.
        worlds: of a true lift between worlds; None where it is not known.
        same_users: worlds have one seed, and so the same users.
    """

    users: float
    fits: float
    interaction: float
    users_ends: tuple[float, float]
    fits_ends: tuple[float, float]
    n_users: int
    n_fits: int
    worlds: float | None = None
    same_users: bool = False

    @classmethod
    def of(
        cls,
        parts: Components,
        mean: float,
        worlds: float | None = None,
        same_users: bool = False,
    ) -> Spread:
        """From the components of a pilot whose control has this `mean`.

        The interval of the fits is that of Tukey and Williams: the fits' means have variance B + R,
        which is known with F - 1 degrees of freedom, and R / n, what users bring to it, much better
        (Williams, "A confidence interval for variance components", Biometrika 1962; Searle,
        Casella & McCulloch, "Variance components", 1992, section 3.6).

        Raises:
            PowerError: the mean is 0, so that there is no relative lift.
        """
        if not (math.isfinite(mean) and mean != 0):
            raise PowerError(f"the control's mean must be a number other than 0; got {mean}")
        n, n_fits, square = parts.n_users, parts.n_fits, mean**2
        is_divided = math.isnan(parts.interaction)
        of_users = parts.users * n_fits / n if is_divided else parts.interaction / n
        fits = (max(end - of_users, 0.0) for end in _ends(parts.fits + of_users, n_fits - 1))
        users = max(parts.users, 0.0)
        return cls(
            users=users / square,
            fits=max(parts.fits, 0.0) / square,
            interaction=parts.interaction if is_divided else max(parts.interaction, 0.0) / square,
            users_ends=_scaled(_ends(users, n - 1), square),
            fits_ends=_scaled(fits, square),
            n_users=round(n),
            n_fits=n_fits,
            worlds=worlds,
            same_users=same_users,
        )

    @property
    def dealings(self) -> tuple[Dealing, ...]:
        """The ways to give fits to users that can be planned: users divided over fits do not tell
        what a user has with one fit only.
        """
        return ("divided",) if math.isnan(self.interaction) else ("divided", "crossed")

    def divided_by(self, arms: Arms, control: float, treatment: float, n_users: int) -> Spread:
        """The same for a split of `n_users` in all whose two arms have other shares of them than
        those of the pilot, where so many units were in the `control` and the `treatment`.

        What a user adds to the variance of the difference goes with 1 / share + 1 / share, users of
        both arms being alike (`power.Arms`); what a fit adds does not change.
        """
        factor = arms.factor / ((control + treatment) * (1.0 / control + 1.0 / treatment))
        low, high = (factor * end for end in self.users_ends)
        return replace(
            self,
            users=factor * self.users,
            interaction=factor * self.interaction,
            users_ends=(low, high),
            n_users=n_users,
        )

    def of_users(self, dealing: Dealing, n_fits: int) -> float:
        """The variance that falls with users, for one of them."""
        if math.isnan(self.interaction):
            return self.users
        return self.users + self.interaction / (n_fits if dealing == "crossed" else 1)

    def parts(
        self, dealing: Dealing, n_users: float, n_fits: int, n_worlds: int
    ) -> tuple[list[float], list[float]]:
        """The parts of the variance of the difference, and with how many degrees of freedom each is
        known.
        """
        of_users, of_fits = self.of_users(dealing, n_fits) / n_users, self.fits / n_fits
        worlds = (self.worlds or 0.0) / n_worlds
        if n_worlds > 1 and not self.same_users:
            return [(of_users + of_fits) / n_worlds + worlds], [n_worlds - 1.0]
        own, df = [of_users + of_fits], [n_fits - 1.0]
        if dealing == "crossed":
            own, df = [of_fits, of_users], [n_fits - 1.0, max(n_users - 1.0, n_fits - 1.0)]
        return (own, df) if n_worlds == 1 else ([worlds, *own], [n_worlds - 1.0, *df])


def _ends(variance: float, df: float, level: float = 0.95) -> Iterator[float]:
    """The interval of a variance that is known with `df` degrees of freedom."""
    from scipy.special import chdtri

    for tail in ((1 - level) / 2, (1 + level) / 2):
        yield float(variance * df / chdtri(df, tail))


def _scaled(ends: Iterator[float], square: float) -> tuple[float, float]:
    low, high = (end / square for end in ends)
    return low, high


@dataclass(frozen=True)
class Costs:
    """CPU seconds.

    Attributes:
        fit: one more fit of every arm.
        user: one user's whole test in all arms, with one fit each.
        world: what a further world takes before anything is fitted or simulated in it.
    """

    fit: float
    user: float
    world: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fit", "user"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise PowerError(
                    f"the seconds of a {name} must be a number above 0; got {getattr(self, name)}"
                )

    def of(self, dealing: Dealing, n_users: float, n_fits: int, n_worlds: int = 1) -> float:
        """CPU seconds of a whole test."""
        lives = n_users * (n_fits if dealing == "crossed" else 1)
        return n_worlds * (self.world + n_fits * self.fit + lives * self.user)


@dataclass(frozen=True)
class Allocation:
    """Users, fits and worlds of a test.

    Attributes:
        dealing: users are `divided` over fits, or `crossed` with them.
        n_users, n_fits: of each world.
        n_worlds: 1 where one world is spoken of.
        seconds: CPU time.
        share_of_fits: of the variance of the difference, what fits bring.
    """

    dealing: Dealing
    n_users: int
    n_fits: int
    n_worlds: int
    seconds: float
    share_of_fits: float


@dataclass(frozen=True)
class Requirement:
    """What a test is to show: a relative `lift`, with power `target`, at `level`."""

    lift: float
    target: float = 0.8
    level: float = 0.95


def detectable(
    spread: Spread, dealing: Dealing, n_users: float, n_fits: int, n_worlds: int, goal: Requirement
) -> float:
    """The smallest relative lift that a test shows with the power of the goal; inf for one fit in
    one world, or in worlds of one seed.
    """
    variances, df = spread.parts(dealing, n_users, n_fits, n_worlds)
    if min(df) < 1:
        return math.inf
    known = mixed_df(variances, df)
    return noncentrality(known, goal.target, goal.level) * math.sqrt(sum(variances))


def users_needed(
    spread: Spread, dealing: Dealing, n_fits: int, goal: Requirement, n_worlds: int = 1
) -> float:
    """The fewest users, of each world, with which so many fits show the lift; inf where no number
    of them does.

    Users are looked for on a grid and then between two of its points, because where they live with
    every fit more of them may show less: what is left is the fits' part, which few degrees of
    freedom tell.
    """
    least = FEWEST_USERS * (n_fits if dealing == "divided" else 1)
    grid = [least * 2.0**k for k in range(int(math.log2(MOST / least)))]
    low = float(least)
    for n in grid:
        if detectable(spread, dealing, n, n_fits, n_worlds, goal) <= abs(goal.lift):
            break
        low = n
    else:
        return math.inf
    while n - low > max(1.0, 1e-4 * n):
        middle = (low + n) / 2
        if detectable(spread, dealing, middle, n_fits, n_worlds, goal) <= abs(goal.lift):
            n = middle
        else:
            low = middle
    return math.ceil(n)


def frontier(
    spread: Spread, dealing: Dealing, costs: Costs, goal: Requirement, n_worlds: int = 1
) -> list[Allocation]:
    """For each number of fits the fewest users that show the lift; from the fewest fits that can,
    to those which alone cost more than the cheapest.
    """
    found: list[Allocation] = []
    least = math.inf
    for n_fits in _numbers(1 if n_worlds > 1 and not spread.same_users else 2):
        if costs.of(dealing, 0, n_fits, n_worlds) > least:
            break
        n = users_needed(spread, dealing, n_fits, goal, n_worlds)
        if math.isfinite(n):
            seconds = costs.of(dealing, n, n_fits, n_worlds)
            whole = sum(spread.parts(dealing, n, n_fits, n_worlds)[0])
            averaged = 1 if spread.same_users else n_worlds
            share = spread.fits / (n_fits * averaged) / whole if whole else math.nan
            found.append(Allocation(dealing, int(n), n_fits, n_worlds, seconds, share))
            least = min(least, seconds)
    return found


def _numbers(first: int) -> Iterator[int]:
    """Whole numbers: each one up to 20, then in steps of a tenth."""
    n = first
    while n <= MANY:
        yield n
        n += max(1, n // 10 if n >= 20 else 1)


def cheapest(plans: list[Allocation]) -> Allocation | None:
    """The plan of the least CPU time; None of none."""
    return min(plans, key=lambda plan: plan.seconds, default=None)


@dataclass(frozen=True)
class MethodPlan:
    """How a test of two methods is best laid out.

    Attributes:
        spread: what the pilot tells.
        costs: CPU seconds.
        share_of_fits: of what the pilot does not know, what is the fits'.
        shows, with_users, with_fits: smallest lift that the pilot's own numbers show; with twice
            its users; with MORE further fits.
        frontier: by number of fits and way of dealing.
        best: the cheapest of these; None where none shows the lift.
        cautious: the cheapest where fits differ as much as the upper end of their interval has it.
        over_worlds: the cheapest that shows the lift on average over worlds; None where what worlds
            bring is not known, or none does.
    """

    spread: Spread
    costs: Costs
    share_of_fits: float
    shows: float
    with_users: float
    with_fits: float
    frontier: tuple[Allocation, ...]
    best: Allocation | None
    cautious: Allocation | None
    over_worlds: Allocation | None = None


MORE = 3
"""Fits that a plan speaks of as further ones."""


def plan(spread: Spread, dealing: Dealing, costs: Costs, goal: Requirement) -> MethodPlan:
    """The plan from a pilot whose users lived with its fits as `dealing` says."""
    n, n_fits = spread.n_users, spread.n_fits
    wary = replace(spread, fits=spread.fits_ends[1])
    plans, wary_plans = (
        [one for way in spread.dealings for one in frontier(known, way, costs, goal)]
        for known in (spread, wary)
    )
    of_users, of_fits = spread.of_users(dealing, n_fits) / n, spread.fits / n_fits
    return MethodPlan(
        spread=spread,
        costs=costs,
        share_of_fits=of_fits / (of_users + of_fits) if of_users + of_fits else math.nan,
        shows=detectable(spread, dealing, n, n_fits, 1, goal),
        with_users=detectable(spread, dealing, 2 * n, n_fits, 1, goal),
        with_fits=detectable(spread, dealing, n, n_fits + MORE, 1, goal),
        frontier=tuple(plans),
        best=cheapest(plans),
        cautious=cheapest(wary_plans),
        over_worlds=None if spread.worlds is None else _over_worlds(spread, costs, goal),
    )


def _over_worlds(spread: Spread, costs: Costs, goal: Requirement) -> Allocation | None:
    """The cheapest test over worlds, each with its own fits, and with its own users where seeds
    differ.
    """
    best: Allocation | None = None
    for n_worlds in _numbers(FEWEST):
        if best is not None and costs.of("crossed", FEWEST_USERS, 1, n_worlds) > best.seconds:
            break
        for dealing in spread.dealings:
            plans = frontier(spread, dealing, costs, goal, n_worlds)
            best = cheapest([*plans, *([best] if best else [])])
    return best
