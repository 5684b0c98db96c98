"""The trainer of the loop that the fault tests disturb."""

from __future__ import annotations

import pandas as pd
from sklearn.linear_model import LogisticRegression


def train(X: pd.DataFrame, y: pd.Series) -> LogisticRegression:
    """Fit a logistic regression."""
    return LogisticRegression().fit(X, y)
