"""Every month: is what serves better than what served before, and is a challenger better than what serves?"""

from __future__ import annotations

# START roles
from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_mlops.operators.training import TrainModelOperator

ROLES = {"key": "order_id", "time": "ordered_at", "target": "returned", "label_delay": "7d"}
# END roles

with DAG(
    "orders_monthly",
    schedule=None,
    max_active_runs=1,
    render_template_as_native_obj=True,
    params={
        "data": Param("/data/orders/*.parquet", type="string"),
        "start": Param("2026-04-01", type="string", description="First day to train on"),
        "clock": Param("2026-05-11", type="string", description="The present"),
        "hyperparameters": Param({}, type="object"),
        "reason": Param("by hand", type="string", description="Why; a decision's reason where there is one"),
    },
):
    # START probation
    probation = EvaluateModelOperator(
        task_id="probation",
        model="models:/orders@champion",
        dataset="{{ params.data }}",
        roles=ROLES,
        tests=[{"kind": "previous", "metric": "roc_auc", "probation": "60d", "margin": 0.01}],
        clock="{{ params.clock }}",
        fail_on="never",
    )
    rollback = RollbackModelOperator(task_id="rollback", model_name="orders", evidence=probation.output)
    # END probation

    snapshot = SnapshotDataOperator(
        task_id="snapshot",
        source="{{ params.data }}",
        name="orders",
        roles=ROLES,
        window={"start": "{{ params.start }}", "end": "{{ params.clock }}"},
        trigger_rule="none_failed",  # that there was nothing to roll back stops nothing
    )
    rollback >> snapshot
    train = TrainModelOperator(
        task_id="train",
        dataset=snapshot.output,
        trainer="shop.model:train",
        hyperparameters="{{ params.hyperparameters }}",
        split={"by": "time", "test": "20d"},
    )
    # START challenger
    test = EvaluateModelOperator(
        task_id="test",
        model=train.output,
        champion="orders@champion",
        tests=[
            {"kind": "champion", "metric": "roc_auc", "margin": 0.01},
            {"kind": "anchor", "metric": "roc_auc", "margin": 0.02},
        ],
        fail_on="never",  # a challenger that loses is no failure
    )
    register = RegisterModelOperator(
        task_id="register",
        model=train.output,
        model_name="orders",
        evidence=[test.output],
        reason="{{ params.reason }}",
    )
    PromoteModelOperator(task_id="promote", model=register.output, clock="{{ params.clock }}", fail_on="never")
    # END challenger
