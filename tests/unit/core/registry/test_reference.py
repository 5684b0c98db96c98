"""What drift is measured against goes with the version that serves: bound at promotion, restored by a rollback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_mlops.core.data.dataset import write_table
from airflow_mlops.core.drift.binding import champion_profile
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.steps import StepContext


@pytest.fixture
def data(mlflow_context: StepContext) -> Any:
    def make(level: float) -> Any:
        values = np.random.default_rng(int(level)).normal(level, 1, 500)
        return write_table(mlflow_context.store, pa.table({"x": values}), name=f"level {level:g}").to_dict()

    return make


def test_a_promotion_brings_its_reference_and_a_rollback_the_old_one(as_task: Any, versions: Any, data: Any) -> None:
    context = as_task("promote/1")
    promote_model(context, model=versions[0], reference=data(0), evidence=[])
    now = data(100)
    drifted = detect_drift(as_task("d/1"), current=now, reference="churn@champion")
    promote_model(as_task("promote/2"), model=versions[1], reference=now, evidence=[])
    same = detect_drift(as_task("d/2"), current=now, reference="churn@champion")
    rollback_model(as_task("back"), model_name="churn")
    again = detect_drift(as_task("d/3"), current=now, reference="churn@champion")

    assert [one["passed"] for one in (drifted, same, again)] == [False, True, False]
    assert champion_profile(context, "churn", "champion")[0] == 1


def test_without_a_reference_it_says_how_to_give_one(as_task: Any, versions: Any, data: Any) -> None:
    promote_model(as_task("promote/1"), model=versions[0], evidence=[])
    with pytest.raises(NotFoundError, match="promote it with reference="):
        detect_drift(as_task("d"), current=data(0), reference="churn@champion")
