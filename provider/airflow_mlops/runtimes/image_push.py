"""Give an image to its registry, with the login of the engine's connection."""

from __future__ import annotations

import logging
import re
from typing import Any

from airflow_mlops.core.errors import CannotReachError, CredentialsError, MlopsError, SpecError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.runtimes.docker_engine import Engine, engine_errors

#: Seconds for which a push may say nothing.
SILENCE_SECONDS = 3600
#: What is worth a line of the log; a layer's progress is not.
_WORTH = ("Pushed", "Layer already exists", "Mounted from")
_REFUSED = r"unauthorized|authentication required|no basic auth|denied|incorrect username or password"


def push(engine: Engine, tag: str, log: logging.Logger) -> str:
    """Push an image that the engine has, and return the digest of its manifest in the registry.

    What the registry has already is not sent again.

    :raises CredentialsError: if the registry refuses the login, or the right to push.
    :raises CannotReachError: if the registry does not answer.
    """
    from docker.errors import APIError
    from docker.utils import parse_repository_tag

    repository, version = parse_repository_tag(tag)
    log.info("Pushing the image %s", tag)
    digest = ""
    # The credentials travel in a header of the call to the engine, and nowhere else.
    client = _logged_in(engine, tag)
    try:
        with engine_errors(engine):
            try:
                said = client.push(repository, version or "latest", stream=True, decode=True)
                for one in said:
                    if "error" in one:
                        raise _failed(engine, tag, str(one["error"]))
                    if (one.get("aux") or {}).get("Digest"):
                        digest = str(one["aux"]["Digest"])
                    if str(one.get("status") or "").startswith(_WORTH):
                        log.info("| %s: %s", one.get("id") or "", one["status"])
            except APIError as error:
                raise _failed(engine, tag, str(error.explanation or error)) from None
    finally:
        client.close()
    if not digest:
        raise CannotReachError(f"the registry of {tag!r} did not say which digest it gave the image; try again")
    log.info("Pushed the image %s as %s", tag, digest)
    return digest


def digest_of(found: Any, tag: str) -> str | None:
    """Return the digest that a repository's registry gave an image, as far as the engine knows."""
    named = dict(one.partition("@")[::2] for one in found.get("RepoDigests") or [])
    return named.get(repository_of(tag)) or next(iter(named.values()), None)


def repository_of(tag: str) -> str:
    """Return an image's name without its version."""
    from docker.utils import parse_repository_tag

    return str(parse_repository_tag(tag)[0])


def _logged_in(engine: Engine, tag: str) -> Any:
    try:
        return engine.client(login=True, timeout=SILENCE_SECONDS)
    except MlopsError as error:
        if re.search(_REFUSED, error.message, re.IGNORECASE):
            raise _failed(engine, tag, error.message) from None
        raise


def _failed(engine: Engine, tag: str, why: str) -> MlopsError:
    text = strip_credentials(why.strip())
    login = f"the connection {engine.conn_id!r}" if engine.conn_id else "a connection of type docker (docker_conn_id)"
    if re.search(_REFUSED, text, re.IGNORECASE):
        return CredentialsError(
            f"the registry refuses to take the image {tag!r}: {text}. Give {login} host (the registry, as in the "
            "image's name), login and password of somebody who may push there",
            image=tag,
        )
    if re.search(r"invalid reference|repository name must", text, re.IGNORECASE):
        return SpecError(f"the image {tag!r} cannot be pushed: {text}")
    return CannotReachError(
        f"the image {tag!r} cannot be pushed now: {text}. Check that the engine's machine reaches the registry, and "
        "that the tag begins with its name",
        image=tag,
    )
