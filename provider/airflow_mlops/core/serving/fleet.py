"""What runs the models: the form that processes and containers share, and a deployment's verified copy of its model."""

from __future__ import annotations

import dataclasses
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core import digests, models
from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.serving.state import Deployment
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Lines of a server's log that an error repeats.
LAST_LINES = 12


@dataclass(frozen=True)
class Instance:
    """A model server as it stands now.

    :param address: ``host:port`` that the gateway and the checks reach it at.
    :param state: ``running`` says that it has not ended, not that it answers.
    :param detail: how it ended, with its last lines.
    """

    address: str
    state: Literal["running", "ended"]
    detail: str = ""


class Fleet(ABC):
    """Starts and ends model servers. Everything is safe to call again."""

    @abstractmethod
    def ensure(self, deployment: Deployment) -> Instance:
        """Start the deployment's server if there is none, and return it; one that ended stays as it is."""

    @abstractmethod
    def revive(self, deployment: Deployment) -> Instance:
        """Return the deployment's server, started again if it has ended."""

    @abstractmethod
    def running(self, server: str) -> list[int]:
        """Return the numbers of the deployments that have a server, running or ended."""

    @abstractmethod
    def alive(self, server: str, seq: int) -> bool:
        """Return whether a server has not ended; of one that was never there: False."""

    @abstractmethod
    def remove(self, server: str, seq: int) -> None:
        """End a server, which has no requests left, and remove what is left of it."""


def verified_copy(context: StepContext, deployment: Deployment, folder: Path) -> Path:
    """Return a local folder with the deployment's model, whose files have the deployment's digest.

    :param folder: where copies are kept, by digest; one that is there is verified anew.
    :raises IntegrityError: if the files are not those of the deployment.
    """
    place = folder / digests.hex_of(deployment.digest)
    if place.is_dir() and models.digest_of(models.manifest_of(place)) == deployment.digest:
        return place
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    ref = ModelRef.from_dict({**deployment.model, "kind": "model"})
    download = folder / f".{digests.hex_of(deployment.digest)}-{deployment.server}-{deployment.seq}"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir()
    try:
        local = models.download(context, dataclasses.replace(ref, digest=deployment.digest), download)
        found = models.digest_of(models.manifest_of(local))
        if found != deployment.digest:
            raise IntegrityError(
                f"the files of {ref.uri} have the digest {found}, not {deployment.digest} as deployed; they were "
                "changed since. Do not serve them; deploy a version that is on record",
                uri=ref.uri,
            )
        local.rename(place)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    return place


def identity(deployment: Deployment) -> dict[str, Any]:
    """Return what a server says of itself."""
    model = deployment.model
    return {
        "server": deployment.server,
        "model": model.get("name") or model.get("uri"),
        "version": model.get("version"),
        "digest": deployment.digest,
        "deployment": deployment.seq,
    }
