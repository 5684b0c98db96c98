"""Learn thresholds from a reference, and judge windows by them: the passes over the data around :mod:`.learn`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift import learn
from airflow_mlops.core.drift.blocks import Binned, count, plain_values, tallies
from airflow_mlops.core.drift.orders import Order, Orders
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    Array: TypeAlias = np.ndarray[Any, Any]

#: Blocks that a reference without a time, or without a length of windows, is cut into, at most.
MAX_BLOCKS = 26

#: Opens the data anew: takes names of columns, yields record batches with these.
Batches: TypeAlias = "Callable[[list[str]], Iterable[pyarrow.RecordBatch]]"


@dataclass(frozen=True)
class Learned:
    """What was learnt of a reference.

    :param columns: by column.
    :param blocks: how many blocks it was learnt from.
    :param unit: what a block is, in words.
    :param orders: pairs of columns of which one is never above the other.
    """

    columns: dict[str, learn.Learnt]
    blocks: int
    unit: str
    sensitivity: learn.Sensitivity
    orders: list[Order] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        columns = {name: column.to_dict() for name, column in self.columns.items()}
        orders = [one.to_dict() for one in self.orders]
        kept = {"blocks": self.blocks, "unit": self.unit, "sensitivity": self.sensitivity}
        return {**kept, "columns": columns, "orders": orders}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Learned:
        """Read what :meth:`to_dict` wrote."""
        columns = {name: learn.Learnt(**column) for name, column in given["columns"].items()}
        orders = [Order(**one) for one in given.get("orders", [])]
        return cls(columns, given["blocks"], given["unit"], given["sensitivity"], orders)


def learn_reference(
    batches: Batches,
    ordered: dict[str, bool],
    *,
    time: str | None = None,
    length: dt.timedelta | None = None,
    rows: int,
    sensitivity: learn.Sensitivity = "normal",
) -> Learned:
    """Learn the thresholds of a reference.

    :param ordered: of each column to learn, whether its values have an order.
    :param time: the column that says when a row is of; without it rows are taken to stand in their order of time.
    :param length: of the windows that will be judged; default: the reference in at most :data:`MAX_BLOCKS` parts.
    :param rows: of the reference.
    :raises SpecError: if the reference is too short.
    """
    block_of, blocks, unit = _blocks(batches, time, length, rows)
    with_time = [time] if time else []

    def all_rows(names: list[str]) -> Iterable[pyarrow.RecordBatch]:
        return batches(list(dict.fromkeys([*names, *with_time])))

    first = tallies(ordered, blocks)
    orders = Orders(blocks, [name for name, is_ordered in ordered.items() if is_ordered])
    count(all_rows(list(ordered)), first, block_of(), [orders])
    binned: dict[str, Any] = {}
    for name, tally in first.items():
        if tally.many and tally.ordered:
            import numpy as np

            binned[name] = Binned.empty(learn.edges_of(np.concatenate(tally.sample)), blocks)
    if binned:
        count(all_rows(list(binned)), binned, block_of())
    columns = {name: learn.counted(binned.get(name, tally)) for name, tally in first.items()}
    return Learned(learn.learn(columns, sensitivity), blocks, unit, sensitivity, orders.kept(learn.MIN_BLOCKS))


def judge_window(learned: Learned, batches: Batches) -> dict[str, learn.Finding]:
    """Hold a window against what was learnt, in one pass over it."""
    import numpy as np

    counters: dict[str, Any] = {}
    for name, column in learned.columns.items():
        if column.ordered and column.known is None:
            counters[name] = Binned.empty(np.array(column.edges, dtype=float), 1)
        else:
            counters.update(tallies({name: column.ordered}, 1))
    orders = Orders(1, known=learned.orders)
    count(batches(list(counters)), counters, lambda batch: np.zeros(batch.num_rows, dtype=np.int64), [orders])
    broken = orders.broken_by()
    return {
        name: learn.with_order(learn.judge(column, counters[name]), *broken.get(name, (None, None)))
        for name, column in learned.columns.items()
    }


def _blocks(
    batches: Batches, time: str | None, length: dt.timedelta | None, rows: int
) -> tuple[Callable[[], Callable[[Any], Array]], int, str]:
    """Return what makes a function from batch to blocks, how many blocks there are, and what one is."""
    import numpy as np

    if time is None:
        blocks = min(MAX_BLOCKS, rows // learn.MIN_ROWS)
        _enough(blocks, f"{rows} rows", None)

        def by_row() -> Callable[[Any], Array]:
            seen = 0

            def block_of(batch: Any) -> Array:
                nonlocal seen
                positions = np.arange(seen, seen + batch.num_rows)
                seen += batch.num_rows
                block: Array = np.minimum(positions * blocks // max(rows, 1), blocks - 1)
                return block

            return block_of

        return by_row, blocks, f"{rows // blocks} rows"
    low, high = _span(batches, time)
    if length is None:
        blocks = max(1, min(MAX_BLOCKS, rows // learn.MIN_ROWS))
        seconds = (high - low + 1) / blocks
    else:
        seconds = length.total_seconds()
        # What is left over at the end, when it is less than half a block, belongs to the last one.
        blocks = max(1, round((high - low) / seconds))
    _enough(blocks, f"{(high - low) / 86400:.1f} days", None if length is None else seconds)

    def by_time() -> Callable[[Any], Array]:
        def block_of(batch: Any) -> Array:
            values, there = plain_values(batch.column(time), ordered=True)
            block = np.full(batch.num_rows, blocks - 1, dtype=np.int64)
            block[there] = np.clip((values - low) // seconds, 0, blocks - 1).astype(np.int64)
            return block

        return block_of

    days = seconds / 86400
    return by_time, blocks, f"{days:g} days" if days >= 1 else f"{seconds / 3600:.3g} hours"


def _span(batches: Batches, time: str) -> tuple[float, float]:
    low, high = float("inf"), float("-inf")
    for batch in batches([time]):
        values, _ = plain_values(batch.column(time), ordered=True)
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:
        raise SpecError(f"the time column {time!r} of the reference has no values")
    return low, high


def _enough(blocks: int, length: str, seconds: float | None) -> None:
    """Refuse a reference of too few blocks.

    :param seconds: how long a block is: what `block` says, else the window; None where it is counted in rows.
    """
    if blocks < learn.MIN_BLOCKS:
        each = f"{learn.MIN_ROWS} rows or more" if seconds is None else f"{seconds / 86400:.3g} days"
        shorter = "" if seconds is None else "shorter blocks (block='7d'), "
        raise SpecError(
            f"thresholds are learnt from {learn.MIN_BLOCKS} blocks or more, and a reference of {length} has only "
            f"{blocks} of {each}: give a longer reference, {shorter}or thresholds='evidently'"
        )
