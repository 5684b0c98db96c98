"""The rows of a training: checked, without what cannot be used, split, and cut into what the trainer is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data import dataset as datasets
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training import rowkeys
from airflow_mlops.core.training.split import Split, instants, split_rows
from airflow_mlops.core.vocabulary import DatasetRef, role_columns

if TYPE_CHECKING:
    import logging

    import numpy as np
    import pandas
    import pyarrow

    from airflow_mlops.core.store import Store


@dataclass(frozen=True)
class Part:
    """Some rows, cut into features, target and what goes with them.

    :param raw: the feature columns as they are in the data: all but those of roles.
    :param y: the target.
    :param frame: all columns of the same rows.
    """

    raw: pandas.DataFrame
    y: pandas.Series
    weight: np.ndarray[Any, Any] | None
    frame: pandas.DataFrame

    def __len__(self) -> int:
        return len(self.y)

    def extras(self, roles: dict[str, Any]) -> dict[str, Any]:
        """Return ``sample_weight``, ``groups`` and ``time`` where the roles name them."""
        groups = role_columns(roles, "group")
        time = role_columns(roles, "time")
        found: dict[str, Any] = {"sample_weight": self.weight}
        found["groups"] = self.frame[groups[0] if len(groups) == 1 else groups] if groups else None
        found["time"] = instants(self.frame, time[0]) if time else None
        return found


@dataclass(frozen=True)
class Rows:
    """The two sides of a training.

    :param unlabelled: rows without a label, which count on neither side.
    :param contradicting: rows whose label another row of the same key (and time) contradicts; they count on neither.
    :param test_dataset: the test rows as a dataset of their own, all columns.
    """

    train: Part
    test: Part
    split: Split | None
    unlabelled: int
    contradicting: int
    test_dataset: DatasetRef


def read(
    store: Store,
    ref: DatasetRef,
    target: str,
    split: dict[str, Any],
    test_dataset: Any,
    log: logging.Logger,
    nullable: Any = None,
) -> Rows:
    """Read a dataset, drop rows without a label, and split it.

    :param split: the resolved split, or what stands in its place where there is a test dataset.
    :param test_dataset: a dataset that tests instead of a part of this one, or None.
    :param nullable: whole-number features that may be missing at prediction: a list of names, or ``"all"``.
    :raises EmptyDataError: if there are no rows, none with a label, or none on one side.
    :raises MissingColumnError: if the target, the column of a role or a nullable one is not there.
    :raises SpecError: if the target is constant or not finite, or a column name occurs twice.
    """
    table, frame = _load(store, ref, target)
    log.info("Read %s rows, %d columns of %s", f"{len(frame):,}", len(frame.columns), ref.name)
    labelled = frame[target].notna().to_numpy()
    unlabelled = int((~labelled).sum())
    if unlabelled == len(frame):
        raise EmptyDataError(f"no row of {ref.name!r} has a value in the target {target!r}", column=target)
    if unlabelled:
        log.warning("%s of %s rows have no label and are left out", f"{unlabelled:,}", f"{len(frame):,}")
        table, frame = table.filter(_mask(labelled)), frame[labelled].reset_index(drop=True)
    agreeing = _agreeing(frame, ref, target)
    contradicting = int((~agreeing).sum())
    if contradicting == len(frame):
        raise EmptyDataError(f"every row of {ref.name!r} contradicts another of its key in {target!r}", column=target)
    if contradicting:
        log.warning(
            "%s of %s rows are left out: another row of the same key has another %s",
            f"{contradicting:,}",
            f"{len(frame):,}",
            target,
        )
        table, frame = table.filter(_mask(agreeing)), frame[agreeing].reset_index(drop=True)
    if test_dataset is not None:
        other = datasets.resolve(store, test_dataset, roles=ref.roles)
        _, held_out = _load(store, other, target)
        held_out = held_out[held_out[target].notna()].reset_index(drop=True)
        if held_out.empty:
            raise EmptyDataError(f"no row of the test dataset {other.name!r} has a label")
        log.info("All %s rows train; %s rows of %s test", f"{len(frame):,}", f"{len(held_out):,}", other.name)
        train = part_of(frame, ref, target, nullable=nullable)
        _check_target(train.y, ref.name)
        test = part_of(held_out, ref, target, train.raw.columns, nullable=nullable)
        return Rows(train, test, None, unlabelled, contradicting, other)
    found = split_rows(frame, split, ref.roles, ref.window)
    log.info(
        "Split %s: %s rows train, %s test, %s left out",
        found.text,
        f"{len(found.train):,}",
        f"{len(found.test):,}",
        f"{found.left_out:,}",
    )
    if split["by"] == "random":
        _tell_of_shared_keys(frame, found, ref, log)
    train = part_of(frame.iloc[found.train].reset_index(drop=True), ref, target, nullable=nullable)
    _check_target(train.y, ref.name)
    test = part_of(frame.iloc[found.test].reset_index(drop=True), ref, target, nullable=nullable)
    kept = _store_test_rows(store, ref, table, found)
    return Rows(train, test, found, unlabelled, contradicting, kept)


def _tell_of_shared_keys(frame: pandas.DataFrame, found: Split, ref: DatasetRef, log: logging.Logger) -> None:
    """Warn of test rows whose key trains as well: what is learnt by heart would look like skill."""
    keys = role_columns(ref.roles, "key")
    if not keys or not frame.duplicated(keys).any():
        return
    tested, trained = (frame.iloc[side].set_index(keys).index for side in (found.test, found.train))
    if shared := int(tested.isin(trained).sum()):
        log.warning(
            "%s of %s test rows have a key that trains as well, so the metrics flatter: if they are copies, take them "
            "out; if a key has several rows, give the dataset the role group=%r, and split by it",
            f"{shared:,}",
            f"{len(tested):,}",
            keys[0],
        )


def _agreeing(frame: pandas.DataFrame, ref: DatasetRef, target: str) -> np.ndarray[Any, Any]:
    """Return which rows no other row contradicts: one of the same key, and time where there is one, with another label.

    Nobody knows which of the labels is right, so neither is learnt from nor tested on.
    """
    import numpy as np

    keys = role_columns(ref.roles, "key")
    same = [*keys, *(one for one in role_columns(ref.roles, "time") if one not in keys)] if keys else []
    repeated = frame.duplicated(same, keep=False).to_numpy() if same else np.zeros(len(frame), dtype=bool)
    if not repeated.any():
        return ~repeated
    again = frame[repeated]
    labels = again.groupby(same, dropna=False, observed=True)[target].transform("nunique")
    agreeing = np.ones(len(frame), dtype=bool)
    agreeing[repeated] = labels.to_numpy() == 1
    return agreeing


def _load(store: Store, ref: DatasetRef, target: str) -> tuple[pyarrow.Table, pandas.DataFrame]:
    require("pandas", "train_model")
    table = datasets.read_table(store, ref)
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SpecError(f"{ref.name!r} has more than one column named {', '.join(map(repr, twice))}; rename them")
    for role, columns in {"target": [target], **{r: role_columns(ref.roles, r) for r in ref.roles}}.items():
        if role == "label_delay":
            continue
        for column in columns:
            if column not in names:
                raise MissingColumnError(
                    f"the {role} column {column!r} is not in {ref.name!r}{did_you_mean(str(column), names)}",
                    column=str(column),
                    role=role,
                )
    if table.num_rows == 0:
        raise EmptyDataError(f"{ref.name!r} has no rows; there is nothing to train on")
    if table.num_rows == 1:
        raise EmptyDataError(f"{ref.name!r} has one row; a model needs rows to train on and rows to test on")
    return table, table.to_pandas()


def _mask(labelled: np.ndarray[Any, Any]) -> Any:
    import pyarrow as pa

    return pa.array(labelled)


def part_of(frame: pandas.DataFrame, ref: DatasetRef, target: str, columns: Any = None, nullable: Any = None) -> Part:
    """Return some rows of a dataset as a trainer is given them.

    :param columns: the features; default: all columns without a role.
    :param nullable: see :func:`read`.
    :raises MissingColumnError: if a feature is not there.
    :raises SpecError: for weights that are none, or without features.
    """
    import numpy as np

    pandas = require("pandas", "train_model")
    outside = {*role_columns(ref.roles), target}
    names = [name for name in frame.columns if name not in outside] if columns is None else list(columns)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise MissingColumnError(f"the test dataset lacks the feature column(s) {', '.join(map(str, missing[:10]))}")
    if not names:
        raise SpecError(f"{ref.name!r} has no feature columns: every column has a role ({', '.join(sorted(outside))})")
    weight = None
    if ref.roles.get("weight"):
        column = role_columns(ref.roles, "weight")[0]
        weight = pandas.to_numeric(frame[column], errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
        bad = int((~np.isfinite(weight) | (weight < 0)).sum())
        if bad or not weight.sum() > 0:
            raise SpecError(
                f"the weight column {column!r} has {bad} values that are null, infinite or negative"
                if bad
                else f"the weights in {column!r} sum to zero"
            )
    return Part(_nullable(frame[names], nullable, ref), _target(frame[target], ref), weight, frame)


def _nullable(raw: pandas.DataFrame, nullable: Any, ref: DatasetRef) -> pandas.DataFrame:
    """Return the features with the whole numbers as floats that may be missing at prediction."""
    if nullable in (None, "", []):
        return raw
    whole = [name for name in raw.columns if getattr(raw[name].dtype, "kind", "") in "iu"]
    if nullable == "all":
        return raw.astype(dict.fromkeys(whole, "float64"))  # type: ignore[no-any-return]
    if isinstance(nullable, str):
        raise SpecError(f"nullable is a list of columns, or 'all', got {nullable!r}")
    for name in nullable:
        if name not in raw.columns:
            near = did_you_mean(str(name), map(str, raw.columns))
            raise MissingColumnError(f"nullable: {ref.name!r} has no feature column {name!r}{near}", column=str(name))
    kept = [name for name in nullable if name in whole]
    return raw.astype(dict.fromkeys(kept, "float64"))  # type: ignore[no-any-return]


def _target(values: pandas.Series, ref: DatasetRef) -> pandas.Series:
    """Return the target with the type that it has in the data, which nulls had changed."""
    pandas = require("pandas", "train_model")
    kind = (ref.columns or {}).get(str(values.name), "")
    if isinstance(values.dtype, pandas.CategoricalDtype):
        return values.astype(values.cat.categories.dtype)
    if values.dtype == object and pandas.api.types.infer_dtype(values) == "boolean":
        return values.astype(bool)
    if values.dtype.kind == "f" and kind.startswith(("int", "uint")):
        return values.astype("int64")
    return values


def _check_target(y: pandas.Series, dataset: str) -> None:
    import numpy as np

    if y.dtype.kind == "f" and not np.isfinite(y.to_numpy(dtype="float64")).all():
        raise SpecError(f"the target {y.name!r} has infinite values; clean them in the snapshot", column=str(y.name))
    if y.nunique() < 2:
        raise SpecError(
            f"the target {y.name!r} has one and the same value in all {len(y):,} training rows of {dataset!r}; a model "
            "can learn nothing from it. Check the label, the window and the split",
            column=str(y.name),
        )


def _store_test_rows(store: Store, ref: DatasetRef, table: pyarrow.Table, split: Split) -> DatasetRef:
    import pyarrow as pa

    window = {"start": split.cutoff, "end": ref.window["end"]} if split.cutoff and ref.window else None
    if window and str(window["start"]) >= str(window["end"]):
        window = None
    return datasets.write_table(
        store,
        table.take(pa.array(split.test)),
        name=f"{ref.name}-test",
        roles=ref.roles,
        window=window,
        source=ref.digest,
    )


def record_of(store: Store, ref: DatasetRef, rows: Rows, split: dict[str, Any]) -> dict[str, Any]:
    """Return the training record: what the model was fitted on, so that nobody tests it on the same rows."""
    keys = rowkeys.hash_rows(rows.train.frame, ref.roles)
    columns = rowkeys.key_columns(rows.train.frame, ref.roles)
    return {
        "dataset_digest": ref.digest,
        "dataset_name": ref.name,
        "dataset_uri": strip_credentials(ref.uri),
        "window": _window(ref, rows),
        "split": {**split, "cutoff": rows.split.cutoff if rows.split else None},
        "rows": len(rows.train),
        "test_rows": len(rows.test),
        "unlabelled_rows": rows.unlabelled,
        "contradicting_rows": rows.contradicting,
        "left_out_rows": rows.split.left_out if rows.split else 0,
        "row_keys_uri": rowkeys.save_row_keys(store, keys),
        "row_key_columns": columns if len(columns) <= 50 else None,
    }


def _window(ref: DatasetRef, rows: Rows) -> dict[str, Any] | None:
    """Return the period of the training rows: the dataset's up to the cut-off, or from the first to the last row."""
    time = role_columns(ref.roles, "time")
    start = (ref.window or {}).get("start")
    end = (ref.window or {}).get("end")
    if time and rows.split and rows.split.cutoff:
        seen = instants(rows.train.frame, time[0])
        # Half-open, and without the gap: the period that rows of this model can be from.
        pandas = require("pandas", "train_model")
        end = (seen.max() + pandas.Timedelta(microseconds=1)).isoformat()
        start = start or seen.min().isoformat()
    return {"start": start, "end": end} if start and end else None
