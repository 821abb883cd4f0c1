"""Predictions of what users do, from what is known of them before the test, by a model that has
never seen the user: covariates that explain more than one column can.

Cross-fitted regression adjustment: Guo, Coey, Konutgan, Li, Schoener & Goldman, "Machine learning
for variance reduction in online experiments" (MLRATE, NeurIPS 2021); the prediction as a covariate
is CUPAC (Tang, Huang, Kastelman & Bauman, DoorDash 2020). Here predictions are made; the regression
on them, and its variance, is `moments.interacted_moments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Progress, silent
from simulator.stats.moments import Floats
from simulator.stats.unit_table import Keys, TableError, UnitTable, levels

Array = npt.NDArray[Any]

FOLDS = 5
"""Parts of the users; each is predicted by a model of the others."""

FEWEST = 100
"""Users below which nothing is fitted."""

CATEGORIES = 250
"""Levels of a column that the model tells apart; those of fewest users are one beyond that."""

MODEL = {
    "max_iter": 100,
    "learning_rate": 0.1,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "early_stopping": False,
    "random_state": 0,
}
"""Gradient boosted trees by histograms (`sklearn.ensemble.HistGradientBoostingRegressor`), which
take missing values and categories as they are. Nothing in it is drawn at random; `early_stopping`
would be.
"""

PREFIX = "predicted "
"""Of the names of covariates that are predictions."""


def folds_of(keys: Keys) -> npt.NDArray[np.int64]:
    """The fold `[units]` of each user."""
    return (keys % np.uint64(FOLDS)).astype(np.int64)


def design_matrix(features: Mapping[str, Array]) -> tuple[Floats, list[bool]]:
    """Columns `[units, p]` for the model, and which of them are categories: numbers as they are
    (NaN: missing), labels as numbers of their levels in alphabetical order.
    """
    columns, categorical = [], []
    for values in features.values():
        labelled = values.dtype.kind not in "fiub"
        categorical.append(labelled)
        columns.append(_codes(values) if labelled else values.astype(np.float64))
    return np.column_stack(columns), categorical


def _codes(values: Array) -> Floats:
    names, codes = levels(values)
    counts = np.bincount(codes, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[np.sort(order[:CATEGORIES])] = np.arange(min(len(order), CATEGORIES))
    rank[order[CATEGORIES:]] = CATEGORIES
    return rank[codes].astype(np.float64)


def cross_fitted(
    matrix: Floats,
    categorical: Sequence[bool],
    target: Floats,
    keys: Keys,
    weights: Floats | None = None,
    **model: Any,
) -> Floats:
    """Predictions `[units]` of a target, each by a model of the other folds.

    Args:
        matrix: `[units, p]` (`design_matrix`).
        categorical: which of the columns are categories.
        target: `[units]`.
        keys: `[units]` (`units.keys_of`); rows of one user have one key, and so are in one fold.
        weights: `[units]` how often each row counts; once if left out.
        model: settings in place of `MODEL`'s.

    Raises:
        TableError: the library is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise TableError(
            "predictions need scikit-learn, which is not installed: pip install 'abtest[ml]'"
        ) from error
    folds, predicted = folds_of(keys), np.empty(len(target))
    # Sums of a fit depend on the order of rows, which is that of the keys, and on the threads.
    order = np.lexsort((target, keys))
    settings = {**MODEL, **model}
    with threadpool_limits(1):
        for fold in range(FOLDS):
            others, own = order[folds[order] != fold], np.flatnonzero(folds == fold)
            if not len(own):
                continue
            trees = HistGradientBoostingRegressor(
                categorical_features=list(categorical), **settings
            )
            trees.fit(
                matrix[others],
                target[others],
                sample_weight=None if weights is None else weights[others],
            )
            predicted[own] = trees.predict(matrix[own])
    return predicted


def with_predictions(table: UnitTable, progress: Progress = silent) -> UnitTable:
    """The table with predictions of each metric as its covariates, from `table.features`: one of a
    mean, two of a ratio (its numerator and its denominator), whose variance they explain together.

    A metric that does not vary, or of which nothing can be predicted, has none.

    Args:
        table: of a split test.
        progress: called as ("report: predictions", sums done, sums, {}).

    Raises:
        TableError: a paired table, no features, too few users, or the library is not installed.
    """
    if table.paired:
        raise TableError(
            "predictions: a paired table needs none, twins have the same past and it cancels"
        )
    if not table.features or table.keys is None:
        raise TableError(
            "predictions: no column is known of users before the test; name some (--predictor), or"
            " give columns that end in _before or hold text"
        )
    if table.n_units < FEWEST:
        raise TableError(
            f"predictions: a model needs at least {FEWEST} users; there are {table.n_units}"
        )
    matrix, categorical = design_matrix(table.features)
    sums = [(name, "numerator", table.numerators[name]) for name in table.numerators]
    sums += [(name, "denominator", table.denominators[name]) for name in table.denominators]
    covariates, predicted = dict(table.covariates), dict[str, tuple[str, ...]]()
    made: dict[int, str] = {}
    for done, (name, half, values) in enumerate(sums):
        progress("report: predictions", done, len(sums), {})
        own = PREFIX + (name if half == "numerator" else f"denominator of {name}")
        if id(values) in made:
            own = made[id(values)]
        elif np.ptp(values) > 0:
            found = cross_fitted(
                matrix, categorical, np.asarray(values, dtype=np.float64), table.keys
            )
            if np.ptp(found) == 0:
                continue
            covariates[own] = found
        else:
            continue
        made[id(values)] = own
        predicted[name] = (*predicted.get(name, ()), own)
    progress("report: predictions", len(sums), len(sums), {})
    return replace(table, covariates=covariates, predicted=predicted)


def without_predictions(table: UnitTable) -> UnitTable:
    """The table as it was before (`with_predictions`); itself where nothing was predicted."""
    if not table.predicted:
        return table
    made = {name for names in table.predicted.values() for name in names}
    left = {name: values for name, values in table.covariates.items() if name not in made}
    return replace(table, covariates=left, predicted={})
