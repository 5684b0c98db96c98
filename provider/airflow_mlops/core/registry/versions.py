"""One registered model in MLflow: its aliases, tags and versions, and what the store keeps of a version.

The store has ``versions/<name>/<version>.json`` for each version that was registered here: its ref, the manifest of
its files and the evidence that came with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.core import models
from airflow_mlops.core.errors import ConflictError, IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

T = TypeVar("T")

#: Tags of a version that is archived: the ledger's entry, and whether its files are gone.
ARCHIVED_TAG = "mlops.archived"
FILES_TAG = "mlops.files"


class RegisteredModel:
    """A registered model by name; every call asks MLflow anew.

    :param name: as MLflow has it.
    """

    def __init__(self, context: StepContext, name: str) -> None:
        self.context = context
        self.name = name
        self.uri = context.registry_uri or context.tracking_uri
        self.client = client(context, "the model registry")

    def create(self, description: str | None = None) -> bool:
        """Create the registered model unless it is there; return whether it was created.

        :raises SpecError: if MLflow does not take the name.
        """
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                self.client.create_registered_model(self.name, description=description)
            except MlflowException as error:
                if error.error_code == "RESOURCE_ALREADY_EXISTS":
                    return False
                raise
        return True

    def _read(self) -> Any:
        with mlflow_errors(self.uri):
            return self.client.get_registered_model(self.name)

    def exists(self) -> bool:
        """Return whether there is such a registered model."""
        try:
            self._read()
        except NotFoundError:
            return False
        return True

    def tags(self) -> dict[str, str]:
        """Return the tags of the registered model.

        :raises NotFoundError: if there is no such model.
        """
        return dict(self._read().tags)

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the registered model; of two who set it at once the last one wins."""
        try:
            self._tag(key, value)
        except ConflictError:  # To MLflow the tag was new to both; now it is there, and can be changed.
            self._tag(key, value)

    def _tag(self, key: str, value: str) -> None:
        with mlflow_errors(self.uri):
            self.client.set_registered_model_tag(self.name, key, value)

    def aliases(self) -> dict[str, int]:
        """Return ``{alias: version}``.

        :raises NotFoundError: if there is no such model.
        """
        return {alias: int(version) for alias, version in dict(self._read().aliases).items()}

    def alias(self, alias: str) -> int | None:
        """Return the version that an alias points at, or None."""
        return self.aliases().get(alias)

    def point(self, alias: str, version: int | None) -> None:
        """Move an alias to a version, or remove it."""
        with mlflow_errors(self.uri):
            if version is None:
                self.client.delete_registered_model_alias(self.name, alias)
            else:
                self.client.set_registered_model_alias(self.name, alias, str(version))

    def version(self, number: int) -> Any | None:
        """Return a version, or None if there is none of that number."""
        try:
            with mlflow_errors(self.uri):
                return self.client.get_model_version(self.name, str(number))
        except NotFoundError:
            return None

    def versions_tagged(self, key: str, value: str) -> list[Any]:
        """Return the versions with a tag, lowest number first."""
        name, quoted = self.name.replace("'", "''"), value.replace("'", "''")
        with mlflow_errors(self.uri):
            found = self.client.search_model_versions(f"name='{name}' and tags.`{key}`='{quoted}'")
        return sorted(found, key=lambda version: int(version.version))

    def versions(self) -> list[Any]:
        """Return all versions of the model."""
        name = self.name.replace("'", "''")
        return self._search(f"name='{name}'")

    def all_versions(self) -> list[Any]:
        """Return all versions of all models."""
        return self._search(None)

    def _search(self, wanted: str | None) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            with mlflow_errors(self.uri):
                page = self.client.search_model_versions(wanted, 1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def location(self, version: Any) -> str:
        """Return where the files of a version are."""
        model_id = models.model_id_of(version)
        with mlflow_errors(self.uri):
            if model_id:
                return str(self.client.get_logged_model(model_id).artifact_location)
            return str(self.client.get_model_version_download_uri(self.name, str(version.version)))

    def tag_version(self, number: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        with mlflow_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)

    def archive(self, number: int, seq: int, files: str | None) -> None:
        """Tag a version as archived by an entry of the ledger, and delete its files; a deleted version is passed over.

        :param files: where its files are, if they are to go.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if self.version(number) is None:
            return
        with mlflow_errors(self.uri):
            self.client.set_model_version_tag(self.name, str(number), ARCHIVED_TAG, f"entry {seq}")
            if files:
                with contextlib.suppress(FileNotFoundError):
                    get_artifact_repository(files).delete_artifacts()
                self.client.set_model_version_tag(self.name, str(number), FILES_TAG, f"deleted by entry {seq}")

    def latest(self) -> int | None:
        """Return the highest version number, or None."""
        name = self.name.replace("'", "''")
        with mlflow_errors(self.uri):
            found = self.client.search_model_versions(f"name='{name}'", 1, ["version_number DESC"])
        return int(found[0].version) if found else None

    def create_version(self, ref: ModelRef, tags: dict[str, str], description: str | None = None) -> int:
        """Create a version whose files are those of a model, in place; return its number."""
        source = f"models:/{ref.model_id}" if ref.model_id else ref.uri
        with mlflow_errors(self.uri):
            if ref.model_id and self.context.registry_uri not in (None, self.context.tracking_uri):
                # Another server cannot follow a logged model's id; it can follow the address of its files.
                source = self.client.get_logged_model(ref.model_id).artifact_location
            made = self.client.create_model_version(
                self.name,
                source,
                run_id=ref.run_id,
                tags=tags,
                description=description,
                model_id=ref.model_id,
            )
        return int(made.version)

    def delete_version(self, number: int) -> None:
        """Delete a version; it is no error if there is none."""
        try:
            with mlflow_errors(self.uri):
                self.client.delete_model_version(self.name, str(number))
        except NotFoundError:
            pass


def resolve(context: StepContext, model: Any) -> ModelRef:
    """Return a model's ref, with the logged model behind a ``runs:/`` URI if there is exactly one of that name.

    :raises NotFoundError: if there is no such model.
    """
    ref = models.resolve(context, model)
    if ref.model_id is None and ref.uri.startswith("runs:/"):
        run_id, _, path = ref.uri.removeprefix("runs:/").partition("/")
        mlflow_client = client(context, "reading a model")
        with mlflow_errors(context.tracking_uri):
            outputs = mlflow_client.get_run(run_id).outputs
            logged = [mlflow_client.get_logged_model(o.model_id) for o in (outputs.model_outputs if outputs else [])]
        found = [model.model_id for model in logged if model.name == path]
        if len(found) == 1:
            return models.resolve(context, f"models:/{found[0]}")
        if len(found) > 1:
            raise SpecError(f"{ref.uri} stands for {len(found)} logged models; name one: models:/{found[-1]}")
    return ref


def verified(context: StepContext, ref: ModelRef) -> tuple[ModelRef, dict[str, str]]:
    """Return a model's ref with its digest, and the manifest of its files; see :func:`inspected`."""
    found, manifest, _ = inspected(context, ref, lambda folder: None)
    return found, manifest


def inspected(context: StepContext, ref: ModelRef, look: Callable[[Path], T]) -> tuple[ModelRef, dict[str, str], T]:
    """Return a model's ref with its digest, and the manifest of its files, read now and compared with the record.

    Nothing of the model is loaded, so this also serves a model that was never seen here; its digest is then that of
    the files it has now.

    :param look: what else to read of the local copy; its result is the third that is returned.
    :raises IntegrityError: if the files are not those on record.
    :raises ConflictError: if what is on record is of another registry.
    """
    known = version_record(context, ref.name, ref.version) if ref.name and ref.version else None
    if known is not None and ref.name:
        Ledger(context.store, ref.name).bind(RegisteredModel(context, ref.name), begin=False)
    expected = ref.digest or (known or {}).get("ref", {}).get("digest")
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-") as folder:
        local = models.download(context, dataclasses.replace(ref, digest=expected), folder, trust="unverified")
        manifest = models.manifest_of(local)
        seen = look(local)
    if not any(path.rpartition("/")[2] == "MLmodel" for path in manifest):
        raise IntegrityError(
            f"{ref.uri} has no MLmodel file: it is no MLflow model, or its files are gone", uri=ref.uri
        )
    return dataclasses.replace(ref, digest=models.digest_of(manifest)), manifest, seen


def version_key(name: str, version: int) -> str:
    """Return the store key of a version's record."""
    return f"versions/{safe_name(name)}/{version}.json"


def version_record(context: StepContext, name: str, version: int) -> dict[str, Any] | None:
    """Return what the store keeps of a version: ``{"ref", "manifest", "evidence", "run", "key"}``, or None."""
    return context.store.find_json(version_key(name, version))
