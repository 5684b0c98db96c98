"""What moved in Airflow between 3.1 and 3.3, for the tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

try:
    from airflow.sdk.exceptions import TaskAwaitingInput  # noqa: TID251
except ImportError:  # below Airflow 3.3 a task defers until a person answers
    from airflow.providers.common.compat.sdk import TaskDeferred as TaskAwaitingInput

__all__ = ["ByAsset", "DagSerialization", "TaskAwaitingInput"]


class ByAsset(Mapping[Any, Any]):
    """Values by assets, which Airflow 3.1 cannot hash."""

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[Any]:
        return (asset for asset, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Any) -> Any:
        return next(value for asset, value in self.pairs if asset == key)
