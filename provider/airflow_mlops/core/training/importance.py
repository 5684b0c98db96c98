"""How much each column of the data matters to a model: what monitoring tells first is what the model goes by.

A column's values are shuffled among some test rows, and what the model says is compared with what it said before: the
mean change of its output, as a share of that of all columns. The columns are those of the data, whatever the model
makes of them inside (a features function, a pipeline, one-hot columns), and any model that predicts will do.

This is permutation importance (Breiman 2001, "Random Forests") with the change of the predictions in the place of the
rise of the error: it asks what the model uses, not whether it is right to, and needs no labels. Columns that say the
same share what they matter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.training.predictions import Predictions, predict

if TYPE_CHECKING:
    import logging

    import numpy as np
    import pandas

    Array: TypeAlias = np.ndarray[Any, Any]

#: Test rows that are looked at, how many at least, and rows of one call of the model.
ROWS, LEAST_ROWS, ROWS_AT_ONCE = 1_000, 100, 16_000
#: Seconds that it may take, by what the first call took; a slower model is asked about fewer rows, or not at all.
BUDGET = 2.0
#: Columns that are put on record, those that matter most.
KEPT = 100


def importance_of(model: Any, frame: pandas.DataFrame, log: logging.Logger) -> dict[str, float] | None:
    """Return the columns by how much they matter to a model, what matters most first; the shares of all sum to 1.

    :param model: what predicts frames.
    :param frame: the raw columns of rows that it was not trained on.
    :return: None where that cannot be told: the model fails on such rows, is too slow, or says the same of all.
    """
    import numpy as np

    if frame.empty or not len(frame.columns):
        return None
    sample = _spread(frame, ROWS)
    try:
        began = time.perf_counter()
        before = predict(model, sample)
        # What one row takes, as if a call cost nothing by itself: an upper limit.
        each = (time.perf_counter() - began) / len(sample)
        affordable = int(BUDGET / max(each * len(frame.columns), 1e-12))
        if affordable < min(LEAST_ROWS, len(sample)):
            log.info("What matters to the model is not measured: it takes %.0f ms a row", each * 1e3)
            return None
        if affordable < len(sample):
            sample = _spread(sample, affordable)
            before = predict(model, sample)
        changes = _changes(model, sample, before)
    except Exception as error:
        log.info("What matters to the model cannot be measured: %s", type(error).__name__)
        return None
    total = float(np.sum(list(changes.values())))
    if not np.isfinite(total) or total <= 0:
        return None
    shares = {name: round(change / total, 6) for name, change in changes.items()}
    ordered = sorted(shares.items(), key=lambda one: -one[1])[:KEPT]
    log.info("What matters most to the model: %s", ", ".join(f"{name} {share:.0%}" for name, share in ordered[:5]))
    return dict(ordered)


def _changes(model: Any, sample: pandas.DataFrame, before: Predictions) -> dict[str, float]:
    """Return the mean change of the model's output when a column is shuffled, several columns in one call."""
    import numpy as np
    import pandas as pd

    rows, random = len(sample), np.random.default_rng(0)
    names = list(sample.columns)
    step = max(1, ROWS_AT_ONCE // rows)
    found = {}
    for start in range(0, len(names), step):
        some = names[start : start + step]
        shuffled = [
            sample.assign(**{name: sample[name].take(random.permutation(rows)).set_axis(sample.index)}) for name in some
        ]
        after = predict(model, pd.concat(shuffled, ignore_index=True))
        for place, name in enumerate(some):
            found[str(name)] = _apart(before, after.take(slice(place * rows, (place + 1) * rows)))
    return found


def _apart(before: Predictions, after: Predictions) -> float:
    """Return the mean change: of probabilities, scores or numbers, else the share of labels that are others."""
    import numpy as np

    for one, other in ((before.probabilities, after.probabilities), (before.scores, after.scores)):
        if one is not None and other is not None:
            return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())
    labels = np.asarray(before.labels), np.asarray(after.labels)
    if before.classes is None and all(one.dtype.kind in "iuf" for one in labels):
        return float(np.abs(labels[0].astype(float) - labels[1].astype(float)).mean())
    return float((labels[0] != labels[1]).mean())


def _spread(frame: pandas.DataFrame, rows: int) -> pandas.DataFrame:
    """Return rows that are spread evenly over a frame."""
    import numpy as np

    places = np.linspace(0, len(frame) - 1, min(rows, len(frame))).astype(int)
    spread: pandas.DataFrame = frame.iloc[places].reset_index(drop=True)
    return spread
