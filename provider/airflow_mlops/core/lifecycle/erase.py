"""Erasure of a person's rows from every stored dataset.

A content-addressed object cannot be changed, so it is written again without the rows, under its new digest; a record
in ``erasures/`` says what took its place (:mod:`.erasures`), and the old bytes go. The record of a whole erasure has no
key in clear: what was erased stands there as scrypt hashes under a salt of their own, so that the question "was it this
one?" can be answered and no other.

Killed at any instant and run again with the same values, it goes on under the same record.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data import publishing
from airflow_mlops.core.errors import IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import affected, erasures, lock, sweep, uses
from airflow_mlops.core.lifecycle.gc import limits_of
from airflow_mlops.core.vocabulary import SCHEMA, DatasetRef, role_columns, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

RECORDS = f"{lock.FOLDER}/erasures"
#: Cost of scrypt: 16 MB and some 50 ms for each guess.
SCRYPT = {"n": 2**14, "r": 8, "p": 1}


@dataclass(frozen=True)
class Subject:
    """Whose rows go.

    :param values: of the key, as text; compared in each column's own type.
    :param column: the column that has them; None is each dataset's key role.
    """

    values: tuple[str, ...] = field(repr=False)
    column: str | None = None

    def __post_init__(self) -> None:
        if not self.values or not all(self.values):
            raise SpecError("give at least one key, and no empty one")


@dataclass(frozen=True)
class Stored:
    """A stored content and the refs to it."""

    key: str
    digest: str
    refs: tuple[DatasetRef, ...]

    def columns(self, subject: Subject, names: Sequence[str]) -> list[str] | None:
        """Return the columns that may hold the subject's key, or None if nobody said which they are."""
        if subject.column is not None:
            return [subject.column] if subject.column in names else []
        keys = [role_columns(ref.roles, "key") for ref in self.refs]
        found = sorted({key[0] for key in keys if len(key) == 1 and key[0] in names})
        return found or None

    def left_out(self, why: str) -> dict[str, Any]:
        """Return it as something that was not searched."""
        return {"datasets": sorted({ref.name for ref in self.refs}), "digest": self.digest, "why": why}


@dataclass(frozen=True)
class Match:
    """A stored content that has rows of the subject."""

    stored: Stored
    columns: tuple[str, ...]
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as people read it."""
        return {
            "datasets": sorted({ref.name for ref in self.stored.refs}),
            "digest": self.stored.digest,
            "columns": list(self.columns),
            "rows": self.rows,
        }


@dataclass
class Search:
    """What was found.

    :param unsearched: datasets of which nobody said what identifies a person: ``{"datasets", "digest", "why"}``.
    """

    matches: list[Match] = field(default_factory=list)
    unsearched: list[dict[str, Any]] = field(default_factory=list)
    searched: int = 0


def search(context: StepContext, subject: Subject, done: set[str] | None = None) -> Search:
    """Look for the subject's rows in every stored content; changes nothing.

    :param done: keys that were searched before; those that are searched now are added.
    """
    require("pyarrow.parquet", "searching the datasets")
    found = Search()
    for stored in _contents(context):
        if done is not None and stored.key in done:
            continue
        try:
            names = _schema(context, stored).names
            columns = stored.columns(subject, names)
            if columns is None:
                found.unsearched.append(stored.left_out("no key role of one column; name the column"))
            else:
                found.searched += 1
                rows = sum(int(mask.true_count) for _, mask in _masked(context, stored, subject, columns, only=True))
                if rows:
                    found.matches.append(Match(stored, tuple(columns), rows))
        except NotFoundError:
            continue  # collected, or erased, meanwhile
        except IntegrityError as error:
            found.unsearched.append(stored.left_out(error.message))
        if done is not None:
            done.add(stored.key)
    return found


def _contents(context: StepContext) -> Iterator[Stored]:
    refs: dict[str, list[DatasetRef]] = {}
    for key in context.store.keys("datasets"):
        try:
            ref = DatasetRef.from_dict(context.store.get_json(key))
        except NotFoundError:
            continue
        refs.setdefault(ref.digest, []).append(ref)
    for key in context.store.keys("data"):
        if key.endswith(".parquet"):
            digest = digests.PREFIX + key.rpartition("/")[2].removesuffix(".parquet")
            yield Stored(key, digest, tuple(refs.get(digest, ())))


def _schema(context: StepContext, stored: Stored) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with context.store.open_input(stored.key) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            return parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _altered(context, stored) from error


def _altered(context: StepContext, stored: Stored) -> IntegrityError:
    return IntegrityError(
        f"{context.store.uri_of(stored.key)} does not hold the data of its digest, so nothing can be erased from it: "
        "it was altered in the store. Take the snapshot again, or delete the object by hand",
        digest=stored.digest,
    )


def _masked(
    context: StepContext, stored: Stored, subject: Subject, columns: Sequence[str], *, only: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Yield record batches with the mask of the subject's rows.

    :param only: read these columns alone.
    """
    import pyarrow.parquet as pq

    with context.store.open_input(stored.key) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        wanted = {name: _as_type(subject.values, parquet.schema_arrow.field(name).type) for name in columns}
        for batch in parquet.iter_batches(columns=list(columns) if only else None):
            yield batch, _mask(batch, wanted)


