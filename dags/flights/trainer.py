"""The training function, as a data scientist would write it in a notebook."""

from __future__ import annotations

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from flights.features import CATEGORIES


def train(
    X: pd.DataFrame,
    y: pd.Series,
    *,
    seed: int = 0,
    max_iter: int = 100,
    learning_rate: float = 0.1,
    min_samples_leaf: int = 50,
) -> Pipeline:
    """Fit gradient-boosted trees on the features and return the fitted pipeline."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    encode = make_column_transformer((codes, CATEGORIES), remainder="passthrough")
    boost = HistGradientBoostingClassifier(
        max_iter=max_iter,
        learning_rate=learning_rate,
        min_samples_leaf=min_samples_leaf,
        categorical_features=list(range(len(CATEGORIES))),
        random_state=seed,
    )
    return make_pipeline(encode, boost).fit(X, y)
