"""A version of a registered model goes to a server that answers over HTTP."""

from __future__ import annotations

# START deploy
from airflow.sdk import DAG, Param

from airflow_mlops.operators.serving import DeployModelOperator
from airflow_mlops.sensors.serving import ModelServerSensor

with DAG("churn_deployed", schedule=None, params={"model": Param("models:/churn@champion", type="string")}):
    deploy = DeployModelOperator(
        task_id="deploy",
        model="{{ params.model }}",
        server="churn",
        strategy="replace",
        checks=[{"kind": "example"}, {"kind": "offline"}, {"kind": "latency", "p95_ms": 2000}],
        capture={"sample": 0.1, "key": "customer"},
    )
    # In another DAG, or after a deployment by somebody else: go on once the gateway's answers are this model's.
    serves = ModelServerSensor(task_id="serves", server="churn", model=deploy.output)
# END deploy
