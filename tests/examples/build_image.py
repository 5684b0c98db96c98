"""An image of the commit, and the model trained in it."""

from __future__ import annotations

from airflow.sdk import DAG

# START build
from airflow_mlops.operators.code import CheckoutCodeOperator
from airflow_mlops.operators.serving import BuildImageOperator
from airflow_mlops.operators.training import TrainModelOperator

with DAG("churn_in_its_image", schedule=None):
    code = CheckoutCodeOperator(
        task_id="checkout", repository="https://git.example.com/team/churn.git", ref="main", requirements=None
    )
    image = BuildImageOperator(task_id="image", context=code.output, tag="churn:{{ ti.xcom_pull('checkout')['sha'] }}")
    TrainModelOperator(
        task_id="train",
        dataset="/data/customers.csv",
        target="churned",
        trainer="churn_project:fit",
        runtime={
            "image": "{{ ti.xcom_pull('image')['id'] }}",
            "code": ["{{ ti.xcom_pull('checkout')['path'] }}"],
        },
        code=[code.output, image.output],
    )
# END build
