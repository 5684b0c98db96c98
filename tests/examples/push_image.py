"""An image of a commit for every machine that may read the registry."""

from __future__ import annotations

# START push
from airflow.sdk import DAG

from airflow_mlops.operators.code import CheckoutCodeOperator
from airflow_mlops.operators.serving import BuildImageOperator

with DAG("push_image", schedule=None) as dag:
    code = CheckoutCodeOperator(
        task_id="checkout",
        repository="https://git.example.com/churn.git",
        git_conn_id="churn_code",
        requirements=None,  # the image has them
    )
    BuildImageOperator(
        task_id="image",
        context=code.output,
        tag="registry.example.com/team/churn:{{ ti.xcom_pull('checkout')['sha'][:12] }}",
        docker_conn_id="registry",
        push=True,
    )
# END push
