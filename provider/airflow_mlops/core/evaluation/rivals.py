"""Who a model is compared with: the champion, the anchor of its alias, or the version that served before it.

The champion is where the alias points now. The other two are read from the ledger, not from tags that anybody can edit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.evaluation import probation
from airflow_mlops.core.evaluation.evidence import Champion
from airflow_mlops.core.evaluation.probation import split_alias
from airflow_mlops.core.registry.anchor import anchors
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.training.metrics import metric

if TYPE_CHECKING:
    from airflow_mlops.core.evaluation.evidence import Evidence
    from airflow_mlops.core.evaluation.probation import Release
    from airflow_mlops.core.steps import StepContext


def champion(context: StepContext, wanted: Any) -> Champion | None:
    """Return the champion of an argument, or None if none was asked for.

    :param wanted: ``name@alias``; an alias or a model that does not exist yet is a champion without a ref.
    :raises SpecError: for another form.
    """
    if wanted is None or wanted == "" or wanted == "None":
        return None
    name, alias = split_alias(wanted)
    if models.version_by_alias(context, name, alias) is None:
        return Champion(alias=f"{name}@{alias}")
    return Champion(alias=f"{name}@{alias}", ref=models.resolve(context, f"models:/{name}@{alias}"))


def anchor(context: StepContext, alias: str, by: Any) -> Champion:
    """Return the anchor of ``name@alias`` by a metric; one without a ref if nothing was promoted yet.

    :raises ConflictError: if the ledger is of another registry.
    """
    name, short = split_alias(alias)
    rival = Champion(alias=alias, role="anchor")
    registered, ledger = RegisteredModel(context, name), Ledger(context.store, name)
    if not registered.exists():
        return rival
    ledger.bind(registered, begin=False)
    gone: list[str] = []
    for one in reversed(anchors(ledger.entries(), short, metric(by).name)):
        if registered.version(one.version) is None:
            gone.append(str(one.version))
            continue
        after = f"; version {', '.join(gone)} after it was deleted in MLflow" if gone else ""
        rival.why = one.why + after
        rival.ref = models.resolve(context, f"models:/{name}/{one.version}")
        return rival
    if gone:
        rival.settled = f"Every anchor of {alias} was deleted in MLflow (version {', '.join(gone)})"
    return rival


def others(
    context: StepContext, specs: list[dict[str, Any]], named: str | None, release: Release | None
) -> dict[str, Champion]:
    """Return the versions beside the champion that tests compare with, by test; the same version is the same object.

    :param named: ``name@alias`` of the champion.
    :param release: what tests of the kind ``previous`` judge.
    """
    found: dict[str, Champion] = {}
    known: dict[Any, Champion] = {}
    for spec in specs:
        if spec["kind"] == "anchor":
            one = anchor(context, str(named).removeprefix("models:/"), spec["metric"])
        elif spec["kind"] == "previous" and release is not None:
            one = probation.previous(context, release)
        else:
            continue
        found[spec["name"]] = known.setdefault((one.role, one.ref.version if one.ref else None, one.why), one)
    return found


def each(evidence: Evidence, compare: Callable[[Champion, Path], None], scratch: Path) -> None:
    """Compare with each of the others once; what is the champion too has been compared already."""
    serving = evidence.champion
    for number, rival in enumerate({id(one): one for one in evidence.rivals.values()}.values(), 1):
        if serving and serving.exists and rival.exists and serving.ref.version == rival.ref.version:
            for name in ("ref", "rows", "judged", "same", "verified", "problem", "unclear"):
                setattr(rival, name, getattr(serving, name))
        else:
            compare(rival, scratch / f"rival-{number}")
