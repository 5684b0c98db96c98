"""Where aliases of registered models point, and whether one was moved since the last look.

A look at one registry gives the aliases of all its models, so that one poll serves any number of watchers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.tracking import client, mlflow_errors
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

KIND = "model_alias"
#: Models that MLflow is asked for at a time.
PAGE = 200

#: ``{model: {alias: version}}``
Aliases = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Told:
    """What was told of one alias.

    :param version: the one that was told of last, or None.
    :param moves: how many times it was told.
    :param since: when the first was; makes ids of moves differ from those before what was told was lost.
    """

    version: int | None = None
    moves: int = 0
    since: str | None = None

    @classmethod
    def of(cls, value: Any) -> Told:
        """Read what :meth:`to_dict` wrote, an event or a sensor's result, a version's number, or nothing.

        :raises SpecError: for anything else.
        """
        if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
            return cls()
        try:
            if isinstance(value, dict):
                version = value["version"]
                return cls(None if version is None else int(version), int(value.get("moves", 1)), value.get("since"))
            return cls(int(str(value).strip()), 1)
        except (KeyError, TypeError, ValueError):
            raise SpecError("since must be the number of a version, or what a ModelAliasSensor returned") from None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"version": self.version, "moves": self.moves, "since": self.since}

    def after(self, version: int | None) -> Told:
        """Return what is known once that version has been told of."""
        return Told(version, self.moves + 1, self.since or utc_now())


def look(context: StepContext, model: str | None = None) -> Aliases:
    """Return the aliases of all models of the registry, or of one.

    :raises CannotReachError: if MLflow does not answer.
    """
    mlflow_client = client(context, "the model registry")
    found: Aliases = {}
    token: str | None = None
    quoted = None if model is None else "name='{}'".format(model.replace("'", "''"))
    with mlflow_errors(context.registry_uri or context.tracking_uri):
        while True:
            page = mlflow_client.search_registered_models(quoted, max_results=PAGE, page_token=token)
            for one in page:
                found[one.name] = {alias: int(version) for alias, version in dict(one.aliases).items()}
            token = page.token
            if not token:
                return found


def moved(place: str, model: str, alias: str, aliases: Aliases, told: Told) -> dict[str, Any] | None:
    """Return that an alias points at another version than was told, or None; one that was removed is no move.

    :param place: the registry, without credentials.
    """
    version = aliases.get(model, {}).get(alias)
    if version is None or version == told.version:
        return None
    identity = [place, model, alias, version]
    if told.since is not None:
        identity += [told.since, told.moves]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "id": digests.of_json(identity),
        "model_name": model,
        "alias": alias,
        "version": version,
        "previous_version": told.version,
        "uri": f"models:/{model}/{version}",
    }
