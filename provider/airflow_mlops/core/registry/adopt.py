"""Adopting: a model that was trained elsewhere becomes one that every gate here knows.

What MLflow has already stays where it is. A file or folder, local or on S3, is logged to MLflow once, however often
it is adopted: its content decides.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.core import digests, models
from airflow_mlops.core.data import places
from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.tracking import client, experiment_id, mlflow_errors, strip_credentials
from airflow_mlops.core.vocabulary import ModelRef, clean

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

ADOPTED_TAG = "mlops.adopted"
TRUSTS = ("recorded", "unverified", "pickle")
#: What ``flavor`` may say of a file; default: its content does.
FLAVORS = ("mlflow", "skops", "xgboost", "lightgbm", "pickle")
#: Endings by which a text is taken for a model file and not for a name in the registry.
ENDINGS = (".joblib", ".pkl", ".pickle", ".skops", ".json", ".ubj", ".txt", ".lgb", ".zip")


def is_file(model: Any) -> bool:
    """Return whether a model argument is a file or folder, here or on S3, and no URI of MLflow."""
    if not isinstance(model, str):
        return False
    if places.is_s3(model) or model.startswith("file:"):
        return True
    return (
        "://" not in model
        and not model.startswith(("models:", "runs:"))
        and (os.path.exists(model) or model.lower().endswith(ENDINGS) or model.startswith(("/", "~", "./", "../")))
    )


def log_file(
    context: StepContext, source: str, *, flavor: str | None, trust: str, trusted_types: list[str] | None
) -> ModelRef:
    """Log a model file or folder to MLflow, or find the one that was logged of the same content before.

    :param source: a path, ``file://`` URI or ``s3://`` URI of a file, or of a folder with ``MLmodel``.
    :param flavor: one of :data:`FLAVORS` where the content does not tell.
    :param trust: ``"pickle"`` lets a pickle be loaded, which is needed to make an MLflow model of it.
    :return: its ref; what is not known of it is None.
    """
    from airflow_mlops.core.training import modelfile

    if flavor not in (None, "", *FLAVORS):
        raise SpecError(f"flavor must be one of {', '.join(FLAVORS)}, got {flavor!r}")
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-") as name:
        scratch = Path(name)
        local = _fetched(source, scratch / "source")
        kind = flavor or modelfile.format_of(local)
        content = digests.of_json(models.manifest_of(local)) if local.is_dir() else digests.of_file(local)
        key = digests.hex_of(digests.of_json([content, kind, sorted(trusted_types or [])]))[:32]
        mlflow_client = client(context, "adopting a model")
        experiment = experiment_id(mlflow_client, context, str(context.run.get("dag_id") or "mlops"))
        with mlflow_errors(context.tracking_uri):
            known = mlflow_client.search_logged_models([experiment], filter_string=f"tags.`{ADOPTED_TAG}` = '{key}'")
            ready = [one for one in known if _status(one) == "READY"]
            if ready:
                oldest = min(ready, key=lambda one: int(one.creation_timestamp))
                context.log.info("%s was adopted before, as models:/%s", strip_credentials(source), oldest.model_id)
                return ModelRef(uri=f"models:/{oldest.model_id}", model_id=oldest.model_id)
            for one in known:
                # What a try that was killed has left half done.
                mlflow_client.delete_logged_model(one.model_id)
        folder = local if kind == "mlflow" else scratch / "model"
        made = None if kind == "mlflow" else _loaded(local, kind, trust, trusted_types)
        with mlflow_errors(context.tracking_uri):
            logged = mlflow_client.create_logged_model(
                experiment,
                name=_name(source),
                tags={ADOPTED_TAG: key, "mlops.adopted_from": strip_credentials(source)[:5000]},
                model_type=str(kind),
            )
        crash_point("adopt.created")
        if made is not None:
            _write(made, folder, logged.model_id, trust, trusted_types)
        with mlflow_errors(context.tracking_uri):
            mlflow_client.log_model_artifacts(logged.model_id, str(folder))
        crash_point("adopt.uploaded")
        with mlflow_errors(context.tracking_uri):
            mlflow_client.finalize_logged_model(logged.model_id, "READY")
        crash_point("adopt.finalised")
        context.log.info("logged %s to MLflow as models:/%s", strip_credentials(source), logged.model_id)
        return ModelRef(uri=f"models:/{logged.model_id}", model_id=logged.model_id)


def described(context: StepContext, ref: ModelRef, source: Any, trust: str) -> ModelRef:
    """Return the ref with what MLflow knows of it and how it came here.

    The metrics are those of the run that it was logged in; nothing is made up.
    """
    metrics = dict(ref.metrics or {})
    if ref.run_id:
        mlflow_client = client(context, "reading a run")
        try:
            with mlflow_errors(context.tracking_uri):
                # The run's come last: of a model MLflow's SQL store gives 0 where NaN was logged.
                metrics |= mlflow_client.get_run(ref.run_id).data.metrics
        except NotFoundError:
            context.log.warning("the run %s of %s is gone: its metrics are not known", ref.run_id, ref.uri)
    text = source.get("uri") if isinstance(source, dict) else source
    vouched = {"trust": trust} if trust != "recorded" else {}
    origin = {**(ref.code or {}), "adopted_from": strip_credentials(str(text)), **vouched}
    return dataclasses.replace(ref, metrics=clean(metrics), code=origin)


def signature_of(folder: Path) -> dict[str, Any] | None:
    """Return the signature in a model's ``MLmodel`` as JSON, ``{"inputs", "outputs"}``, or None."""
    from mlflow.models import Model

    found = next((path for path in sorted(folder.rglob("MLmodel"))), None)
    signature = Model.load(str(found)).signature if found else None
    if signature is None:
        return None
    return {part: (schema.to_dict() if schema is not None else None) for part, schema in
            (("inputs", signature.inputs), ("outputs", signature.outputs))}  # fmt: skip


