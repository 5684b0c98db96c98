"""The image of a step's container: there already, or pulled."""

from __future__ import annotations

import logging
import re
from typing import Any

from airflow_mlops.core.errors import CannotReachError, CredentialsError, MlopsError, NotFoundError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.runtimes.docker_engine import Engine, engine_errors
from airflow_mlops.runtimes.docker_settings import ContainerSettings

#: What a registry says of an image that it does not have, or does not show to one who is not logged in.
_ABSENT = r"not found|manifest unknown|name unknown|does not exist|repository name not known|no basic auth|denied"
_REFUSED = r"unauthorized|authentication required|incorrect username or password"


def image_id(engine: Engine, client: Any, settings: ContainerSettings, log: logging.Logger) -> str:
    """Return the id of the image, pulled first where the settings say so.

    :raises NotFoundError: if the engine does not have it, and the registry does not either or was not asked.
    :raises CredentialsError: if the registry refuses the login.
    :raises CannotReachError: if the registry does not answer.
    """
    found = None if settings.pull == "always" else _there(engine, client, settings.image)
    if found is None and settings.pull == "never":
        raise NotFoundError(
            f"{engine.name} does not have the image {settings.image!r}, and runtime['pull'] is 'never'; build or load "
            "it there (docker images shows what is there), or set runtime['pull'] = 'missing'",
            image=settings.image,
        )
    if found is None:
        _pull(engine, settings.image, log)
        found = _there(engine, client, settings.image)
    if found is None:
        raise NotFoundError(f"{engine.name} pulled {settings.image!r}, and does not have it now", image=settings.image)
    return found


def _there(engine: Engine, client: Any, image: str) -> str | None:
    from docker.errors import NotFound

    with engine_errors(engine):
        try:
            return str(client.inspect_image(image)["Id"])
        except NotFound:
            return None


def _pull(engine: Engine, image: str, log: logging.Logger) -> None:
    log.info("Pulling the image %s", image)
    from docker.errors import APIError

    # The login is made here alone: an engine that has the image needs no registry.
    client = engine.client(login=True)
    try:
        with engine_errors(engine):
            try:
                said = list(client.pull(image, stream=True, decode=True))
            except APIError as error:
                raise _failed(engine, image, str(error.explanation or error)) from None
        for line in said:
            if "error" in line:
                raise _failed(engine, image, str(line["error"]))
    finally:
        client.close()
    log.info("Pulled the image %s", image)


def _failed(engine: Engine, image: str, why: str) -> MlopsError:
    text = strip_credentials(why.strip())
    login = f"the connection {engine.conn_id!r}" if engine.conn_id else "a connection of type docker"
    if re.search(_REFUSED, text, re.IGNORECASE):
        return CredentialsError(
            f"the registry of the image {image!r} refuses the login: {text}; check host, login and password of {login} "
            "(the host is the registry, as in the image's name)",
            image=image,
        )
    if re.search(_ABSENT, text, re.IGNORECASE):
        return NotFoundError(
            f"{engine.name} does not have the image {image!r}, and it cannot be pulled: {text}. Check its name and "
            f"tag; if its registry asks for a login, give {login} host, login and password; an image that you built "
            "must be on the engine's machine, or pushed to a registry",
            image=image,
        )
    return CannotReachError(
        f"{engine.name} does not have the image {image!r}, and it cannot be pulled now: {text}. Check that the "
        "engine's machine reaches the registry",
        image=image,
    )
