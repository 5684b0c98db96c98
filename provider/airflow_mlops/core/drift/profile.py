"""Reference profiles: a summarised dataset as a small JSON document, checked when it is read.

A profile holds what a comparison needs of the reference, so that only the current data is read. Numbers are counted on
a grid, in a few kilobytes a column; values of columns of the role ``private`` stand in it as digests.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core import digests
from airflow_mlops.core.drift.categories import CategorySummary
from airflow_mlops.core.drift.columns import kind_of
from airflow_mlops.core.drift.grid import Grid
from airflow_mlops.core.drift.numeric import MANY, NumericSummary, Table
from airflow_mlops.core.drift.scores import Summary
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.errors import IntegrityError, SpecError
from airflow_mlops.core.plain import clean
from airflow_mlops.core.vocabulary import role_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from airflow_mlops.core.drift.reading import Opened

    Array: TypeAlias = np.ndarray[Any, Any]

#: Profiles of another version are not read.
VERSION = 1


@dataclass(frozen=True)
class Profile:
    """A summarised dataset.

    :param name: of the dataset.
    :param dataset: its ref, to go back to where a bound must be settled; None where it is not kept.
    :param columns: the summaries.
    :param hashed: columns whose categories are digests.
    """

    name: str
    schema: pyarrow.Schema
    rows: int
    columns: Mapping[str, Summary]
    roles: dict[str, Any]
    window: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    hashed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON, with its digest."""
        body = clean(
            {
                "schema": 1,
                "kind": "profile",
                "version": VERSION,
                "name": self.name,
                "arrow_schema": _text(self.schema.serialize().to_pybytes()),
                "rows": self.rows,
                "roles": self.roles,
                "window": self.window,
                "dataset": self.dataset,
                "hashed": list(self.hashed),
                "columns": {name: to_json(one) for name, one in self.columns.items()},
            }
        )
        return {**body, "content": digests.hex_of(digests.of_json(body))}

    @classmethod
    def from_dict(cls, value: Any, where: str = "the profile") -> Profile:
        """Read a profile.

        :raises SpecError: if it is none, or of another version.
        :raises IntegrityError: if it was altered.
        """
        import pyarrow as pa

        if not isinstance(value, dict) or value.get("kind") != "profile":
            raise SpecError(f"{where} is no reference profile")
        if value.get("version") != VERSION:
            raise SpecError(
                f"{where} has version {value.get('version')}, and this provider reads version {VERSION}: build it "
                "again, by promoting the model again or by giving a dataset as the reference"
            )
        body = {key: one for key, one in value.items() if key != "content"}
        if digests.hex_of(digests.of_json(body)) != value.get("content"):
            raise IntegrityError(
                f"{where} was altered in the store: its content is not that of its digest. Build it again, by "
                "promoting the model again or by giving a dataset as the reference"
            )
        return cls(
            name=value["name"],
            schema=pa.ipc.read_schema(pa.py_buffer(_bytes(value["arrow_schema"]))),
            rows=value["rows"],
            columns={name: from_json(one) for name, one in value["columns"].items()},
            roles=value["roles"],
            window=value["window"],
            dataset=value["dataset"],
            hashed=tuple(value["hashed"]),
        )

    def merge(self, other: Profile) -> Profile:
        """Return the profile of the rows of both; only columns that both have in one kind stay."""
        columns: dict[str, Summary] = {}
        for name, one in self.columns.items():
            its = other.columns.get(name)
            merged = _merged(one, its) if its is not None else None
            if merged is not None:
                columns[name] = merged
        return dataclasses.replace(self, rows=self.rows + other.rows, columns=columns, window=None, dataset=None)


def _merged(one: Summary, other: Summary) -> Summary | None:
    if isinstance(one, NumericSummary):
        return one.merge(other) if isinstance(other, NumericSummary) else None
    return one.merge(other) if isinstance(other, CategorySummary) else None


def build(opened: Opened, summaries: Mapping[str, Summary] | None = None, *, keep: bool = True) -> Profile:
    """Return the profile of a dataset.

    :param summaries: where they are taken already; default: of all columns that can be compared.
    :param keep: whether the profile names the dataset, which then stays in the store as long as the profile does.
    """
    if summaries is None:
        summaries = summarize(opened, comparable(opened))
        opened.check_unchanged()
    private = role_columns(opened.ref.roles, "private")
    hashed = tuple(n for n in private if isinstance(summaries.get(n), CategorySummary))
    rows = next((one.rows for one in summaries.values()), opened.rows)
    read = vars_of(opened) if opened.window else None
    return Profile(
        name=opened.ref.name,
        schema=opened.schema,
        rows=rows,
        columns={name: fingerprinted(one) if name in hashed else compact(one) for name, one in summaries.items()},
        roles=opened.ref.roles,
        window=vars_of(opened),
        dataset={**opened.ref.to_dict(), "columns": None, "read_window": read} if keep else None,
        hashed=hashed,
    )


