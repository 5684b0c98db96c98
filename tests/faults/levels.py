"""The loop of the reference DAGs: level 3 watches a month of a few flights, level 4 answers.

Whether a flight is late follows from its hour, and from March on the other way round: the champion fails on May, and a
challenger that has seen March and April is better.
"""

from __future__ import annotations

import shutil
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np

from faults.loop import Loop
from faults.parts import ROOT, Parts

ROLES = {"key": "flight_id", "time": "scheduled_departure", "target": "late"}
PER_MONTH = 1500
#: The stages of the two DAGs, with the points at which a kill tells most.
STAGES = (
    (3, "data.land", "start"),
    (3, "data.snapshot", "snapshot.referenced"),
    (3, "data.quality", "report.details_written"),
    (3, "model.predict", "predict.published"),
    (3, "model.features", "drift.recorded"),
    (3, "model.predictions", "end"),
    (3, "model.performance", "history.recorded"),
    (3, "alert", "alert.recorded"),
    (4, "clock", "end"),
    (4, "probation.labels", "end"),
    (4, "probation.compare", "end"),
    (4, "probation.rollback", "start"),
    (4, "decide", "decide.recorded"),
    (4, "data.window", "start"),
    (4, "data.snapshot", "end"),
    (4, "data.validate", "validate.measured"),
    (4, "model.train", "train.model_uploaded"),
    (4, "model.test", "report.details_written"),
    (4, "model.register", "register.version_created"),
    (4, "release.promote", "promote.alias_moved"),
    (4, "tell", "end"),
)


class ReferenceLoop(Loop):
    """Levels 3 and 4 as they are, but for their names, the size of a month, and labels that come at once."""

    def __init__(self, name: str, home: Path, dags: Path) -> None:
        super().__init__(name, home, dags)
        self.dags = f"{name}_level_3", f"{name}_level_4"
        self.stages = [(f"{name}_level_{level}", task, point) for level, task, point in STAGES]
        changes = {
            '"mlops_level_': f'"{name}_level_',
            '"flights_drift"': f'"{name}_drift"',
            '"flights_performance"': f'"{name}_performance"',
            '"flights_late"': f'"{name}"',
            'name="flights"': f'name="{name}_training"',
            'name="flights_scored"': f'name="{name}_scored"',
            '"drop": 0.03, "windows": [2, 3]': '"drop": 0.03, "windows": [1, 1]',
            '"min_new_labels": 10_000': '"min_new_labels": 500',
            '"label_delay": Param("30d"': '"label_delay": Param("0d"',
            # Not the month that has just ended: there are no flights of it.
            "AssetOrTimeSchedule(timetable=MONTHLY, assets=DRIFT | PERFORMANCE)": "(DRIFT | PERFORMANCE)",
            'schedule=CronDataIntervalTimetable("0 6 1 * *", timezone="UTC")': "schedule=None",
            '~/airflow")), "flights")': f'~/airflow")), "inbox", "{name}")',
        }
        files = {level: (ROOT / "dags" / f"mlops_level_{level}.py").read_text() for level in (3, 4)}
        for old in changes:
            assert any(old in text for text in files.values()), f"no reference DAG has {old}"
        for level, text in files.items():
            for old, new in changes.items():
                text = text.replace(old, new)
            (dags / f"{name}_level_{level}.py").write_text(text)
        if not (dags / "flights").exists():
            shutil.copytree(ROOT / "dags" / "flights", dags / "flights")
        self.inbox.mkdir(parents=True)

    def first(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Land the months for all loops; return the model that they begin with, and its test."""
        sys.path.insert(0, str(self.folder))
        from flights.source import read_flights, write

        flights = read_flights()
        flights = flights[flights["scheduled_departure"].dt.year == 2013]
        months = flights["scheduled_departure"].dt.month
        for month in (1, 2, 3, 4, 5):
            few = flights[months == month].sample(PER_MONTH, random_state=month).sort_index()
            rng = np.random.default_rng(month)
            evening = (few["sched_dep_time"] > 1400) ^ (month >= 3)
            few["late"] = (rng.random(len(few)) < np.where(evening, 0.45, 0.05)).astype("int64")
            write(few, self.inbox.parent / f"flights-2013-{month:02}.parquet")
        return self.made(
            [str(self.inbox.parent / f"flights-2013-{month:02}.parquet") for month in (1, 2)],
            ROLES,
            "21d",
            trainer="flights.trainer:train",
            features="flights.features:features",
            hyperparameters={"max_iter": 20},
        )

    def release(self, made: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Make a model the first champion, and have the months at hand."""
        super().release(made)
        for file in self.inbox.parent.glob("flights-*.parquet"):
            shutil.copy(file, self.inbox)

    def begin(self, parts: Parts) -> None:
        """Have level 3 watch May."""
        conf = {"start": "2013-05-01", "end": "2013-06-01", "label_delay": "0d"}
        asked = {"conf": conf, "logical_date": None, "dag_run_id": "may"}

        def begun() -> bool:
            try:
                parts.api("POST", f"/dags/{self.dags[0]}/dagRuns", asked)
            except urllib.error.HTTPError as error:
                return error.code == 409  # SQLite is locked at times: it was begun, or is begun again
            return True

        parts.until(begun, "level 3 begins")
