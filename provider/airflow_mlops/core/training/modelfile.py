"""A model as a file or folder that somebody else's code left: what it is, and the model in it.

| file | is read by |
| --- | --- |
| a folder with ``MLmodel`` | MLflow |
| ``.skops`` | skops, with the allow-list of types |
| ``.json``, ``.ubj`` (XGBoost) | XGBoost |
| ``.txt``, ``.lgb`` (LightGBM) | LightGBM |
| ``.joblib``, ``.pkl``, ``.pickle`` | joblib, which runs whatever is in it: only with ``trust="pickle"`` |

The content decides, not the name.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.core.errors import SpecError, UnsupportedError
from airflow_mlops.core.extras import require
from airflow_mlops.core.models import quietly, skops_io

Format = Literal["mlflow", "skops", "xgboost", "lightgbm", "pickle"]
FORMATS = ("mlflow", "skops", "xgboost", "lightgbm", "pickle")
#: First bytes of pickles, as they are or compressed by joblib.
_PICKLES = (b"\x80", b"\x1f\x8b", b"\x78", b"BZh", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18")
#: What a pickle inside a folder of MLflow is called.
_PICKLE_NAMES = (".pkl", ".pickle", ".joblib", ".cloudpickle")
#: What pickle.load raises where a name cannot be imported.
_LOST = (AttributeError, ModuleNotFoundError, ImportError)


def format_of(path: Path) -> Format:
    """Return what a model file or folder is.

    :raises UnsupportedError: if it is none of them.
    """
    if path.is_dir():
        if (path / "MLmodel").is_file():
            return "mlflow"
        raise UnsupportedError(f"the folder {path.name} has no MLmodel file: it is no MLflow model")
    with open(path, "rb") as file:
        head = file.read(512)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "schema.json" in archive.namelist():
                return "skops"
    elif head.startswith(b"tree\n"):
        return "lightgbm"
    elif head.startswith(b"{L") or (head.lstrip().startswith(b"{") and b'"learner"' in head):
        return "xgboost"
    elif head.startswith(_PICKLES):
        return "pickle"
    raise UnsupportedError(
        f"{path.name} ({path.stat().st_size:,} bytes) is no model that can be read: known are a folder of MLflow, "
        ".skops, XGBoost's .json and .ubj, LightGBM's .txt, and with trust='pickle' .joblib and .pkl"
    )


def pickles_in(folder: Path) -> list[str]:
    """Return the pickles among a folder's files."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _PICKLE_NAMES)


def refuse_pickle(what: str, trust: str | None) -> None:
    """Refuse a pickle that nobody vouched for.

    :raises UnsupportedError: if ``trust`` is not ``"pickle"``.
    """
    if trust != "pickle":
        raise UnsupportedError(
            f"{what} is a pickle, and loading one runs whatever is in it. If you trust where it comes from, pass "
            "trust='pickle'; or save the model as skops, as XGBoost's .json, as LightGBM's .txt, or log it to MLflow "
            "in one of these formats"
        )


def load(
    path: Path,
    *,
    trust: str | None = None,
    trusted_types: list[str] | None = None,
    own: set[str],
    kind: str | None = None,
) -> Any:
    """Return the model in a file (not a folder of MLflow), in the class that it was saved from where that is known.

    :param trust: ``"pickle"`` lets a pickle be loaded.
    :param trusted_types: types beside those of scikit-learn and its kin that skops may load.
    :param own: the user's packages, whose types skops may load.
    :param kind: its format, where the content need not be asked.
    :raises UnsupportedError: if it is a pickle nobody vouched for, has types that are not trusted, or cannot be read.
    """
    kind = kind or format_of(path)
    if kind == "pickle":
        refuse_pickle(path.name, trust)
    readers = {"xgboost": _xgboost, "lightgbm": _lightgbm, "pickle": _pickle}
    try:
        return _skops(path, trusted_types or [], own) if kind == "skops" else readers[kind](path)
    except (SpecError, UnsupportedError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        advice = ""
        if isinstance(error, _LOST):
            advice = (
                ". A pickle names the classes and functions that it is made of: they must stand in a module that can "
                "be imported here, not in the script itself"
            )
        raise UnsupportedError(
            f"{path.name} cannot be loaded as {kind}: {type(error).__name__}: {text}{advice}"
        ) from error


def _skops(path: Path, trusted_types: list[str], own: set[str]) -> Any:
    from airflow_mlops.core.training.packaging import allowed

    skops = skops_io("loading a model")
    with quietly():
        types = skops.get_untrusted_types(file=path)
        refused = [one for one in types if not allowed(one, own, trusted_types)]
        if refused:
            raise UnsupportedError(
                f"{path.name} has types that are not on the allow-list: {', '.join(refused[:10])}. Loading runs their "
                f"code; if you trust them, pass trusted_types={refused[:10]!r}",
                types=refused,
            )
        return skops.load(path, trusted=types)


def _xgboost(path: Path) -> Any:
    xgboost = require("xgboost", "loading a model of XGBoost")
    # XGBoost goes by the name's ending.
    with open(path, "rb") as file:
        booster = xgboost.Booster()
        booster.load_model(bytearray(file.read()))
    told = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    if told not in ("classifier", "regressor", "ranker"):
        return booster
    model = {"classifier": xgboost.XGBClassifier, "regressor": xgboost.XGBRegressor, "ranker": xgboost.XGBRanker}[
        told
    ]()
    model.load_model(bytearray(path.read_bytes()))
    return model


def _lightgbm(path: Path) -> Any:
    return require("lightgbm", "loading a model of LightGBM").Booster(model_file=str(path))


def _pickle(path: Path) -> Any:
    return require("joblib", "loading a pickled model").load(path)


def found_in(folder: Path) -> Path | None:
    """Return the one model that was left in a folder: a file, or a folder of MLflow; None if the folder is empty.

    :raises SpecError: if there are several and none is called ``model``.
    """
    there = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    if len(there) > 1:
        there = [path for path in there if path.name == "model" or path.stem == "model"] or there
    if len(there) > 1:
        names = ", ".join(path.name for path in there[:10])
        raise SpecError(f"{len(there)} files stand where one model should: {names}; write one, to {{model_out}}")
    if not there:
        return None
    (one,) = there
    if one.is_dir() and not (one / "MLmodel").is_file():
        return found_in(one)
    return one


@contextlib.contextmanager
def importable(*folders: Path | None) -> Iterator[None]:
    """Let modules beside a script be imported for a while, as they are while the script runs."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders if folder is not None]
    try:
        yield
    finally:
        sys.path[:] = before
