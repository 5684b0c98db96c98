"""One pass over a dataset that leaves a summary of each column, in bounded memory and on both cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift.categories import CategorySummary
from airflow_mlops.core.drift.numeric import MANY, SMALL_ROWS, NumericSummary, numpy_name
from airflow_mlops.core.drift.scores import Summary

if TYPE_CHECKING:
    from airflow_mlops.core.drift.reading import Opened


def new_summary(kind: str, arrow_type: Any, rows: int) -> Summary:
    """Return an empty summary of a column.

    :param kind: ``numeric`` or ``categorical``.
    :param rows: at most so many rows will come: a small dataset is kept exactly.
    """
    if kind == "categorical":
        return CategorySummary()
    return NumericSummary(keep=SMALL_ROWS if rows <= SMALL_ROWS else MANY, dtype=numpy_name(arrow_type))


def summarize(opened: Opened, kinds: Mapping[str, str]) -> dict[str, Summary]:
    """Return a summary of each column, from one pass over the dataset.

    :param kinds: ``{column: "numeric" or "categorical"}``.
    """
    summaries = {name: new_summary(kind, opened.schema.field(name).type, opened.rows) for name, kind in kinds.items()}
    if summaries:
        feed(summaries, opened.batches(list(kinds), texts(opened, kinds)))
    return summaries


def texts(opened: Opened, kinds: Mapping[str, str]) -> list[str]:
    """Return the columns that are worth reading as dictionaries."""
    import pyarrow as pa

    return [
        name
        for name, kind in kinds.items()
        if kind == "categorical" and pa.types.is_string(opened.schema.field(name).type)
    ]


def feed(summaries: Mapping[str, Summary], batches: Iterable[Any]) -> None:
    """Add all rows of record batches to summaries; while one batch is counted, the next one is read."""
    workers = max(min(os.cpu_count() or 1, len(summaries), 4), 1)
    names = list(summaries)
    shares = [names[start::workers] for start in range(workers)]

    def add(batch: Any, mine: list[str]) -> None:
        for name in mine:
            summaries[name].add(batch.column(name))

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="summarize") as pool:
        running: list[Future[None]] = []
        for batch in batches:
            for future in running:
                future.result()
            running = [pool.submit(add, batch, mine) for mine in shares]
        for future in running:
            future.result()
