"""A retraining: its period, a search that never sees the test rows, and why it was, on the version."""

from __future__ import annotations

# START search
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.registry import RegisterModelOperator
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.operators.training import TrainModelOperator

ROLES = {"key": "order_id", "time": "ordered_at", "target": "returned"}

with DAG(
    "orders_retraining",
    schedule=None,
    params={
        "data": Param("/data/orders/*.parquet", type="string"),
        "trained_at": Param("2026-01-01", type="string", description="When the present model was trained"),
    },
):
    decide = DecideRetrainingOperator(
        task_id="decide", model_name="orders", policy={"max_age": "60d"}, trained_at="{{ params.trained_at }}"
    )

    @task(multiple_outputs=True)
    def periods(decision: dict) -> dict:
        from airflow_mlops.core.policy.windows import search_window, training_window

        whole = training_window(decision["clock"], kind="sliding", length="180d", label_delay="30d")
        return {"whole": whole, "search": search_window(whole, test="28d")}

    @task
    def settings() -> list[dict]:
        from airflow_mlops.core.policy.windows import trials

        return trials({"C": {"low": 0.01, "high": 10.0, "log": True}}, champion={"C": 1.0}, count=3)

    @task(trigger_rule="all_done_min_one_success")  # a trial that failed is left out
    def choose(models: list[dict], period: dict) -> dict:
        from airflow_mlops.core.policy.windows import best

        return {"C": best(list(models), "roc_auc", before=period["end"])["training"]["recipe"]["hyperparameters"]["C"]}

    period = periods(decide.output)
    earlier = SnapshotDataOperator(
        task_id="earlier", source="{{ params.data }}", name="orders", roles=ROLES, window=period["search"]
    )
    search = TrainModelOperator.partial(task_id="search", dataset=earlier.output, trainer="shop.model:train").expand(
        hyperparameters=settings()
    )
    whole = SnapshotDataOperator(
        task_id="whole", source="{{ params.data }}", name="orders", roles=ROLES, window=period["whole"]
    )
    train = TrainModelOperator(
        task_id="train",
        dataset=whole.output,
        trainer="shop.model:train",
        hyperparameters=choose(search.output, period["search"]),
        split={"by": "time", "test": "28d"},
    )
    RegisterModelOperator(
        task_id="register",
        model=train.output,
        model_name="orders",
        tags={"reason": "{{ ti.xcom_pull('decide')['reason'] }}"},
    )
# END search
