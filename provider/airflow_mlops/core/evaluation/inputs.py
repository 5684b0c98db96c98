"""The rows that a model is tested on: a dataset, or a table or query of somebody else's, under the model's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.dataset import read_frame, resolve
from airflow_mlops.core.data.publishing import describe
from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.vocabulary import DatasetRef, check_roles

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext


@dataclass(frozen=True)
class Source:
    """Where rows come from: one of these.

    :param dataset: a dataset ref, path, glob or URI.
    :param table: a table in the database of ``MLOPS_SQL_URL``.
    :param sql: a query there, with ``parameters``.
    """

    dataset: Any = None
    table: str | None = None
    sql: str | None = None
    conn_id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return any(one not in (None, "", {}) for one in (self.dataset, self.table, self.sql))

    def check(self) -> None:
        """Make sure that there is at most one.

        :raises SpecError: if there are several.
        """
        if sum(one not in (None, "", {}) for one in (self.dataset, self.table, self.sql)) > 1:
            raise SpecError("give one of dataset, table and sql")


def read(
    context: StepContext,
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
) -> tuple[DatasetRef, pandas.DataFrame]:
    """Return the ref and the rows of a source, its columns under the names that the model uses.

    :param columns: ``{name that the model uses: name in the data}``.
    :param roles: by either name, added to those that the dataset brings.
    :param target: short for ``roles={"target": ...}``.
    :raises MissingColumnError: if ``columns`` names one that is not there.
    """
    source.check()
    ref, frame = _database(context, source) if source.dataset in (None, "", {}) else _dataset(context, source)
    frame = renamed(frame, columns or {}, ref.name)
    added = check_roles({**(roles or {}), **({"target": target} if target else {})})
    merged = in_our_names({**ref.roles, **added}, columns or {})
    return dataclasses.replace(ref, roles=merged), frame


def renamed(frame: pandas.DataFrame, columns: Mapping[str, str], where: str) -> pandas.DataFrame:
    """Return a frame under the names that the model uses.

    :raises MissingColumnError: if a column is not there.
    :raises SpecError: if two columns would have one name.
    """
    theirs = [str(name) for name in frame.columns]
    for ours, name in columns.items():
        if name not in theirs:
            raise MissingColumnError(
                f"columns: {ours!r} stands for {name!r}, which is not in {where}{did_you_mean(str(name), theirs)}",
                column=str(name),
            )
    ours_of = {name: ours for ours, name in columns.items()}
    names = [ours_of.get(name, name) for name in theirs]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SpecError(f"columns: {twice[0]!r} stands for one column and is the name of another; map that one too")
    found: pandas.DataFrame = frame.set_axis(names, axis="columns")
    return found


def in_our_names(roles: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return roles whose columns are called as the model calls them."""
    ours_of = {name: ours for ours, name in columns.items()}

    def ours(role: str, value: Any) -> Any:
        if role == "label_delay":
            return value
        if isinstance(value, (list, tuple)):
            return [ours_of.get(one, one) for one in value]
        return ours_of.get(value, value)

    return {role: ours(role, value) for role, value in roles.items()}


def _dataset(context: StepContext, source: Source) -> tuple[DatasetRef, pandas.DataFrame]:
    ref = resolve(context.store, source.dataset)
    return ref, read_frame(context.store, ref)


def _database(context: StepContext, source: Source) -> tuple[DatasetRef, pandas.DataFrame]:
    """Read all rows of a table or query in one transaction; their order, which means nothing, is not in the digest."""
    import pyarrow as pa

    from airflow_mlops.core.data.sql import Query, SqlSource
    from airflow_mlops.core.data.sql_connection import open_database

    database = open_database(source.conn_id)
    query = Query.of_table(str(source.table), database) if source.table else Query.of(source.sql, source.parameters)
    with database.reading() as connection:
        opened = SqlSource(database, connection, query, [], {})
        table = pa.Table.from_batches(list(opened.batches()), opened.schema)
    context.log.info("read %s rows of %s", f"{table.num_rows:,}", opened.given)
    columns, schema_uri = describe(context.store, {one.name: str(one.type) for one in opened.schema})
    ref = DatasetRef(
        name=str(source.table).replace('"', "").rpartition(".")[2] if source.table else query.name,
        uri=f"{database.where}#{source.table}" if source.table else database.where,
        digest=_digest(table),
        format="table" if source.table else "query",
        rows=table.num_rows,
        columns=columns,
        schema_uri=schema_uri,
        source=opened.given,
    )
    return ref, table.to_pandas()


def _digest(table: Any) -> str:
    """Return a digest of columns, types and values that is the same whatever order the rows come in."""
    import numpy as np
    import pandas

    rows = np.sort(pandas.util.hash_pandas_object(table.to_pandas().astype(str), index=False).to_numpy())
    return digests.of_json([[f"{one.name} {one.type}" for one in table.schema], digests.of_bytes(rows.tobytes())])
