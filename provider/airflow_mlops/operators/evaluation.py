"""Test a model before it is registered, promoted or served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.evaluation.kinds import check_tests
from airflow_mlops.links.model import MLflowRunLink, ReportLink
from airflow_mlops.operators.base import BACKEND_FIELDS, GateOperator


class EvaluateModelOperator(GateOperator):
    """Test a model on rows that it was not trained on, and against the champion on rows that neither was trained on.

    Returns a report of kind ``model_test``: ``passed``, ``severity``, ``summary``, ``metrics`` (the champion's as
    ``champion_<metric>``), ``checks``, ``failures``, ``subject`` (the model's digest), ``report_uri`` (HTML),
    ``details_uri`` (JSON), ``model_uri``, ``model_name`` and ``champion_version``, the version that the evidence was
    measured against. It is pushed before the task fails.

    :param model: a model ref, such as ``train.output``, or any MLflow URI (``models:/name@alias``, ``models:/name/3``,
        ``runs:/<run>/model``), also of a model trained elsewhere. It is downloaded once and verified. (templated)
    :param dataset: a dataset ref, or a path, glob or URI; default: the test rows that the model was held out from.
        (templated)
    :param tests: a list of dicts, each with a ``kind`` and, if wanted, ``name`` and ``severity`` (``error`` or
        ``warning``): ``metric``, ``champion``, ``slices``, ``signature``, ``load``, ``latency``, ``size``, ``custom``.
        Default: the signature, a fresh process, and not worse than the champion where one is named. (templated)
    :param champion: ``name@alias`` of the model to compare with. While there is no such model or alias, tests against
        it pass and say so. (templated)
    :param target: the target column; default: the dataset's target role, else the target that the model was trained
        for. (templated)
    :param roles: what the dataset's columns mean, added to the roles that it brings. (templated)
    :param trust: ``"recorded"``: only a model whose files are on record; ``"unverified"``: also one that this project
        has never seen, which the report then says. (templated)
    :param report_name: title of the report; default: the model's name. (templated)
    :param show_values: show the values of columns of the ``private`` role where slices are made by them.
    :param fail_on: from which severity on the task fails: ``error``, ``warning`` or ``never``. (templated)
    :raises ValueError: in the constructor, for a mistake in ``tests`` that can be seen before anything is rendered.
    """

    step = "evaluate_model"
    step_arguments = ("model", "dataset", "tests", "champion", "target", "roles", "trust", "show_values")
    needs_mlflow = True
    operator_extra_links = (ReportLink(), MLflowRunLink())

    template_fields: Sequence[str] = (
        "model",
        "dataset",
        "tests",
        "champion",
        "target",
        "roles",
        "trust",
        "report_name",
        "fail_on",
        *BACKEND_FIELDS,
    )
    template_fields_renderers = {"model": "json", "dataset": "json", "tests": "json", "roles": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Any,
        dataset: Any = None,
        tests: Any = None,
        champion: str | None = None,
        target: str | None = None,
        roles: dict[str, Any] | None = None,
        trust: str = "recorded",
        report_name: str | None = None,
        show_values: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(tests, (list, tuple)):
            try:
                specs = check_tests(tests, rendered=False)
            except SpecError as error:
                raise ValueError(error.message) from None
            if champion is None and any(spec["kind"] == "champion" for spec in specs):
                raise ValueError("a test of kind 'champion' needs champion='name@alias'")
        if trust not in ("recorded", "unverified") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
        self.model = model
        self.dataset = dataset
        self.tests = tests
        self.champion = champion
        self.target = target
        self.roles = roles
        self.trust = trust
        self.report_name = report_name
        self.show_values = show_values

    def arguments(self, context: Any) -> dict[str, Any]:
        """Return the step's arguments."""
        return {**super().arguments(context), "name": self.report_name}