def vars_of(opened: Opened) -> dict[str, Any] | None:
    """Return the window that a dataset was opened with, else its own."""
    return {"start": opened.window.start, "end": opened.window.end} if opened.window else opened.ref.window


def comparable(opened: Opened) -> dict[str, str]:
    """Return the columns that can be compared, with their kinds; times count as numbers."""
    apart = role_columns(opened.ref.roles, "key", "time", "available_at", "weight", "group")
    kinds = {field.name: kind_of(field.type) for field in opened.schema}
    return {name: "numeric" if kind == "time" else kind for name, kind in kinds.items() if kind and name not in apart}


def compact(summary: Summary) -> Summary:
    """Return a summary that is small: a column of many values is counted on a grid."""
    if isinstance(summary, CategorySummary) or summary.table is None or len(summary.table.values) <= MANY:
        return summary
    return summary.on_a_grid()


def fingerprinted(summary: Summary) -> Summary:
    """Return a summary whose categories are digests: what must not be read can still be compared."""
    if not isinstance(summary, CategorySummary) or summary.known is None:
        return summary
    counts = {hashlib.sha256(repr(key).encode()).hexdigest()[:16]: n for key, n in summary.known.items()}
    return CategorySummary(rows=summary.rows, missing=summary.absent, counts=counts)


def to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as JSON."""
    if isinstance(summary, CategorySummary):
        known = summary.known
        keys = None if known is None else [[type(key).__name__, _plain(key)] for key in known]
        counts = None if known is None else list(known.values())
        packed = None if keys is None else _text(_json(keys))
        return {
            "kind": "categorical",
            "rows": summary.rows,
            "missing": summary.absent,
            "keys": packed,
            "counts": counts,
        }
    table = summary.table
    value: dict[str, Any] = {
        "kind": "numeric",
        **{name: getattr(summary, name) for name in ("dtype", "rows", "missing", "infinite", "count")},
        # Text, because JSON has no infinity and other readers round.
        **{
            name: None if (one := getattr(summary, name)) is None else float(one).hex()
            for name in ("low", "high", "shift", "total", "squares")
        },
    }
    if table is not None:
        return {**value, "values": _packed(table.values), "counts": _packed(table.counts)}
    assert summary.bins is not None
    grid = summary.grid
    value["grid"] = [grid.exponent, grid.first, grid.last] if grid else None
    value["edges"] = _packed(summary.edges) if grid is None else None
    return {**value, "bins": _packed(summary.bins)}


def from_json(value: dict[str, Any]) -> Summary:
    """Read a summary."""
    if value["kind"] == "categorical":
        found = CategorySummary(rows=value["rows"], missing=value["missing"], counts=None)
        if value["keys"] is not None:
            import json

            keys = [_unplain(*one) for one in json.loads(_bytes(value["keys"]))]
            found.counts = dict(zip(keys, value["counts"], strict=True))
        return found
    names = ("dtype", "rows", "missing", "infinite", "count")
    floats: dict[str, Any] = {
        name: None if value[name] is None else float.fromhex(value[name])
        for name in ("low", "high", "shift", "total", "squares")
    }
    summary = NumericSummary(**{name: value[name] for name in names}, **floats)
    if "values" in value:
        table = Table(_unpacked(value["values"], "<f8"), _unpacked(value["counts"], "<i8"))
        return summary.with_table(table)
    summary.grid = Grid(*value["grid"]) if value["grid"] else None
    summary.own_edges = _unpacked(value["edges"], "<f8") if value["edges"] else None
    summary.bins = _unpacked(value["bins"], "<i8")
    return summary


def _plain(key: Any) -> Any:
    return key if isinstance(key, (str, bool, int)) else key.hex() if isinstance(key, float) else str(key)


def _unplain(kind: str, value: Any) -> Any:
    import datetime as dt

    if kind == "float":
        return float.fromhex(value)
    if kind in ("date", "datetime", "time"):
        return getattr(dt, kind).fromisoformat(value)
    if kind == "Decimal":
        import decimal

        return decimal.Decimal(value)
    return value


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=True).encode()


def _packed(array: Array) -> str:
    import numpy as np

    return _text(np.ascontiguousarray(array, dtype="<i8" if array.dtype.kind in "iu" else "<f8").tobytes())


def _unpacked(text: str, kind: str) -> Array:
    import numpy as np

    return np.frombuffer(_bytes(text), dtype=kind).astype(kind[1:])


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
