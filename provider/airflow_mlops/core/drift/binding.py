"""Which reference a model version has: bound when it is promoted, kept beside it, restored with it.

``references/<model>/<version>.json`` names the profile of a version, ``profiles/<digest>.json`` is one. The version
that an alias points at decides, so a rollback brings the old reference back without a word here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models
from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.data.publishing import data_key
from airflow_mlops.core.drift.importance import of_model
from airflow_mlops.core.drift.profile import VERSION, Profile, build
from airflow_mlops.core.drift.reading import open_dataset
from airflow_mlops.core.errors import MlopsError, NotFoundError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import uses
from airflow_mlops.core.registry.versions import version_record
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

FOLDER = "references"
PROFILES = "profiles"


def binding_key(name: str, version: int) -> str:
    """Return the store key that says which profile a version has."""
    return f"{FOLDER}/{safe_name(name)}/{version}.json"


def store_profile(context: StepContext, dataset: Any, *, window: dict[str, Any] | None = None, **meaning: Any) -> str:
    """Build the profile of a dataset, unless there is one of the same content, and return its key.

    :param window: only the rows inside, by the time role.
    """
    ref = resolve(context.store, dataset, **meaning)
    identity = digests.of_json([VERSION, ref.digest, ref.roles, window or ref.window, window is not None])
    key = f"{PROFILES}/{digests.hex_of(identity)}.json"
    if not uses.keep(context.store, key):
        profile = build(open_dataset(context.store, ref, window))
        context.store.put_json(key, profile.to_dict())
    crash_point("profile.stored")
    return key


def bind(context: StepContext, name: str, version: int, dataset: Any, **meaning: Any) -> dict[str, Any]:
    """Make a dataset the reference of a version."""
    key = store_profile(context, dataset, **meaning)
    value = {"schema": 1, "model": name, "version": version, "profile_uri": context.store.uri_of(key)}
    context.store.put_json(binding_key(name, version), value)
    crash_point("profile.bound")
    return value


def bind_training(context: StepContext, name: str, version: int) -> bool:
    """Make the data that a version was trained on its reference, where that is in the store and none is bound.

    :return: whether it has a reference.
    """
    if context.store.exists(binding_key(name, version)):
        return True
    ref = _ref_of(context, name, version)
    digest = (ref.training or {}).get("dataset_digest") if ref else None
    if ref is None or not digest or not context.store.exists(data_key(digest)):
        return False
    window = (ref.training or {}).get("window")
    data = DatasetRef(
        name=f"{name} {version} training data",
        uri=context.store.uri_of(data_key(digest)),
        digest=digest,
        window=window,
        roles={**_roles(context, digest), **({"target": ref.target} if ref.target else {})},
    )
    # With a time, the rows that were held out for its test are left out.
    bind(context, name, version, data.to_dict(), window=window if data.roles.get("time") else None)
    return True


def attempt_binding(context: StepContext, name: str, version: int) -> None:
    """Give a promoted version its training data as its reference; a promotion does not fail for it."""
    try:
        bound = bind_training(context, name, version)
    except MlopsError as error:
        context.log.warning("%s %s has no drift reference: %s", name, version, error.message)
        return
    if not bound:
        context.log.info(
            "%s %s has no drift reference: the data it was trained on is not in the store; give reference=",
            name,
            version,
        )


def champion_profile(context: StepContext, name: str, alias: str) -> tuple[int, Profile, dict[str, float] | None]:
    """Return the version that an alias points at, its profile, and how much each column matters to it.

    :raises NotFoundError: if there is no such model or alias, or the version has no reference.
    """
    ref = models.resolve(context, f"models:/{name}@{alias}")
    assert ref.version is not None
    version = int(ref.version)
    if not bind_training(context, name, version):
        raise NotFoundError(
            f"{name} {version} ({alias}) has no reference profile, and the data that it was trained on is not in the "
            "store; promote it with reference=, or give drift a dataset as its reference",
            model=name,
            version=version,
        )
    bound = context.store.get_json(binding_key(name, version))
    key = context.store.key_of(str(bound["profile_uri"]))
    if key is None or not uses.keep(context.store, key):
        raise NotFoundError(
            f"the reference profile of {name} {version} is gone from the store; promote it again with reference=",
            model=name,
            version=version,
        )
    profile = Profile.from_dict(context.store.get_json(key), f"the reference profile of {name} {version}")
    return version, profile, of_model(ref) or None


def _ref_of(context: StepContext, name: str, version: int) -> ModelRef | None:
    recorded = version_record(context, name, version)
    return ModelRef.from_dict(recorded["ref"]) if recorded else None


def _roles(context: StepContext, digest: str) -> dict[str, Any]:
    """Return the roles that any ref of a content gives its columns."""
    for key in context.store.keys("datasets"):
        if key.rpartition("/")[2].startswith(digests.hex_of(digest)):
            roles = context.store.get_json(key).get("roles")
            if roles:
                return dict(roles)
    return {}
