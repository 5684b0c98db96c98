"""Register a model, and promote a version of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.links.model import MLflowRunLink, ModelVersionLink
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class RegisterModelOperator(MlopsOperator):
    """Make a model a version of a registered model in MLflow.

    Returns the model's ref with ``name``, ``version`` and ``uri`` (``models:/name/version``). The files stay where
    they are; that they are those that were logged is verified first. The task's retry, and the task cleared with the
    same model, get the same version back.

    :param model: a model ref, such as ``train.output``, or any MLflow URI (``models:/name/3``, ``runs:/<run>/model``),
        also of a model trained elsewhere. (templated)
    :param model_name: name in the registry; made if it is missing. (templated)
    :param tags: tags of the version, beside the provider's own that begin with ``mlops.``. (templated)
    :param description: of the version. (templated)
    :param evidence: reports of gates, such as ``[test.output]``, kept with the version whatever they say. A promotion
        of the version, also from the command line, rests on them. (templated)
    """

    step = "register_model"
    step_arguments = ("model", "model_name", "tags", "description", "evidence")
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(), MLflowRunLink())

    template_fields: Sequence[str] = ("model", "model_name", "tags", "description", "evidence", *BACKEND_FIELDS)
    template_fields_renderers = {"model": "json", "tags": "json", "evidence": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Any,
        model_name: str,
        tags: dict[str, Any] | None = None,
        description: str | None = None,
        evidence: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.model_name = model_name
        self.tags = tags
        self.description = description
        self.evidence = evidence


class PromoteModelOperator(MlopsOperator):
    """Point an alias at a version, on evidence, through the ledger.

    Returns the ledger entry: ``seq``, ``model``, ``alias``, ``version``, ``previous_version``, ``by``, ``reason``,
    ``evidence``. Of two promotions at once one wins and the other fails with the reason. Killed at any instant and
    tried again, there is one entry. The task cleared after a later promotion or rollback fails with "superseded by
    entry n" and moves nothing.

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
    :param reason: why, for the ledger. (templated)
    :param by: who, for the ledger; default: the user who triggered the run. (templated)
    """

    step = "promote_model"
    step_arguments = ("model", "alias", "to_name", "evidence", "expected_champion", "reason", "by")
    needs_mlflow = True
    operator_extra_links = (ModelVersionLink(),)

    template_fields: Sequence[str] = (
        "model",
        "alias",
        "to_name",
        "evidence",
        "expected_champion",
        "reason",
        "by",
        *BACKEND_FIELDS,
    )
    template_fields_renderers = {"model": "json", "evidence": "json"}  # noqa: RUF012

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.alias = alias
        self.to_name = to_name
        self.evidence = evidence
        self.expected_champion = expected_champion
        self.reason = reason
        self.by = by

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the ledger entry, and say in the log what took place."""
        self.log.info(
            "%s@%s: version %s, before %s (entry %s)",
            result["model"],
            result["alias"],
            result["version"],
            result["previous_version"] or "none",
            result["seq"],
        )
        return result