def _mask(batch: Any, wanted: dict[str, Any]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = pa.array([False]).take(pa.array([0] * batch.num_rows, pa.int32()))
    for name, values in wanted.items():
        if len(values):
            column = batch.column(batch.schema.names.index(name))
            mask = pc.or_(mask, pc.is_in(column, value_set=values))
    return mask


def _as_type(values: Sequence[str], kind: Any) -> Any:
    """Return the values in a column's type; one that has no form in it cannot be in the column."""
    import pyarrow as pa

    found = []
    for value in values:
        try:
            found.append(pa.array([value]).cast(kind)[0].as_py())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            continue
    return pa.array(found, kind) if found else pa.array([], pa.null())


def erase(context: StepContext, subject: Subject, *, by: str, reason: str | None = None) -> dict[str, Any]:
    """Erase the subject's rows from every stored content; return the record of it, which also stays in the store.

    What a run publishes meanwhile is searched as well; what it publishes later is not.

    :param by: who, for the record.
    :raises ConflictError: if a collection or another erasure runs.
    """
    with lock.only_one(context.store, "erasure", by) as held:
        # What a collection that was killed had taken away is either back after this, or gone for good.
        sweep.settle(context, limits_of())
        record = _begin(context, subject, by, reason)
        done: set[str] = set()
        unsearched: list[dict[str, Any]] = []
        while True:
            found = search(context, subject, done)
            unsearched += found.unsearched
            for match in found.matches:
                held.check()
                try:
                    _rewrite(context, subject, match, record)
                except IntegrityError as error:
                    unsearched.append(match.stored.left_out(error.message))
            if not found.searched and not found.unsearched:
                break
        for _ in context.store.leftovers(uses.now() - dt.timedelta(days=1), delete=True):
            pass
        return _finish(context, subject, record, unsearched)


def _begin(context: StepContext, subject: Subject, by: str, reason: str | None) -> dict[str, Any]:
    """Return the record to write into: a new one, or that of the same erasure when it was killed."""
    for key in context.store.keys(RECORDS):
        known: dict[str, Any] = context.store.get_json(key)
        if known["state"] == "begun" and known["column"] == subject.column:
            salt = bytes.fromhex(known["subject"]["salt"])
            if _hashes(subject, salt) == known["subject"]["hashes"]:
                return known
    salt = secrets.token_bytes(16)
    record = {
        "schema": SCHEMA,
        "id": f"{uses.now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
        "state": "begun",
        "by": by,
        "reason": reason,
        "column": subject.column,
        "subject": {"algorithm": "scrypt", **SCRYPT, "salt": salt.hex(), "hashes": _hashes(subject, salt)},
        "begun_at": utc_now(),
    }
    context.store.put_json(f"{RECORDS}/{record['id']}.json", record)
    return record


def _hashes(subject: Subject, salt: bytes) -> list[str]:
    return sorted(
        hashlib.scrypt(value.encode(), salt=salt, n=SCRYPT["n"], r=SCRYPT["r"], p=SCRYPT["p"]).hex()
        for value in set(subject.values)
    )


def _rewrite(context: StepContext, subject: Subject, match: Match, record: dict[str, Any]) -> None:
    """Write a content again without the subject's rows, say so, and delete the old one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    store, stored = context.store, match.stored
    whole = DatasetRef(name="", uri=store.uri_of(stored.key), digest=stored.digest)
    with store.open_input(stored.key) as file:
        publishing.verify(store, whole, file)
    schema = _schema(context, stored)
    erased: list[Any] = []

    def kept() -> Iterator[Any]:
        for batch, mask in _masked(context, stored, subject, match.columns):
            if mask.true_count:
                erased.append(batch.filter(mask))
            yield batch.filter(pc.invert(mask))

    with store.staging() as folder:
        staged = publishing.Staged(folder / "data.parquet", schema)
        staged.write(kept())
        new = publishing.publish(store, staged)
    for ref in stored.refs:
        publishing.refer(
            store,
            new,
            schema,
            rows=staged.rows,
            name=ref.name,
            roles=ref.roles,
            window=ref.window,
            source=ref.source,
        )
    crash_point("erase.published")
    rows = pa.Table.from_batches(erased, schema)
    old_keys = affected.forget_row_keys(context, stored.digest, rows, record)
    crash_point("erase.keys_rewritten")
    _note(context, record, stored.digest, new, "dataset", match.rows, staged.rows)
    crash_point("erase.recorded")
    for key in (stored.key, publishing.record_key(stored.digest), uses.mark_key(stored.key), *old_keys):
        store.delete(key)
    crash_point("erase.deleted")
    context.log.info("erased %d rows of %s: %s stands in its place", match.rows, stored.digest, new)


def _note(
    context: StepContext, record: dict[str, Any], old: str, new: str, kind: str, removed: int, rows: int | None
) -> None:
    note = {
        "schema": SCHEMA,
        "kind": kind,
        "old": old,
        "new": new,
        "rows_removed": removed,
        "rows": rows,
        "erasure": record["id"],
        "by": record["by"],
        "reason": record["reason"],
        "at": utc_now(),
    }
    context.store.put_json(erasures.record_key(old), note)


def _finish(
    context: StepContext, subject: Subject, record: dict[str, Any], unsearched: list[dict[str, Any]]
) -> dict[str, Any]:
    notes = [context.store.get_json(key) for key in context.store.keys(erasures.FOLDER)]
    ours = [note for note in notes if note["erasure"] == record["id"]]
    old = {note["old"] for note in ours if note["kind"] == "dataset"}
    record = {
        **record,
        "state": "done",
        "objects": [{key: note[key] for key in ("kind", "old", "new", "rows_removed", "rows")} for note in ours],
        "rows": sum(note["rows_removed"] for note in ours if note["kind"] == "dataset"),
        "unsearched": unsearched,
        "models": affected.models_of(context, old),
        "reports": affected.reports_with(context, subject.values),
        "ended_at": utc_now(),
    }
    context.store.put_json(f"{RECORDS}/{record['id']}.json", record)
    return record


def preview(context: StepContext, subject: Subject) -> dict[str, Any]:
    """Return what an erasure would do; changes nothing."""
    found = search(context, subject)
    return {
        "state": "dry run",
        "objects": [match.to_dict() for match in found.matches],
        "rows": sum(match.rows for match in found.matches),
        "searched": found.searched,
        "unsearched": found.unsearched,
        "models": affected.models_of(context, {match.stored.digest for match in found.matches}),
        "reports": affected.reports_with(context, subject.values),
    }


def was_erased(context: StepContext, value: str) -> list[dict[str, Any]]:
    """Return the records of the erasures that a key was part of: when, by whom, why."""
    found = []
    for key in context.store.keys(RECORDS):
        record = context.store.get_json(key)
        salt = bytes.fromhex(record["subject"]["salt"])
        if _hashes(Subject((value,)), salt)[0] in record["subject"]["hashes"]:
            found.append({name: record.get(name) for name in ("id", "state", "by", "reason", "begun_at", "ended_at")})
    return found
