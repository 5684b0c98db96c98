"""Labels that come later: joined to the predictions by key, and what is wrong with them counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.dataset import read_frame, resolve
from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.vocabulary import parse_instant, role_columns

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

#: The label's column in a joined frame.
LABEL = "__label__"


@dataclass
class Labels:
    """All labels that are known at some instant, one a key.

    :param frame: the key as text in ``__key__``, the label in :data:`LABEL`, and the other columns.
    :param counts: ``duplicates`` (a key with the same label again), ``contradictions`` (keys with several labels, which
        are left out), ``without_key``, ``without_value``, ``not_yet`` (known only later, by the role available_at).
    """

    frame: pandas.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    target: str = ""
    name: str = ""


def read(
    context: StepContext, labels: Any, *, target: str | None, roles: dict[str, Any] | None, as_of: Any, key: list[str]
) -> Labels:
    """Read labels.

    :param labels: a dataset ref, path, glob or URI.
    :param as_of: with a role available_at only labels that were known then.
    :param key: what the predictions call the key, where the labels have no key role.
    :raises SpecError: without a target or key.
    """
    import pandas

    ref = resolve(context.store, labels, roles=roles, target=target)
    frame = read_frame(context.store, ref)
    column = ref.roles.get("target")
    if not column:
        raise SpecError(f"the labels in {ref.name!r} have no target: name their column as target=")
    keys = role_columns(ref.roles, "key") or [name for name in key if name in frame.columns]
    if not keys:
        raise SpecError(
            f"labels are joined by the key: name its column in {ref.name!r} as roles={{'key': ...}}; it has the values "
            "of the predictions' key"
        )
    known = role_columns(ref.roles, "available_at")
    for name in [*keys, column, *known]:
        if name not in frame.columns:
            near = did_you_mean(str(name), map(str, frame.columns))
            raise MissingColumnError(f"the labels in {ref.name!r} have no column {name!r}{near}", column=str(name))
    counts: dict[str, int] = {}

    def keep(mask: Any, why: str) -> None:
        nonlocal frame
        counts[why] = int((~mask).sum())
        frame = frame[mask]

    keep(frame[keys].notna().all(axis=1), "without_key")
    if known:
        moments = pandas.to_datetime(frame[known[0]], utc=True, errors="coerce")
        keep(moments <= parse_instant(as_of), "not_yet")
    keep(frame[column].notna(), "without_value")
    frame = frame.assign(__key__=as_key(frame, keys)).rename(columns={column: LABEL})
    keep(~frame.duplicated(["__key__", LABEL]), "duplicates")
    keep(~frame.duplicated("__key__", keep=False), "contradictions")
    return Labels(frame.reset_index(drop=True), counts, str(column), ref.name)


def as_key(frame: pandas.DataFrame, keys: list[str]) -> Any:
    """Return the key of each row as text, as the prediction log has it: several columns joined by ``/``."""
    import pyarrow as pa

    parts = []
    for name in keys:
        values = frame[name]
        if values.dtype.kind == "f" and (values.dropna() % 1 == 0).all():
            # Whole numbers that a null elsewhere has made floats.
            values = values.astype("Int64")
        parts.append(pa.array(values, from_pandas=True).cast(pa.string()).to_pandas().astype(object))
    found = parts[0]
    for part in parts[1:]:
        found = found + "/" + part
    return found.to_numpy()


@dataclass
class Joined:
    """The rows of a window with a label, and the counts of what has none.

    :param counts: ``predictions``, ``labelled``, ``repeated`` (rows predicted again; the last counts).
    """

    frame: pandas.DataFrame
    counts: dict[str, int]


def join(predictions: pandas.DataFrame, labels: Labels | None, label: str | None) -> Joined:
    """Return the predictions of a window that have a label.

    :param predictions: with ``__key__`` and, where there are times, ``__time__``.
    :param label: the column of the log that has the labels, where there are no others.
    """
    frame = predictions
    if "__time__" in frame.columns:
        frame = frame.sort_values("__time__", kind="stable")
    repeated = frame.duplicated("__key__", keep="last")
    frame = frame[~repeated]
    counts = {"predictions": len(frame), "repeated": int(repeated.sum())}
    if labels is None:
        found = frame.rename(columns={label: LABEL})
        found = found[found[LABEL].notna()]
    else:
        fresh = [name for name in labels.frame.columns if name not in frame.columns or name == "__key__"]
        found = frame.merge(labels.frame[fresh], on="__key__", how="inner")
    return Joined(found.reset_index(drop=True), {**counts, "labelled": len(found)})
