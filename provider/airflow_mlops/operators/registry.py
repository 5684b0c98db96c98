"""Register a model, have a version of it approved, promote it, roll back, and archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_mlops.core.errors import SpecError
from airflow_mlops.links.model import MLflowRunLink, ModelCardLink, ModelVersionLink
from airflow_mlops.operators.approval import ApproveModelOperator
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.models import resolve_model

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "AdoptModelOperator",
    "ApproveModelOperator",
    "ArchiveModelsOperator",
    "PromoteModelOperator",
    "RegisterModelOperator",
    "RollbackModelOperator",
]


class AdoptModelOperator(MlopsOperator):
    """Put a version that was trained, registered and is served elsewhere on record, so that it can be monitored.

    Returns the version's ref with ``signature``, ``reference``, ``profile_uri`` and ``baseline``. No alias moves, and
    the model is not loaded: the digest is that of its files as they are now. From then on every gate takes it,
    ``MonitorPerformanceOperator`` knows its level, and ``DetectDriftOperator(reference="name@alias")`` its profile.
    Adopted again, what is given takes the place of what was; altered files are refused.

    :param model: a version in the registry: ``models:/name/3``, ``models:/name@alias``, or a ref. (templated)
    :param reference: the data that it is compared with: a dataset ref, path, glob or URI. (templated)
    :param baseline: ``{metric: value}`` when it went into production, or a report with ``metrics``. (templated)
    :param roles: what the reference's columns mean. (templated)
    """

    step = "adopt_model"
    step_arguments = ("model", "reference", "baseline", "roles")
    path_arguments = ("reference",)
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(),)

    template_fields: Sequence[str] = (*step_arguments, *BACKEND_FIELDS)
    template_fields_renderers = dict.fromkeys(step_arguments, "json")

    def __init__(
        self,
        *,
        model: Any,
        reference: Any = None,
        baseline: Any = None,
        roles: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.reference = reference
        self.baseline = baseline
        self.roles = roles


class RegisterModelOperator(MlopsOperator):
    """Make a model a version of a registered model in MLflow; adopt one that was trained elsewhere.

    Returns the model's ref with ``name``, ``version`` and ``uri`` (``models:/name/version``). What MLflow has stays
    where it is; that the files are those that were logged is verified first. The task's retry, and the task cleared
    with the same model, get the same version back.

    Of a model from elsewhere the ref has the digest of its files and the metrics of its run; what nobody knows is null.

    :param model: a model ref, such as ``train.output``; any MLflow URI (``models:/name/3``, ``runs:/<run>/model``); or
        the path or ``s3://`` URI of a model's file or MLflow folder, which is logged to MLflow once. A relative path
        is looked up in the DAG bundle, then beside the DAG's file. (templated)
    :param model_name: name in the registry; made if it is missing. (templated)
    :param tags: tags of the version, beside the provider's own that begin with ``mlops.``. (templated)
    :param description: of the version. (templated)
    :param evidence: reports of gates, such as ``[test.output]``, kept with the version whatever they say. A promotion
        of the version, also from the command line, rests on them, and a version whose reports did not pass is kept with
        the reason: in its record, its card, its tag ``mlops.refused`` and ``airflow mlops history``. (templated)
    :param reason: why there is this version, such as a decision's ``reason``: its tag ``mlops.reason``, and the reason
        in the ledger where its promotion gives none. (templated)
    :param trust: of a model that nothing is on record of. ``"recorded"``: it becomes a version, and each gate still
        asks for trust. ``"unverified"``: it is put on record as it is now, and every gate takes it. ``"pickle"``: the
        same, and a ``.joblib`` or ``.pkl`` may be loaded, which runs whatever is in it. The ref's ``code``, the
        version's tags and the reports of gates say so. (templated)
    :param flavor: what a file is, where its content does not tell: ``mlflow``, ``skops``, ``xgboost``, ``lightgbm`` or
        ``pickle``. (templated)
    :param trusted_types: types that a file may contain beside those of scikit-learn, NumPy, SciPy, pandas, XGBoost and
        LightGBM. (templated)
    :raises ValueError: in the constructor, for a ``trust`` that cannot be.
    """

    step = "register_model"
    step_arguments = (
        *("model", "model_name", "tags", "description", "evidence", "reason"),
        *("trust", "flavor", "trusted_types"),
    )
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(), MLflowRunLink())

    template_fields: Sequence[str] = (*step_arguments, *BACKEND_FIELDS)
    template_fields_renderers = {"model": "json", "tags": "json", "evidence": "json"}  # noqa: RUF012

    def __init__(
        self,
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if trust not in ("recorded", "unverified", "pickle") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded', 'unverified' or 'pickle', got {trust!r}")
        self.model = model
        self.model_name = model_name
        self.tags = tags
        self.description = description
        self.evidence = evidence
        self.reason = reason
        self.trust = trust
        self.flavor = flavor
        self.trusted_types = trusted_types

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the path of a file resolved."""
        return {**super().arguments(context), "model": resolve_model(context, self.model)}


