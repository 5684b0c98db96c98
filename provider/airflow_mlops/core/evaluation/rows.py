"""Which rows a model may be judged on: those that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import IntegrityError, MissingColumnError, NotFoundError, SpecError, did_you_mean
from airflow_mlops.core.training.rowkeys import hash_rows, load_row_keys, seen
from airflow_mlops.core.vocabulary import ModelRef, Window, parse_instant, role_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from airflow_mlops.core.store import Store


@dataclass
class Rows:
    """Rows of the dataset that count, and what was left out and why.

    :param kept: a mask over the dataset's rows.
    :param left_out: ``[{"why", "rows"}]``; a row counts under the first reason that applies.
    :param caveats: what could not be known, one sentence each.
    """

    kept: np.ndarray[Any, Any]
    left_out: list[dict[str, Any]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)

    def leave_out(self, mask: np.ndarray[Any, Any], why: str) -> None:
        """Leave out the rows of a mask, and count those that were still in."""
        count = int((self.kept & mask).sum())
        if count:
            self.left_out.append({"why": why, "rows": count})
            self.kept = self.kept & ~mask

    @property
    def count(self) -> int:
        """How many rows count."""
        return int(self.kept.sum())


def leave_out_seen(
    rows: Rows, store: Store, ref: ModelRef, frame: pandas.DataFrame, roles: dict[str, Any], who: str
) -> None:
    """Leave out the rows that a model was trained on, and those from before its cutoff if it was split by time.

    Where its row keys are not on record, the window that it was trained on stands for them; where nothing is, all
    rows stay and a caveat says so.

    :param who: ``"the model"`` or ``"the champion"``, for the report.
    """
    training = ref.training or {}
    split = training.get("split") or {}
    known = _leave_out_keys(rows, store, training, frame, roles, who)
    cutoff = split.get("cutoff") if split.get("by") == "time" else None
    window = Window.of(training.get("window")) if not known and not cutoff else None
    if cutoff or window:
        times = times_of(frame, roles)
        if times is None:
            rows.caveats.append(
                f"The dataset has no time role, so rows from before {who}'s cutoff could not be told apart."
            )
        elif cutoff:
            known = True
            after = (times >= parse_instant(cutoff)).to_numpy()
            rows.leave_out(~after, f"before the cutoff of {who}, {cutoff}, or without a time")
        elif window:
            known = True
            inside = (times >= parse_instant(window.start)) & (times < parse_instant(window.end))
            rows.leave_out(
                (inside | times.isna()).to_numpy(),
                f"in the training window of {who}, {window.start} to {window.end}, or without a time",
            )
    if not known:
        rows.caveats.append(
            f"It is not known which rows {who} was trained on, so none were left out for it. A model that has seen "
            "some of these rows looks better here than it is."
        )


def _leave_out_keys(
    rows: Rows, store: Store, training: dict[str, Any], frame: pandas.DataFrame, roles: dict[str, Any], who: str
) -> bool:
    """Leave out the rows whose hashed keys are on record, and return whether that could be done."""
    uri = training.get("row_keys_uri")
    if not uri:
        return False
    try:
        keys = load_row_keys(store, uri)
    except (NotFoundError, IntegrityError) as error:
        rows.caveats.append(f"The training rows of {who} are on record but cannot be read: {error.message}.")
        return False
    try:
        mine = hash_rows(frame, roles, training.get("row_key_columns"))
    except MissingColumnError as error:
        rows.caveats.append(
            f"The training rows of {who} are known by columns that this dataset does not have: {error.message}."
        )
        return False
    rows.leave_out(seen(mine, keys), f"{who} was trained on them")
    return True


def times_of(frame: pandas.DataFrame, roles: dict[str, Any]) -> pandas.Series | None:
    """Return the time role's column as instants in UTC, or None if there is none."""
    import pandas

    columns = role_columns(roles, "time")
    if not columns:
        return None
    return pandas.to_datetime(frame[columns[0]], utc=True, errors="coerce")


def check_role_columns(frame: pandas.DataFrame, roles: dict[str, Any], target: str) -> None:
    """Make sure that the dataset has the columns that its roles name.

    :raises MissingColumnError: for one that is not there, with the nearest.
    """
    names = [str(column) for column in frame.columns]
    for column in [target, *role_columns(roles, "key", "time", "weight", "group")]:
        if column not in names:
            what = "target" if column == target else "role"
            near = did_you_mean(str(column), names)
            raise MissingColumnError(f"the dataset has no {what} column {column!r}{near}", column=column)


def weights_of(frame: pandas.DataFrame, roles: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    """Return the rows' weights, or None if there is no weight role.

    :raises SpecError: if weights are missing, negative, infinite, or all zero.
    """
    import numpy as np
    import pandas

    columns = role_columns(roles, "weight")
    if not columns:
        return None
    weights = pandas.to_numeric(frame[columns[0]], errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    bad = int((~np.isfinite(weights) | (weights < 0)).sum())
    if bad:
        raise SpecError(f"the weight column {columns[0]!r} has {bad} values that are missing, negative or no numbers")
    if not weights.any():
        raise SpecError(f"the weight column {columns[0]!r} holds only zeros: no row would count")
    return weights