def _status(model: Any) -> str:
    return str(model.status).rpartition(".")[2].upper()


def _name(source: str) -> str:
    import re

    last = source.rstrip("/").rpartition("/")[2]
    return re.sub(r"[/:.%\"']", "_", last.partition(".")[0]) or "model"


def _fetched(source: str, folder: Path) -> Path:
    """Return a local path of a file or folder; what is on S3 is downloaded."""
    if not places.is_s3(source):
        parts = urlsplit(source)
        path = Path(unquote(parts.path) if parts.scheme == "file" else os.path.expanduser(source)).absolute()
        if not path.exists():
            raise NotFoundError(f"there is no model at {path}: neither a file nor a folder", path=str(path))
        return path
    from airflow_mlops.core.data import s3_files

    objects = s3_files.look(source)
    prefix = source.rstrip("/") + "/"
    if [one.path for one in objects] == [source]:
        return _downloaded(source, folder / places.name_of(source))
    for one in objects:
        if not one.path.startswith(prefix):
            raise SpecError(f"{source} stands for {len(objects)} objects; give one file, or the folder of one model")
        _downloaded(one.path, folder / one.path[len(prefix) :])
    return folder


def _downloaded(path: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with places.open_stream(path) as source, open(target, "wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    return target


def _loaded(path: Path, kind: str, trust: str, trusted_types: list[str] | None) -> Any:
    from airflow_mlops.core.training import modelfile

    return modelfile.load(path, trust=trust, trusted_types=trusted_types, own=set(), kind=kind)


def _write(model: Any, folder: Path, model_id: str, trust: str, trusted_types: list[str] | None) -> None:
    """Write a model as a folder of MLflow. There are no rows to take a signature or an example from."""
    from mlflow.models import Model

    from airflow_mlops.core.training import packaging

    packaging.write_model(
        model,
        folder,
        features=None,
        own=set(),
        trusted_types=list(trusted_types or []),
        mlflow_model=Model(artifact_path="model", model_uuid=model_id, model_id=model_id),
        signature=None,
        example=None,
        scratch=folder.with_name("code"),
        pickle=trust == "pickle",
    )
