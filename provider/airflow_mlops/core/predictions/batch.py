"""The step ``batch_predict``: a dataset and a model in, one window of a prediction log out."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models, s3
from airflow_mlops.core.data import places
from airflow_mlops.core.data.arrow_types import normal_batch, normal_schema
from airflow_mlops.core.data.dataset import read_batches, resolve
from airflow_mlops.core.data.publishing import Staged, data_key, publish, refer
from airflow_mlops.core.data.reading import check_columns
from airflow_mlops.core.data.timespan import Span
from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.evaluation.loading import ModelCopy, fetch
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import uses
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.predictions.scoring import Scorer
from airflow_mlops.core.store import Store, open_store
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, Window, role_columns

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Another version of what is written makes another log of the same rows.
FORMAT = 1
#: Rows that are predicted at a time.
BATCH_ROWS = 65_536
#: Seconds between two lines of progress.
PROGRESS_SECONDS = 10.0


def batch_predict(
    context: StepContext,
    *,
    model: Any,
    dataset: Any,
    log_name: str | None = None,
    destination: str | None = None,
    key: str | list[str] | None = None,
    roles: dict[str, Any] | None = None,
    columns: list[str] | None = None,
    window: dict[str, Any] | None = None,
    trust: models.Trust = "recorded",
    batch_rows: int = BATCH_ROWS,
    reuse: bool = True,
) -> dict[str, Any]:
    """Predict a dataset batch by batch and put the predictions on record as one window of a log.

    Memory does not grow with the rows. A window that is predicted again takes the place of the one before at once; with
    nothing changed nothing is predicted and the same log comes back.

    :param model: a model ref, or any MLflow URI.
    :param dataset: a dataset ref, path, glob or URI.
    :param log_name: the log's name; default: the registered model's name, else the dataset's.
    :param destination: a folder or ``s3://`` URI that gets a copy: ``window=<start>--<end>/predictions.parquet``.
    :param key: column or columns that identify a row; default: the key role; neither: the row's number.
    :param roles: added to the dataset's own roles.
    :param columns: columns that go into the log beside those of the roles key, time, available_at, weight and group.
    :param window: the period; with a time role only rows inside it are predicted. Default: with a time role the one
        that the rows span, else none.
    :param trust: ``"recorded"``, or ``"unverified"`` for a model that nothing is on record of.
    :param batch_rows: rows that are predicted at a time.
    :param reuse: whether a window that was predicted with nothing changed is taken as it is.
    :return: the dataset ref of the window's rows, with ``log``, ``model`` and ``figures`` beside it.
    :raises EmptyDataError: if there are no rows, or none in the window.
    :raises MissingColumnError: if a column of the roles, the key or the signature is not there.
    """
    require("pandas", "batch_predict")
    require("pyarrow.parquet", "batch_predict")
    if trust not in ("recorded", "unverified"):
        raise SpecError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
    if not isinstance(batch_rows, int) or isinstance(batch_rows, bool) or batch_rows < 1:
        raise SpecError(f"batch_rows must be a whole number above 0, got {batch_rows!r}")
    keys = [key] if isinstance(key, str) else list(key or [])
    data = resolve(context.store, dataset, roles={**(roles or {}), **({"key": keys} if keys else {})})
    ref = models.resolve(context, model)
    asked = Window.of(window)
    log_name = log_name or ref.name or data.name
    with context.store.staging() as scratch:
        copy = fetch(context, ref, scratch / "model", trust)
        what = _identity(copy.ref, data, log_name, destination, columns, asked)
        known = _known(context, log_name, data, asked, what) if reuse else None
        if known is None:
            known = _predicted(context, copy, data, log_name, destination, columns, asked, batch_rows, what, scratch)
    _recorded(context, known)
    return {
        **known.dataset,
        "log": log_name,
        "model": known.model,
        "figures": known.figures["figures"],
        "destination_uri": known.destination_uri,
    }


def _identity(
    model: ModelRef,
    data: DatasetRef,
    log_name: str,
    destination: str | None,
    columns: list[str] | None,
    asked: Window | None,
) -> str:
    window = asked.to_dict() if asked else None
    facts = [FORMAT, log_name, model.digest, model.name, model.version, data.digest, data.roles, columns, window]
    return digests.of_json([*facts, destination])


def _known(
    context: StepContext, log_name: str, data: DatasetRef, asked: Window | None, what: str
) -> layout.LogWindow | None:
    """Return the window if it was predicted before with nothing changed, and its rows are still there."""
    span = {"start": asked.start, "end": asked.end} if asked else data.window
    candidates = layout.windows(context.store, log_name, span)
    for one in candidates:
        if one.identity == what and uses.keep(context.store, data_key(one.dataset["digest"])):
            context.log.info("log %s, window %s: predicted before with nothing changed", log_name, one.window)
            return one
    return None


def _predicted(
    context: StepContext,
    copy: ModelCopy,
    data: DatasetRef,
    log_name: str,
    destination: str | None,
    columns: list[str] | None,
    asked: Window | None,
    batch_rows: int,
    what: str,
    scratch: Path,
) -> layout.LogWindow:
    kept = _kept(data, columns)
    names = _needed(copy, data, kept)
    schema, batches = read_batches(context.store, data, names, batch_rows)
    check_columns([*kept, *role_columns(data.roles, "key", "time")], schema.names, f"dataset {data.name!r}")
    times = role_columns(data.roles, "time")
    span = Span(schema, times[0] if times else None, asked)
    if asked is not None:
        layout.check_apart(context.store, log_name, {"start": asked.start, "end": asked.end})
    began = time.monotonic()
    scorer = Scorer(
        copy=copy,
        model=None,
        kept=kept,
        key=role_columns(data.roles, "key"),
        time=times[0] if times else None,
        scored_at=dt.datetime.now(dt.timezone.utc) if asked is None else dt.datetime.fromisoformat(asked.start),
        identity={
            layout.MODEL: copy.ref.name or copy.ref.uri,
            layout.VERSION: str(copy.ref.version or ""),
            layout.DIGEST: str(copy.ref.digest),
        },
        not_features=role_columns(data.roles),
    )
    with copy.code():
        scorer.model = copy.load()
        staged = _written(context, scorer, span.keep(batches), scratch / "log.parquet", data.rows)
    if staged is None:
        where = f"; {span.described()}" if times else ""
        raise EmptyDataError(
            f"the dataset {data.name!r} has no rows to predict{' in the window' if asked else ''}{where}"
        )
    crash_point("predict.scored")
    digest = publish(context.store, staged)
    window = span.window() if times or asked is None else {"start": asked.start, "end": asked.end}
    roles = {name: value for name, value in data.roles.items() if {*role_columns({name: value})} <= {*kept}}
    rows = refer(
        context.store,
        digest,
        staged.schema,
        rows=staged.rows,
        name=f"{log_name} predictions",
        roles=roles,
        window=window,
        source=copy.ref.uri,
    )
    seconds = time.monotonic() - began
    known = layout.LogWindow(
        log=log_name,
        window=window,
        dataset=rows.to_dict(),
        model={name: getattr(copy.ref, name) for name in ("name", "version", "uri", "digest")},
        identity=what,
        figures={
            "figures": {**scorer.figures(), "seconds": seconds, "rows_per_second": staged.rows / max(seconds, 1e-9)},
            "facts": scorer.facts(),
        },
        destination_uri=_copied(context, destination, window, digest),
        run=context.run,
    )
    context.store.put_json(layout.window_key(log_name, window, data.digest), known.to_dict())
    crash_point("predict.published")
    context.log.info("log %s: %s rows predicted in %.1f s", log_name, f"{staged.rows:,}", seconds)
    if scorer.bad:
        context.log.warning("%s predictions are null, NaN or infinite", f"{scorer.bad:,}")
    return known


def _kept(data: DatasetRef, columns: list[str] | None) -> list[str]:
    if isinstance(columns, str):
        raise SpecError(f"columns must be a list of names, got {columns!r}")
    wanted = [*role_columns(data.roles, "key", "time", "available_at", "weight", "group"), *(columns or [])]
    for name in wanted:
        if name in layout.COLUMNS or name.startswith(f"{layout.PROBABILITY}_"):
            raise SpecError(f"the column {name!r} has a name of the log's own; rename it in the dataset")
    return list(dict.fromkeys(wanted))


def _needed(copy: ModelCopy, data: DatasetRef, kept: list[str]) -> list[str] | None:
    """Return the columns that have to be read; None: all, for the model's signature names none."""
    inputs = copy.inputs
    if inputs is None or data.columns is None:
        return None
    optional = {*inputs} - {*copy.metadata.get_input_schema().required_input_names()}
    wanted = [*kept, *role_columns(data.roles, "key", "time"), *inputs]
    return list(dict.fromkeys(name for name in wanted if name in data.columns or name not in optional))


