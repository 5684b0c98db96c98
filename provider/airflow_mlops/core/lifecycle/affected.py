"""What else knows something of rows that are erased: models, their row keys and input examples, reports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import IntegrityError, NotFoundError
from airflow_mlops.core.lifecycle import erasures
from airflow_mlops.core.lifecycle.reach import named_key
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.training.rowkeys import hash_rows, load_row_keys, save_row_keys
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def _records(context: StepContext) -> Iterator[dict[str, Any]]:
    """Yield the records of all models and versions."""
    for folder in ("models", "versions"):
        for key in context.store.keys(folder):
            try:
                record = context.store.get_json(key)
            except (NotFoundError, IntegrityError):
                continue
            if isinstance(record.get("ref"), dict):
                yield record


def _lineage(context: StepContext, digest: str | None) -> set[str]:
    """Return a content's digest and those of what took its place."""
    found: set[str] = set()
    while digest and digest not in found:
        found.add(digest)
        note = erasures.record(context.store, digest)
        digest = note["new"] if note else None
    return found


def forget_row_keys(context: StepContext, digest: str, rows: Any, record: dict[str, Any]) -> list[str]:
    """Remove the erased rows' keys from those of the models that were trained on a dataset; return what is replaced.

    A row key is a hash of the values that identify a row: with a list of customers one could tell from it who was in
    the training data. No comparison needs it any more, since the rows will not come back.

    :param digest: of the dataset as it was.
    :param rows: the erased rows, as an Arrow table.
    """
    import numpy as np

    replaced: dict[str, str] = {}
    for known in _records(context):
        training = known["ref"].get("training") or {}
        uri, columns = training.get("row_keys_uri"), training.get("row_key_columns")
        if not uri or digest not in _lineage(context, training.get("dataset_digest")):
            continue
        key = named_key(context.store, uri)
        if key is None or not set(columns or ()) <= set(rows.column_names):
            continue
        try:
            keys = load_row_keys(context.store, context.store.uri_of(key))
        except (NotFoundError, IntegrityError):
            continue
        gone = hash_rows(rows.to_pandas(), {}, list(columns) if columns else None)
        left = keys[~np.isin(keys, gone)]
        if len(left) == len(keys):
            continue
        new_uri = save_row_keys(context.store, left)
        old = _standing(context, key)
        note = {
            "schema": SCHEMA,
            "kind": "row keys",
            "old": old,
            "new": _hex_of(context, new_uri),
            "rows_removed": len(keys) - len(left),
            "rows": len(left),
            "erasure": record["id"],
            "by": record["by"],
            "reason": record["reason"],
            "at": utc_now(),
        }
        context.store.put_json(erasures.record_key(old), note)
        replaced[old] = f"{key.rpartition('/')[0]}/{digests.hex_of(old)}.npy"
    return list(replaced.values())


def _standing(context: StepContext, key: str) -> str:
    """Return the digest of the row keys that stand in the place of a key's."""
    first = digests.PREFIX + key.rpartition("/")[2].partition(".")[0]
    later = erasures.successor(context.store, first)
    return later.new if later else first


def _hex_of(context: StepContext, uri: str) -> str:
    key = context.store.key_of(uri) or ""
    return digests.PREFIX + key.rpartition("/")[2].partition(".")[0]


def models_of(context: StepContext, datasets: set[str]) -> list[dict[str, Any]]:
    """Return the models that were trained on or tested with any of these contents, for a person to decide about.

    Each is ``{"model", "uri", "trained", "tested", "input_example", "aliases"}``; ``input_example`` says that the
    model's files in MLflow have example rows in them, which an erasure does not touch.
    """
    found: dict[str, dict[str, Any]] = {}
    for known in _records(context):
        ref = known["ref"]
        trained = bool(datasets & _lineage(context, (ref.get("training") or {}).get("dataset_digest")))
        tested = bool(datasets & _lineage(context, (ref.get("test_dataset") or {}).get("digest")))
        if not trained and not tested:
            continue
        # The version's record says more than the model's.
        name = f"{ref['name']}/{ref['version']}" if ref.get("version") else None
        row = found.setdefault(ref.get("model_id") or ref["uri"], {"model": None, "uri": ref["uri"], "aliases": []})
        row |= {
            "trained": trained,
            "tested": tested,
            "input_example": any("input_example" in path for path in known.get("manifest") or {}),
        }
        if name:
            row |= {"model": name, "uri": ref["uri"], "aliases": _aliases(context, ref["name"], int(ref["version"]))}
    return sorted(found.values(), key=lambda row: (row["model"] or "", row["uri"]))


def _aliases(context: StepContext, name: str, version: int) -> list[str]:
    try:
        return sorted(alias for alias, one in RegisteredModel(context, name).aliases().items() if one == version)
    except NotFoundError:
        return []


def reports_with(context: StepContext, values: Sequence[str]) -> list[str]:
    """Return the URIs of the reports whose text has one of the values as a word.

    A gate writes values only where it was asked for examples; a short number is found by chance as well. So these are
    for a person to look at.
    """
    words = "|".join(re.escape(value) for value in values)
    pattern = re.compile(rf"(?<![\w.]){f'(?:{words})'}(?![\w]|\.\d)".encode())
    found = []
    for key in context.store.keys("reports"):
        if not key.endswith((".json", ".html")):
            continue
        try:
            if pattern.search(context.store.get_bytes(key)):
                found.append(context.store.uri_of(key))
        except NotFoundError:
            continue
    return found
