"""Models by reference: what an MLflow URI stands for, and loading what is on record.

A model is code. Its digest is that of the manifest of its files at log time, kept in the store under
``models/<model id>.json``, where an editable MLflow tag cannot reach it. A load is: download, compare with the
manifest, load that copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core import digests
from airflow_mlops.core.errors import IntegrityError, NotFoundError, SpecError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

Trust = Literal["recorded", "unverified"]

#: ``name@alias``.
NAMED = re.compile(r"[^:/@{}]+@[^:/@{}]+")
#: MLflow writes this into a model's folder when it loads it by alias; it is no part of the model.
NOT_PART_OF_A_MODEL = ("registered_model_meta", ".DS_Store")


def skops_io(purpose: str) -> Any:
    """Return the module ``skops.io``, imported without the warnings that its first import would log.

    :raises MissingExtraError: if it is not installed.
    """
    with quietly():
        return require("skops.io", purpose)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep warnings out of the log while skops is imported, or reads or writes a model.

    To name a ufunc it asks every loaded module for it, those of SciPy when it is imported, and a thousand deprecated
    names of Airflow's answer with a warning each. They are collected and dropped: a filter alone is undone by the
    modules that this imports.
    """
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        yield


def manifest_of(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the manifest of a model folder: ``{path: digest}``."""
    return digests.manifest_of(folder, ignore=NOT_PART_OF_A_MODEL)


def digest_of(manifest: dict[str, str]) -> str:
    """Return a model's digest from its manifest."""
    return digests.of_json(manifest)


def record_key(model_id: str) -> str:
    """Return the store key of a model's record."""
    return f"models/{safe_name(model_id)}.json"


def record(context: StepContext, ref: ModelRef, manifest: dict[str, str]) -> None:
    """Keep a model's ref and manifest in the store, once and for all.

    :raises IntegrityError: if the same model id is on record with other files.
    """
    key = record_key(identity(ref))
    if context.store.put_json(key, {"ref": ref.to_dict(), "manifest": manifest}, if_absent=True):
        return
    known = context.store.get_json(key)
    if digest_of(known["manifest"]) != digest_of(manifest):
        raise IntegrityError(
            f"{ref.uri} is on record with digest {digest_of(known['manifest'])}, but its files now have "
            f"{digest_of(manifest)}: they were changed after it was logged",
            uri=ref.uri,
        )


def identity(ref: ModelRef) -> str:
    """Return what a model's record is filed under: its MLflow model id, else its URI."""
    return ref.model_id or ref.uri


def recorded(context: StepContext, ref: ModelRef) -> dict[str, Any] | None:
    """Return the store's record of a model, ``{"ref", "manifest"}``, or None."""
    return context.store.find_json(record_key(identity(ref)))


def resolve(context: StepContext, model: Any) -> ModelRef:
    """Return the ref of a model: what MLflow says now, completed by what is on record.

    :param model: a model ref, or ``models:/name@alias``, ``models:/name/3``, ``models:/m-<id>``,
        ``runs:/<run>/<path>``, ``name@alias``, ``name/3``, or the URI or path of an MLflow model folder.
    :raises NotFoundError: if there is no such model, version or alias.
    """
    ref = ModelRef.from_dict(model) if isinstance(model, dict) else _from_uri(context, str(model))
    known = recorded(context, ref)
    if known is None:
        return ref
    base = ModelRef.from_dict(known["ref"])
    if ref.digest and base.digest and ref.digest != base.digest:
        raise IntegrityError(
            f"the ref of {ref.uri} carries digest {ref.digest}, on record is {base.digest}", uri=ref.uri
        )
    own = {
        f.name: getattr(ref, f.name)
        for f in dataclasses.fields(ref)
        if f.name != "created_at" and getattr(ref, f.name) not in (None, {}, [])
    }
    return dataclasses.replace(base, **own)


def _from_uri(context: StepContext, uri: str) -> ModelRef:
    short = re.fullmatch(r"([^:/@]+)(@[^/@]+|/\d+)", uri)
    if short and not os.path.exists(uri):
        uri = f"models:/{uri}"
    if uri.startswith("models:/"):
        return _from_registry(context, uri)
    if uri.startswith("runs:/"):
        run_id = uri.removeprefix("runs:/").partition("/")[0]
        mlflow_client = client(context, "reading a model")
        with mlflow_errors(context.tracking_uri):
            run = mlflow_client.get_run(run_id)
            metrics = dict(run.data.metrics)
        return ModelRef(uri=uri, run_id=run_id, metrics=metrics)
    if "://" not in uri and not (Path(uri) / "MLmodel").is_file():
        raise NotFoundError(
            f"{uri!r} is no model: it is neither an MLflow URI (models:/name@alias, models:/name/3, runs:/...) "
            "nor a folder with an MLmodel file"
        )
    return ModelRef(uri=uri)


def _from_registry(context: StepContext, uri: str) -> ModelRef:
    target = uri.removeprefix("models:/").lstrip("/")
    mlflow_client = client(context, "reading a model")
    with mlflow_errors(context.registry_uri or context.tracking_uri):
        if re.fullmatch(r"m-[0-9a-f]+", target):
            logged = mlflow_client.get_logged_model(target)
            metrics = {metric.key: metric.value for metric in logged.metrics or []}
            return ModelRef(uri=uri, model_id=target, run_id=logged.source_run_id, metrics=metrics)
        if "@" in target:
            name, _, alias = target.rpartition("@")
            version = version_by_alias(context, name, alias)
            if version is None:
                raise NotFoundError(
                    f"the registered model {name!r} has no alias {alias!r}, or there is no such model",
                    model=name,
                    alias=alias,
                )
        else:
            name, _, number = target.rpartition("/")
            if not name or not number.isdigit():
                raise SpecError(f"{uri!r} must be models:/name@alias, models:/name/version or models:/m-<id>")
            version = _version(mlflow_client, name, number)
        return ModelRef(
            uri=f"models:/{name}/{version.version}",
            name=name,
            version=int(version.version),
            run_id=version.run_id or None,
            model_id=model_id_of(version),
        )


def _version(mlflow_client: Any, name: str, number: str) -> Any:
    """Return a version of a registered model.

    :raises NotFoundError: naming the nearest model, or the versions that there are.
    """
    from mlflow.exceptions import MlflowException

    try:
        return mlflow_client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    quoted = name.replace("'", "''")
    found = sorted(int(one.version) for one in mlflow_client.search_model_versions(f"name='{quoted}'", max_results=100))
    if not found:
        known = [one.name for one in mlflow_client.search_registered_models(max_results=100)]
        raise NotFoundError(
            f"there is no registered model {name!r} with a version{did_you_mean(name, known)}", model=name
        )
    listed = ", ".join(map(str, found[-10:]))
    raise NotFoundError(f"{name!r} has no version {number}; it has {listed}", model=name, version=int(number))


def model_id_of(version: Any) -> str | None:
    """Return the id of the logged model that a version of the registry was made from, or None.

    MLflow's SQL registry does not keep it as such, only the source that the version was made from.
    """
    source = re.fullmatch(r"models:/(m-[0-9a-f]+)|.*/models/(m-[0-9a-f]+)/artifacts/?", version.source or "")
    return getattr(version, "model_id", None) or (source[1] or source[2] if source else None)


def version_by_alias(context: StepContext, name: str, alias: str) -> Any:
    """Return the model version that an alias points at, or None if there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    mlflow_client = client(context, "reading an alias")
    uri = context.registry_uri or context.tracking_uri
    with mlflow_errors(uri):
        try:
            return mlflow_client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            missing = error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
                error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower()
            )
            if missing:
                return None
            raise


def download(context: StepContext, ref: ModelRef, folder: str | os.PathLike[str], trust: Trust = "recorded") -> Path:
    """Download a model's files to a local folder and verify them.

    :param folder: an empty local folder to download into.
    :param trust: ``"recorded"``: only a model whose manifest is on record, or whose ref carries a digest;
        ``"unverified"``: also one that this project has never seen.
    :return: the folder with the ``MLmodel`` file.
    :raises IntegrityError: if the files are not those on record, or nothing is on record and ``trust`` asks for it.
    """
    from mlflow.artifacts import download_artifacts

    known = recorded(context, ref)
    expected = digest_of(known["manifest"]) if known else ref.digest
    if expected is None and trust != "unverified":
        raise IntegrityError(
            f"{ref.uri} is not on record here: a model is code, and loading runs it. If you know where it comes "
            "from, pass trust='unverified', or adopt it first",
            uri=ref.uri,
        )
    client(context, "downloading a model")
    with mlflow_errors(context.tracking_uri):
        source = f"models:/{ref.model_id}" if ref.model_id else ref.uri
        local = Path(download_artifacts(artifact_uri=source, dst_path=os.fspath(folder)))
    manifest = manifest_of(local)
    if expected is not None and digest_of(manifest) != expected:
        before = known["manifest"] if known else {}
        changed = sorted(p for p in {*manifest, *before} if manifest.get(p) != before.get(p))[:5]
        raise IntegrityError(
            f"the files of {ref.uri} are not those that were logged ({', '.join(changed) if before else 'digest'} "
            "differ): they were altered after the fact. Do not serve it; roll back or train again",
            uri=ref.uri,
            changed=changed,
        )
    return local
