"""Hashed row keys: which rows a model was trained on, without the rows.

A row's key is 64 bits of its key columns (all columns where there is no key role). Equal values give equal keys
whatever the type that carries them (``int64`` or ``float64``, ``object`` or ``str``, any time unit), in any process
and with any version of pandas; so rows of a later dataset can be compared with those a model has seen.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import IntegrityError, MissingColumnError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.lifecycle import erasures, uses
from airflow_mlops.core.plain import clean
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import role_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas

FOLDER = "rowkeys"
#: The key of a null, whatever its type.
_NULL = 0x9E3779B97F4A7C15


def key_columns(frame: pandas.DataFrame, roles: dict[str, Any]) -> list[str]:
    """Return the columns that identify a row: those of the key role, else all, sorted by name."""
    return role_columns(roles, "key") or sorted(frame.columns, key=str)


def hash_rows(frame: pandas.DataFrame, roles: dict[str, Any], columns: list[str] | None = None) -> np.ndarray[Any, Any]:
    """Return the key of each row as ``uint64``.

    :param roles: the dataset's roles.
    :param columns: what identifies a row instead: the ``row_key_columns`` of a model's training record.
    :raises MissingColumnError: if one of the columns is not there.
    """
    import numpy as np

    names = columns or key_columns(frame, roles)
    for name in names:
        if name not in frame.columns:
            near = did_you_mean(str(name), map(str, frame.columns))
            raise MissingColumnError(f"the key column {name!r} is not in the data{near}", column=str(name))
    keys = np.full(len(frame), 0x243F6A8885A308D3, dtype=np.uint64)
    for name in names:
        keys = _mix(keys * np.uint64(0x100000001B3) + _hash_column(frame[name]))
    return keys


def _hash_column(column: pandas.Series) -> np.ndarray[Any, Any]:
    """Return 64 bits for each value: whole numbers by value, other numbers by their bits, the rest by their text."""
    import numpy as np

    pandas = require("pandas", "hashing rows")
    types = pandas.api.types
    null = column.isna().to_numpy(dtype=bool)
    if isinstance(column.dtype, pandas.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if types.is_datetime64_any_dtype(column):
        if getattr(column.dt, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        hashed = _mix(column.to_numpy(dtype="datetime64[us]").view(np.int64).astype(np.uint64))
    elif types.is_bool_dtype(column) or types.is_integer_dtype(column):
        unsigned = types.is_unsigned_integer_dtype(column)
        filled = column.fillna(0) if null.any() else column
        hashed = _mix(filled.to_numpy(dtype=np.uint64 if unsigned else np.int64).astype(np.uint64))
    elif types.is_float_dtype(column):
        hashed = _hash_floats(column.to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        objects = column.astype(object)
        if types.infer_dtype(objects, skipna=True) == "mixed":
            # Lists, arrays and structs have no hash of their own.
            objects = objects.map(lambda v: repr(clean(v)), na_action="ignore")
        codes, values = pandas.factorize(objects)
        table = np.array([_hash_text(value) for value in values] or [0], dtype=np.uint64)
        hashed = table[codes]
    return np.where(null, np.uint64(_NULL), hashed)


def _hash_floats(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) < 2.0**53) & (values == np.floor(values))
        integers = np.where(whole, values, 0.0).astype(np.int64).astype(np.uint64)
    return _mix(np.where(whole, integers, np.ascontiguousarray(values).view(np.uint64)))


def _hash_text(value: Any) -> int:
    import datetime as dt
    import decimal

    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        value = utc.isoformat(timespec="microseconds")
    elif isinstance(value, decimal.Decimal):
        value = value.normalize()
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _mix(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return SplitMix64's finaliser of each value (Steele, Lea, Flood 2014)."""
    import numpy as np

    values = values.astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[Any, Any] = values ^ (values >> np.uint64(31))
    return mixed


def save_row_keys(store: Store, keys: np.ndarray[Any, Any]) -> str:
    """Store the keys, sorted and without repeats, under their own digest and return the object's URI."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.unique(keys).astype("<u8"), allow_pickle=False)
    data = buffer.getvalue()
    name = f"{FOLDER}/{digests.hex_of(digests.of_bytes(data))}.npy"
    uses.put_shared(store, name, data)
    return store.uri_of(name)


def load_row_keys(store: Store, uri: str) -> np.ndarray[Any, Any]:
    """Return the sorted keys that were stored.

    :raises NotFoundError: if they are gone.
    :raises IntegrityError: if the URI is not of this store, or the keys were altered.
    """
    import numpy as np

    key = store.key_of(uri)
    if key is None:
        raise IntegrityError(f"the row keys {uri} are not in the store at {store.uri}", uri=uri)
    erased = erasures.successor(store, key.rpartition("/")[2].partition(".")[0])
    if erased is not None:
        key = f"{FOLDER}/{digests.hex_of(erased.new)}.npy"
    data = store.get_bytes(key)
    if digests.hex_of(digests.of_bytes(data)) not in key:
        raise IntegrityError(f"the row keys {uri} were altered after they were stored", uri=uri)
    found: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def seen(keys: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a mask of the keys that are among the known ones, which are sorted."""
    import numpy as np

    if len(known) == 0:
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: np.ndarray[Any, Any] = known[place] == keys
    return found