class PromoteModelOperator(MlopsOperator):
    """Point an alias at a version, on evidence, through the ledger.

    Returns the ledger entry: ``seq``, ``model``, ``alias``, ``version``, ``previous_version``, ``by``, ``reason``,
    ``evidence``, ``card_uri``. The version gets a model card, made of what is on record of it. Of two promotions at
    once one wins and the other fails with the reason. Killed at any instant and tried again, there is one entry. The
    task cleared after a later promotion or rollback fails with "superseded by entry n" and moves nothing.

    Evidence that did not pass promotes nothing: the version keeps the reason, and the task fails, or with
    ``fail_on="never"`` is skipped after it has returned ``{"kind": "refusal", "model", "version", "reason"}``. The same
    holds where another version was promoted after the test, so that nobody knows whether this one is better.

    :param model: ref of a registered version, such as ``register.output``, or its URI (``models:/name/3``,
        ``name/3``); with ``to_name`` also a model that is only logged. (templated)
    :param alias: the alias to move. (templated)
    :param to_name: another registered name to promote to, such as ``churn_production``; the version is made there of
        the same files. (templated)
    :param evidence: reports that must all have passed and speak of this model, such as ``[test.output]``. Default:
        those that were registered with the version; ``[]``: none, which the entry then says. (templated)
    :param expected_champion: the version that the alias must have now; ``"none"``: it must not exist yet. Default
        ``"unset"``: the version that the evidence was measured against, else what stands when the task begins.
        (templated)
    :param reason: why, for the ledger; default: the reason that the approver among the evidence gave, else the one that
        the version was registered with. (templated)
    :param by: who, for the ledger; default: who approved it, else the user who triggered the run. (templated)
    :param reference: the dataset that drift is measured against while this version serves (``"name@alias"`` there);
        default: the data that it was trained on, where that is in the store. (templated)
    :param card: what the model card says beside what is on record: ``{"intended_use": "...", "limitations": ["..."]}``,
        also ``out_of_scope``, ``ethical_considerations``, ``contact``, or any other section. It is kept for the model's
        later versions. (templated)
    :param clock: when this takes place in the time of the data, ISO 8601: the version's probation begins then. Needed
        where months are replayed; default: now. (templated)
    :param fail_on: ``error``: the task fails if the evidence did not pass, or another version serves by now; ``never``:
        a challenger that loses is no failure of the DAG, and the task is skipped. (templated)
    :raises ValueError: in the constructor, for another ``fail_on``.
    """

    step = "promote_model"
    step_arguments = (
        *("model", "alias", "to_name", "evidence", "expected_champion", "reason", "by", "card", "reference"),
        "clock",
    )
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(), ModelCardLink())

    template_fields: Sequence[str] = (*step_arguments, "fail_on", *BACKEND_FIELDS)
    template_fields_renderers = {"model": "json", "evidence": "json", "card": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Any,
        alias: str = "champion",
        to_name: str | None = None,
        evidence: Any = None,
        expected_champion: int | str | None = "unset",
        reason: str | None = None,
        by: str | None = None,
        card: dict[str, Any] | None = None,
        reference: Any = None,
        clock: str | None = None,
        fail_on: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if fail_on not in ("error", "never") and "{" not in fail_on:
            raise ValueError(f"fail_on must be 'error' or 'never', got {fail_on!r}")
        self.clock = clock
        self.fail_on = fail_on
        self.model = model
        self.alias = alias
        self.to_name = to_name
        self.evidence = evidence
        self.expected_champion = expected_champion
        self.reason = reason
        self.by = by
        self.card = card
        self.reference = reference

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with what to do about evidence that did not pass."""
        if self.fail_on not in ("error", "never"):
            raise SpecError(f"fail_on must be 'error' or 'never', got {self.fail_on!r}")
        return {**super().arguments(context), "refuse": "return" if self.fail_on == "never" else "raise"}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the ledger entry, and say in the log what took place."""
        if result["kind"] == "refusal":
            skip(context, result, f"{result['model']} version {result['version']} is not promoted: {result['reason']}")
        self.log.info("%s", _sentence(result))
        return result


class RollbackModelOperator(MlopsOperator):
    """Point an alias back at a version that it had, through the ledger.

    Returns the ledger entry, of action ``rollback``. What was itself rolled back is passed over: a second rollback goes
    further back. A promotion that comes in meanwhile is not undone: the task fails and says which. Killed at any
    instant and tried again, there is one entry and one step back. The task cleared after a later promotion or rollback
    fails with "superseded by entry n" and moves nothing.

    With ``evidence`` it is the second half of a probation: it goes back only where a test of the kind ``previous`` has
    shown that the version before is better, or answers where this one does not, to that version, with the report in the
    ledger. Otherwise, also where
    another release serves by now, the task returns ``{"kind": "no_rollback", "reason", ...}`` and is skipped.

    :param model_name: name in the registry. (templated)
    :param alias: the alias to move. (templated)
    :param to_version: a version that the alias had; default: the one before the present one. (templated)
    :param reason: why, for the ledger; default: what the evidence shows. (templated)
    :param by: who, for the ledger; default: the user who triggered the run. (templated)
    :param evidence: the report of an ``EvaluateModelOperator`` with a test of the kind ``previous``. (templated)
    :param clock: when this takes place in the time of the data, ISO 8601; default: the evidence's, else now.
        (templated)
    :raises ValueError: in the constructor, for ``evidence`` together with ``to_version``.
    """

    step = "rollback_model"
    step_arguments = ("model_name", "alias", "to_version", "reason", "by", "evidence", "clock")
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(),)

    template_fields: Sequence[str] = (*step_arguments, *BACKEND_FIELDS)

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        to_version: int | str | None = None,
        reason: str | None = None,
        by: str | None = None,
        evidence: Any = None,
        clock: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if evidence is not None and to_version is not None:
            raise ValueError("give either evidence, which says which version is better, or to_version")
        self.model_name = model_name
        self.alias = alias
        self.to_version = to_version
        self.reason = reason
        self.by = by
        self.evidence = evidence
        self.clock = clock

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the ledger entry, and say in the log what took place."""
        if result["kind"] == "no_rollback":
            skip(context, result, f"{result['model']}@{result['alias']} stays: {result['reason']}")
        self.log.info("%s", _sentence(result))
        return result


class ArchiveModelsOperator(MlopsOperator):
    """Archive the old versions of a model that nothing needs, through the ledger.

    Never the newest ``keep``, one that has an alias, or one that an alias can be rolled back to. An archived version
    is tagged ``mlops.archived`` in MLflow and stays there; its record and the evidence of its promotions stay too.

    Returns ``{"kind": "archive", "model", "versions", "files", "kept", "entry"}``: the versions that were archived,
    those whose files were deleted, why the others stay, and the ledger entry, or None where there was nothing to do.

    :param model_name: name in the registry. (templated)
    :param keep: how many of the newest versions stay in any case. (templated)
    :param keep_rollback: how many versions each alias can be rolled back to; default: all that it ever had. (templated)
    :param delete_files: delete the files of what is archived, unless a version that stays is made of the same, under
        whatever name. Such a version can never serve again.
    :param only_show: change nothing, and return what would be done.
    :param reason: why, for the ledger. (templated)
    """

    step = "archive_models"
    step_arguments = ("model_name", "keep", "keep_rollback", "delete_files", "reason")
    needs_mlflow = True

    template_fields: Sequence[str] = ("model_name", "keep", "keep_rollback", "reason", *BACKEND_FIELDS)

    def __init__(
        self,
        *,
        model_name: str,
        keep: int | str = 10,
        keep_rollback: int | str | None = None,
        delete_files: bool = False,
        only_show: bool = False,
        reason: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.keep = keep
        self.keep_rollback = keep_rollback
        self.delete_files = delete_files
        self.only_show = only_show
        self.reason = reason

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments."""
        return {**super().arguments(context), "dry_run": self.only_show}

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return what was done, and say it in the log."""
        what = "would be archived" if result["dry_run"] else "archived"
        self.log.info("%s: %d versions %s: %s", result["model"], len(result["versions"]), what, result["versions"])
        return result


def skip(context: Context, result: dict[str, Any], why: str) -> None:
    """Push what was found, and have Airflow skip the task and what follows from it.

    :raises AirflowSkipException: always.
    """
    context["ti"].xcom_push(key="return_value", value=result)
    raise AirflowSkipException(why)


def _sentence(entry: dict[str, Any]) -> str:
    before = entry["previous_version"] or "none"
    return f"{entry['model']}@{entry['alias']}: version {entry['version']}, before {before} (entry {entry['seq']})"
