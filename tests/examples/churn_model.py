"""What a data scientist hands over: a module that stands beside the DAG file."""

# START module
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def features(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(calls_per_month=raw["calls"] / raw["months"].clip(lower=1))


def train(X, y, *, C=1.0, random_state=0):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, random_state=random_state)).fit(X, y)


# END module
