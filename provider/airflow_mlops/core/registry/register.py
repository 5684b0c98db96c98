"""register_model: one version in the registry for one model and one task instance."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.registry import adopt, verdict
from airflow_mlops.core.registry.evidence import as_reports
from airflow_mlops.core.registry.ledger import Ledger, lease_seconds
from airflow_mlops.core.registry.verdict import REASON_TAG, TAG_LIMIT
from airflow_mlops.core.registry.versions import RegisteredModel, inspected, resolve, version_key, version_record
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.vocabulary import ModelRef, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Tags of a version that are ours begin with this.
OURS = "mlops."
KEY_TAG = "mlops.key"
#: The alias whose version is noted as the one before.
CHAMPION = "champion"


def register_model(
    context: StepContext,
    *,
    model: Any,
    model_name: str,
    tags: dict[str, Any] | None = None,
    description: str | None = None,
    evidence: Any = None,
    reason: str | None = None,
    trust: str = "recorded",
    flavor: str | None = None,
    trusted_types: list[str] | None = None,
) -> dict[str, Any]:
    """Make a model a version of a registered model, or return the version that this task made of it before.

    What MLflow has stays where it is; that the files are those on record is verified first. A model that nothing is on
    record of is adopted with ``trust``: its digest is put on record, and every gate takes it from then on.

    :param model: a model ref, any MLflow URI, or a file or folder, local or ``s3://``, which is logged to MLflow.
    :param model_name: name in the registry; made if it is missing.
    :param tags: added to the version's tags; none may begin with ``mlops.``.
    :param description: of the version.
    :param evidence: reports of gates, kept with the version, passed or not; a promotion uses them.
    :param reason: why there is this version, such as a decision's reason; kept with it, and the reason of its promotion
        where none is given then.
    :param trust: ``"recorded"``: a model without a record becomes a version, but is not vouched for;
        ``"unverified"``: it is put on record as it is now; ``"pickle"``: the same, and a pickle may be loaded.
    :param flavor: what a file is, where its content does not tell; see :mod:`airflow_mlops.core.training.modelfile`.
    :param trusted_types: types that a file may have beside those on the allow-list.
    :return: the model's ref with its version; ``code.trust`` and ``code.adopted_from`` where it was adopted.
    :raises IntegrityError: if the model's files are not those on record.
    :raises UnsupportedError: if a file is no model, is a pickle that nobody vouches for, or has types not trusted.
    """
    if not isinstance(model_name, str) or not model_name.strip():
        raise SpecError(f"model_name must be a name in the registry, got {model_name!r}")
    wrong = [tag for tag in tags or {} if str(tag).startswith(OURS)]
    if wrong:
        raise SpecError(f"the tag {wrong[0]!r} is the provider's own; use a name that does not begin with {OURS!r}")
    if trust not in adopt.TRUSTS:
        raise SpecError(f"trust must be one of {', '.join(map(repr, adopt.TRUSTS))}, got {trust!r}")
    reports = as_reports(evidence)
    given = model
    if adopt.is_file(model):
        model = adopt.log_file(context, model, flavor=flavor, trust=trust, trusted_types=trusted_types).uri
    elif flavor:
        raise SpecError("flavor says what a file is; a model in MLflow has its own")
    ref, manifest, signature = inspected(context, resolve(context, model), adopt.signature_of)
    known = models.recorded(context, ref)
    if known is None:
        ref = adopt.described(context, ref, given, trust)
    registered = RegisteredModel(context, model_name)
    if registered.create():
        context.log.info("created the registered model %r", model_name)
    crash_point("register.model_created")
    Ledger(context.store, model_name).bind(registered)
    number = version_of(
        context,
        registered,
        ref,
        manifest,
        identity=[context.key],
        tags=tags,
        description=description,
        evidence=reports,
        signature=signature,
        reason=reason or None,
    )
    refused = verdict.refusal(reports)
    if reports:
        verdict.note(context, registered, number, refused, reports)
    if refused:
        context.log.warning("version %d of %r is kept, and not to be promoted: %s", number, model_name, refused)
    if known is None and trust != "recorded":
        # By what MLflow calls it: the logged model, else the version, whose files no other model has.
        own = ref if ref.model_id else dataclasses.replace(ref, uri=f"models:/{model_name}/{number}")
        models.record(context, own, manifest)
        context.log.info("put on record with trust=%r: %s", trust, ref.digest)
    record = version_record(context, model_name, number)
    assert record is not None
    return dict(record["ref"])


def version_of(
    context: StepContext,
    registered: RegisteredModel,
    ref: ModelRef,
    manifest: dict[str, str],
    *,
    identity: list[Any],
    tags: dict[str, Any] | None = None,
    description: str | None = None,
    evidence: list[dict[str, Any]] | None = None,
    signature: dict[str, Any] | None = None,
    reason: str | None = None,
) -> int:
    """Return the number of the one version that stands for a model and an identity, made if need be.

    An intent in the store keeps others away while one makes the version. Should two make one all the same (one was
    slower than its lease), the first to put its number on record keeps it and the other takes its own back.
    """
    digest = digests.of_json([registered.name, ref.digest, ref.model_id or ref.uri, *identity])
    key = digests.hex_of(digest)[:32]
    folder = f"registrations/{safe_name(registered.name)}"
    record_key, intent_key = f"{folder}/{key}.json", f"{folder}/{key}.intent.json"

    number = _known(context, registered, record_key, key)
    if number is None and not _begin(context, intent_key):
        number = _wait(context, registered, record_key, intent_key, key)
    crash_point("register.intent_written")
    if number is None:
        number = registered.create_version(ref, _tags(context, registered, ref, key, tags, reason), description)
        context.log.info("registered %s as version %d of %r", ref.uri, number, registered.name)
    crash_point("register.version_created")
    kept = {
        "ref": _registered_ref(ref, registered.name, number),
        "manifest": manifest,
        "evidence": evidence or [],
        "signature": signature,
        "reason": reason,
        "key": context.key,
        "run": context.run,
        "at": utc_now(),
    }
    _keep(context, version_key(registered.name, number), kept)
    context.store.put_json(record_key, {"version": number, "model": registered.name, "at": utc_now()}, if_absent=True)
    crash_point("register.recorded")
    standing = int(context.store.get_json(record_key)["version"])
    _take_back(context, registered, key, standing)
    return standing


def _keep(context: StepContext, key: str, kept: dict[str, Any]) -> None:
    """Keep the record of a version. Gates that ran again have new reports; these replace the old ones."""
    if not context.store.put_json(key, kept, if_absent=True) and kept["evidence"]:
        before = context.store.get_json(key)
        if before["evidence"] != kept["evidence"]:
            context.store.put_json(key, {**before, "evidence": kept["evidence"]})


def _known(context: StepContext, registered: RegisteredModel, record_key: str, key: str) -> int | None:
    """Return the version that is on record or carries our tag, or None; a version deleted in MLflow is forgotten."""
    if context.store.exists(record_key):
        number = int(context.store.get_json(record_key)["version"])
        if registered.version(number) is not None:
            context.log.info("version %d of %r was registered by this task before", number, registered.name)
            return number
        context.log.warning("version %d of %r was deleted in MLflow; registering anew", number, registered.name)
        context.store.delete(record_key)
        context.store.delete(record_key.replace(".json", ".intent.json"))
    tagged = registered.versions_tagged(KEY_TAG, key)
    return int(tagged[0].version) if tagged else None


def _begin(context: StepContext, intent_key: str) -> bool:
    intent = {"key": context.key, "at": utc_now(), "lease_until": time.time() + lease_seconds()}
    return context.store.put_json(intent_key, intent, if_absent=True)


def _wait(context: StepContext, registered: RegisteredModel, record_key: str, intent_key: str, key: str) -> int | None:
    """Wait for whoever began the same registration; None once its lease is over and it has left nothing."""
    until = float(context.store.get_json(intent_key)["lease_until"])
    deadline = time.monotonic() + min(until - time.time(), lease_seconds())
    context.log.info("this model is being registered as %r by an earlier try; waiting for it", registered.name)
    while True:
        number = _known(context, registered, record_key, key)
        if number is not None or time.monotonic() >= deadline:
            return number
        time.sleep(0.1)


def _take_back(context: StepContext, registered: RegisteredModel, key: str, standing: int) -> None:
    """Delete what was made twice: versions with our tag that are not the one on record and that no alias names."""
    twice = [int(v.version) for v in registered.versions_tagged(KEY_TAG, key) if int(v.version) != standing]
    for number in twice:
        if number not in registered.aliases().values():
            context.log.warning("version %d of %r doubles version %d; deleting it", number, registered.name, standing)
            registered.delete_version(number)
            context.store.delete(version_key(registered.name, number))


def _registered_ref(ref: ModelRef, name: str, number: int) -> dict[str, Any]:
    return {**ref.to_dict(), "name": name, "version": number, "uri": f"models:/{name}/{number}"}


def _tags(
    context: StepContext,
    registered: RegisteredModel,
    ref: ModelRef,
    key: str,
    tags: dict[str, Any] | None,
    reason: str | None,
) -> dict[str, str]:
    champion = registered.alias(CHAMPION)
    run = context.run
    known = {
        KEY_TAG: key,
        REASON_TAG: reason,
        "mlops.digest": ref.digest,
        "mlops.dataset_digest": (ref.training or {}).get("dataset_digest"),
        "mlops.code_sha": (ref.code or {}).get("sha") or (ref.code or {}).get("git_sha"),
        "mlops.image": (ref.code or {}).get("image"),
        "mlops.model_id": ref.model_id,
        "mlops.trust": (ref.code or {}).get("trust"),
        "mlops.adopted_from": (ref.code or {}).get("adopted_from"),
        "mlops.previous_champion": champion,
        "mlops.run": "/".join(str(run[k]) for k in ("dag_id", "run_id", "task_id") if run.get(k)),
    }
    found = {name: str(value)[:TAG_LIMIT] for name, value in known.items() if value not in (None, "")}
    return {**{str(k): str(v)[:TAG_LIMIT] for k, v in (tags or {}).items()}, **found}
