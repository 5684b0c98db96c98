"""Customers that land on S3: waited for, validated, trained on, and released, with the store on S3 as well."""

from __future__ import annotations

# START lake
from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.sensors.data import NewDataSensor

with DAG(
    "churn_from_the_lake",
    schedule="@daily",
    catchup=False,
    params={
        "customers": Param("s3://lake/customers/*.parquet", type="string"),
        "settle": Param("60s", type="string"),
    },
    default_args={"aws_conn_id": "lake"},
):
    landed = NewDataSensor(
        task_id="landed",
        source="{{ params.customers }}",
        since="{{ prev_start_date_success }}",
        settle="{{ params.settle }}",
        deferrable=True,
    )
    snapshot = SnapshotDataOperator(
        task_id="snapshot",
        source="{{ params.customers }}",
        name="customers",
        roles={"key": "customer_id", "time": "seen_at", "target": "churned"},
    )
    validate = ValidateDataOperator(
        task_id="validate",
        dataset=snapshot.output,
        expectations=[{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "customer_id"}}],
    )
    train = TrainModelOperator(
        task_id="train",
        dataset=validate.output,
        trainer="churn_model:train",
        features="churn_model:features",
        split={"by": "time", "test": 0.25},
        experiment="churn",
    )
    test = EvaluateModelOperator(
        task_id="test",
        model=train.output,
        tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.6}, {"kind": "signature"}],
    )
    register = RegisterModelOperator(
        task_id="register", model=train.output, model_name="churn", evidence=[validate.output, test.output]
    )
    promote = PromoteModelOperator(task_id="promote", model=register.output, alias="champion")
    landed >> snapshot
# END lake
