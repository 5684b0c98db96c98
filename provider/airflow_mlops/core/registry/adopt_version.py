"""The step ``adopt_model``: a version that stands in the registry, and is served elsewhere, is put on record here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.data.dataset import resolve as resolve_dataset
from airflow_mlops.core.drift.binding import bind, binding_key
from airflow_mlops.core.errors import IntegrityError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.registry import adopt
from airflow_mlops.core.registry.versions import inspected, resolve, version_key, version_record
from airflow_mlops.core.training.metrics import metric
from airflow_mlops.core.vocabulary import utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def adopt_model(
    context: StepContext,
    *,
    model: Any,
    reference: Any = None,
    baseline: Any = None,
    roles: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Put the digest, signature, reference profile and baseline of a registered version on record; no alias moves.

    Adopted again, the reference and baseline that are given take the place of those before; the files must be the same.
    The reference is read once: drift against ``"name@alias"`` reads its profile from then on.

    :param model: a version in the registry: ``models:/name/3``, ``models:/name@alias``, or a ref of one.
    :param reference: dataset that monitoring compares with: a ref, path, glob or URI.
    :param baseline: ``{metric: value}`` of the model when it went into production, or a report with ``metrics``.
    :param roles: what the reference's columns mean.
    :return: the version's ref with ``signature``, ``reference``, ``profile_uri`` and ``baseline``.
    :raises SpecError: if it is no version in the registry, or the baseline is none.
    :raises IntegrityError: if its files are not those on record.
    """
    level = _baseline(baseline)
    found = resolve(context, model)
    if not found.name or not found.version:
        raise SpecError(
            f"{found.uri} is no version in the registry: name one (models:/name/3), or make it one with "
            "RegisterModelOperator first"
        )
    data = resolve_dataset(context.store, reference, roles=roles).to_dict() if reference else None
    ref, manifest, signature = inspected(context, found, adopt.signature_of)
    if models.recorded(context, ref) is None:
        ref = adopt.described(context, ref, model, "unverified")
        own = ref if ref.model_id else dataclasses.replace(ref, uri=f"models:/{ref.name}/{ref.version}")
        models.record(context, own, manifest)
    crash_point("adopt.recorded")
    name, number = str(ref.name), int(found.version)
    ref = dataclasses.replace(ref, uri=f"models:/{name}/{number}")
    key = version_key(name, number)
    fresh: dict[str, Any] = {
        "ref": ref.to_dict(),
        "manifest": manifest,
        "evidence": [],
        "signature": signature,
        "key": context.key,
        "run": context.run,
        "at": utc_now(),
    }
    before = version_record(context, name, number) or fresh
    if models.digest_of(before["manifest"]) != models.digest_of(manifest):
        raise IntegrityError(f"{ref.uri} is on record with other files: they were altered after it was registered")
    if data:
        bind(context, name, number, data)
    given = {"baseline": level, "reference": data}
    kept = {**before, **{what: value for what, value in given.items() if value}}
    if kept != version_record(context, name, number):
        context.store.put_json(key, kept)
    crash_point("adopt.kept")
    bound = binding_key(name, number)
    context.log.info("adopted %s: %s, baseline %s", ref.uri, ref.digest, kept.get("baseline") or "none")
    return {
        **kept["ref"],
        "signature": kept.get("signature"),
        "reference": kept.get("reference"),
        "profile_uri": context.store.get_json(bound)["profile_uri"] if context.store.exists(bound) else None,
        "baseline": kept.get("baseline") or {},
    }


def _baseline(given: Any) -> dict[str, float]:
    if given in (None, "", {}):
        return {}
    if isinstance(given, Mapping) and "kind" in given:
        given = {name: value for name, value in (given.get("metrics") or {}).items() if _is_number(value)}
    if not isinstance(given, Mapping) or not all(_is_number(value) for value in given.values()):
        raise SpecError(f"baseline is {{metric: value}} or a report with metrics, got {given!r}")
    return {str(name): float(value) for name, value in given.items()}


def parse_baseline(texts: list[str]) -> dict[str, float]:
    """Read ``roc_auc=0.81`` as the command line has it.

    :raises SpecError: for anything else, or a metric that is not known.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[metric(name).name] = float(value)
        except ValueError:
            raise SpecError(f"--baseline takes METRIC=VALUE, such as roc_auc=0.81, got {text!r}") from None
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
