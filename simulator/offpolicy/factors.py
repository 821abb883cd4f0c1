"""The compiled loops of a model of answers: the fit of a factorised logistic regression, row after
row, its parts for given pairs, and what was logged near them.

Importing this module imports numba: do so inside the function that needs it. Without `fastmath`,
and with the `exp` of `policies.elementary`, a fit has the same bits on every processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.elementary import exp
from policies.jit import njit

PARTS = 3
"""Numbers that `parts` gives of a pair: user and item together, the user alone, the item alone."""


@njit()
def _step(value: Any, slope: Any, squares: Any, at: Any, rate: float) -> Any:
    """One step of AdaGrad (Duchi, Hazan & Singer, JMLR 2011); adds to `squares[at]`."""
    squares[at] += slope * slope
    return value - rate * slope / np.sqrt(squares[at])


@njit()
def _item_sum(item: int, groups: Any, vectors: Any, out: Any) -> None:
    """The item's row of `vectors` `[T, F]`, its own and those of its groups, added up in `out`."""
    for f in range(len(out)):
        out[f] = vectors[item, f]
    for g in range(groups.shape[0]):
        for f in range(len(out)):
            out[f] += vectors[groups[g, item], f]


@njit()
def fit(
    rows: Any,
    user: Any,
    item: Any,
    place: Any,
    reward: Any,
    groups: Any,
    ridge: Any,
    rate: float,
    users: Any,
    items: Any,
    places: Any,
    squares: Any,
) -> None:
    """One pass over `rows`: a step down the log loss of each, with its share of the penalty.

    The log-odds of a reward are `places[place] + u[0] + v[0] + sum_f u[f] v[f]` over the factors
    f >= 1, with u the row of the user and v the sum of the rows of the item and of its groups.

    Args:
        rows: `[N]` which impressions, in the order of the steps.
        user, item, place, reward: `[M]` of all impressions; rewards within 0..1.
        groups: `[G, n_items + 1]` row of `items` of each group of each item.
        ridge: `[2]` arrays `[n_users, 2]` and `[T, 2]`: penalty on the bias and on each factor of
            a user, of an item or a group, at each of its impressions.
        rate: of the steps.
        users, items, places: `[n_users, F]`, `[T, F]`, `[K]`; changed.
        squares: the sums of squared slopes of the three; changed.
    """
    of_users, of_items = ridge
    user_squares, item_squares, place_squares = squares
    width = users.shape[1]
    v = np.empty(width)
    for row in rows:
        u, i, k = user[row], item[row], place[row]
        _item_sum(i, groups, items, v)
        z = places[k] + users[u, 0] + v[0]
        for f in range(1, width):
            z += users[u, f] * v[f]
        error = 1.0 / (1.0 + exp(-z)) - reward[row]
        places[k] = _step(places[k], error, place_squares, k, rate)
        for f in range(width):
            kind = 0 if f == 0 else 1
            own = users[u, f]
            to_user = error * (1.0 if f == 0 else v[f]) + of_users[u, kind] * own
            to_item = error * (1.0 if f == 0 else own)
            users[u, f] = _step(own, to_user, user_squares, (u, f), rate)
            slope = to_item + of_items[i, kind] * items[i, f]
            items[i, f] = _step(items[i, f], slope, item_squares, (i, f), rate)
            for g in range(groups.shape[0]):
                j = groups[g, i]
                slope = to_item + of_items[j, kind] * items[j, f]
                items[j, f] = _step(items[j, f], slope, item_squares, (j, f), rate)


@njit()
def parts(user: Any, item: Any, groups: Any, users: Any, items: Any, out: Any) -> None:
    """What makes up the log-odds of pairs, `out` `[N, PARTS]`: the product of user and item, the
    user's own level, the item's; 0 of no item.
    """
    width = users.shape[1]
    v = np.empty(width)
    for n in range(len(user)):
        u, i = user[n], item[n]
        out[n] = 0.0
        if i == 0:
            continue
        _item_sum(i, groups, items, v)
        for f in range(1, width):
            out[n, 0] += users[u, f] * v[f]
        out[n, 1], out[n, 2] = users[u, 0], v[0]


FAR = 8.0
"""Time constants beyond which an impression is not near: exp(-8) of its weight is left."""


@njit()
def nearby(
    user: Any,
    item: Any,
    t: Any,
    left_out: int,
    logged: Any,
    groups: Any,
    vectors: Any,
    rates: Any,
    out: Any,
) -> None:
    """Add up the logged impressions of the same user by likeness and nearness in time.

    Args:
        user, item, t: `[N]` of what is asked; item 0 = none.
        left_out: the fold whose impressions do not count.
        logged: `begin` `[n_users + 1]`, and of the logged impressions, by user, `t`, `item`, `fold`
            and `surplus` `[M]`.
        groups: `[G, n_items + 1]` group of each item; likeness 1 within one.
        vectors: `[V, n_items + 1, F]` of length 1; likeness the squared cosine, where above 0.
        rates: `[H]` per ms: an impression weighs exp(-rate x distance in time).
        out: `[N, G + V, H, 2]` sums of weight x likeness x surplus, and of weight x likeness.
    """
    begin, at, what, fold, surplus = logged
    weights = np.empty(len(rates))
    for n in range(len(user)):
        i = item[n]
        if i == 0:
            continue
        last = begin[user[n]]
        for row in range(begin[user[n]], begin[user[n] + 1]):
            if row == begin[user[n]] or at[row] != at[last]:  # impressions of a request share it
                last = row
                for h in range(len(rates)):
                    far = abs(t[n] - at[row]) * rates[h]
                    weights[h] = exp(-far) if far < FAR else 0.0
            if fold[row] == left_out:
                continue
            k = what[row]
            for s in range(out.shape[1]):
                like = 0.0
                if s < groups.shape[0]:
                    if groups[s, i] == groups[s, k]:
                        like = 1.0
                else:
                    v = s - groups.shape[0]
                    for f in range(vectors.shape[2]):
                        like += vectors[v, i, f] * vectors[v, k, f]
                    like = like * like if like > 0.0 else 0.0
                if like > 0.0:
                    for h in range(len(rates)):
                        out[n, s, h, 0] += weights[h] * like * surplus[row]
                        out[n, s, h, 1] += weights[h] * like
