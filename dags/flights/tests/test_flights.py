"""What must hold before a commit is worth a training run: features, and a model that learns from them."""

from __future__ import annotations

import math
import unittest

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from flights.features import CATEGORIES, features
from flights.source import SCHEDULE, WEATHER
from flights.trainer import train


def flights(rows: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return flights of no airline: wind and rain make them late."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(50, 10, rows) for name in WEATHER})
    frame["wind_gust"] = np.where(rng.random(rows) < 0.8, np.nan, frame["wind_gust"])
    for name in CATEGORIES:
        frame[name] = rng.choice(["AA", "BB", "CC"], rows)
    frame["distance"] = rng.integers(100, 2500, rows)
    hours, minutes = rng.integers(5, 23, rows), rng.integers(0, 60, rows)
    frame["sched_dep_time"] = hours * 100 + minutes
    frame["sched_arr_time"] = (hours + 1) % 24 * 100 + minutes
    frame["weekday"] = rng.integers(0, 7, rows)
    return frame[[*SCHEDULE, *WEATHER]]


class Features(unittest.TestCase):
    def test_clock_times_are_minutes_of_the_day(self) -> None:
        row = flights(1).assign(sched_dep_time=1345, sched_arr_time=15)
        made = features(row).iloc[0]
        self.assertEqual(made["sched_dep_time"], 13 * 60 + 45)
        self.assertEqual(made["duration"], 24 * 60 - (13 * 60 + 45) + 15, "over midnight")

    def test_the_raw_rows_stay_as_they_are(self) -> None:
        raw = flights(10)
        before = raw.copy()
        features(raw)
        pd.testing.assert_frame_equal(raw, before)

    def test_a_row_alone_gives_what_it_gives_among_others(self) -> None:
        raw = flights(20)
        pd.testing.assert_frame_equal(features(raw).iloc[[7]], features(raw.iloc[[7]]))


class Trainer(unittest.TestCase):
    def test_it_learns_and_says_probabilities(self) -> None:
        raw = flights()
        late = ((raw["wind_speed"] + raw["precip"] + np.random.default_rng(1).normal(0, 5, len(raw))) > 105).astype(int)
        made = features(raw)
        model = train(made[:1500], late[:1500], seed=0, max_iter=20)
        said = model.predict_proba(made[1500:])[:, 1]
        self.assertTrue(np.isfinite(said).all())
        self.assertGreater(roc_auc_score(late[1500:], said), 0.8)

    def test_the_same_seed_gives_the_same_model(self) -> None:
        raw = flights(500)
        late = (raw["wind_speed"] > 50).astype(int)
        first, second = (train(features(raw), late, seed=3, max_iter=5).predict_proba(features(raw)) for _ in range(2))
        self.assertTrue(math.isclose(float(np.abs(first - second).max()), 0.0))


if __name__ == "__main__":
    unittest.main()