def _written(
    context: StepContext, scorer: Scorer, batches: Iterator[Any], path: Path, total: int | None
) -> Staged | None:
    """Write the log as it is predicted.

    The next batch is read meanwhile, but none is predicted while one is written: models predict with all cores, and a
    thread beside them makes every other one wait.
    """
    scored = scorer.score(_with_progress(context, _ahead(batches), total))
    first = next(scored, None)
    if first is None:
        return None
    schema = normal_schema(first.schema)
    staged = Staged(path, schema)
    staged.write(normal_batch(one, schema) for one in chain([first], scored))
    return staged


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield what another yields, which makes the next one meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches, None)
        while (one := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            yield one


def _with_progress(context: StepContext, batches: Iterator[Any], total: int | None) -> Iterator[Any]:
    done, told = 0, time.monotonic()
    for batch in batches:
        yield batch
        done += batch.num_rows
        if time.monotonic() - told > PROGRESS_SECONDS:
            share = f" of {total:,} rows ({100 * done / max(total, 1):.0f}%)" if total else " rows"
            context.log.info("predicted %s%s", f"{done:,}", share)
            told = time.monotonic()


def _copied(context: StepContext, destination: str | None, window: dict[str, str] | None, digest: str) -> str | None:
    """Copy the rows to where others read them, whole or not at all, in the place of the window's last copy."""
    if not destination:
        return None
    target = _target(destination)
    part = layout.window_name(window) if window else digest.rpartition(":")[2][:16]
    key = f"window={part}/predictions.parquet"
    with context.store.open_input(data_key(digest)) as file, target.staging() as folder:
        with open(folder / "object", "xb") as local:
            while block := file.read(1 << 20):
                local.write(block)
        target.put_file(key, folder / "object")
    crash_point("predict.copied")
    return target.uri_of(key)


def _target(destination: str) -> Store:
    return open_store(destination, s3.access_for(destination) if places.is_s3(destination) else None)


def _recorded(context: StepContext, known: layout.LogWindow) -> None:
    if known.window is None:
        return
    history.record(
        context.store,
        known.log,
        known.window,
        known.figures["figures"],
        "predictions",
        version=known.model.get("version"),
        facts={**known.figures["facts"], "model_digest": known.model.get("digest")},
        run=known.run,
    )
