"""What moved in Airflow between 3.1 and 3.3, for the tests."""

from __future__ import annotations

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

try:
    from airflow.sdk.exceptions import TaskAwaitingInput
except ImportError:  # below Airflow 3.3 a task defers until a person answers
    from airflow.providers.common.compat.sdk import TaskDeferred as TaskAwaitingInput

__all__ = ["DagSerialization", "TaskAwaitingInput"]
