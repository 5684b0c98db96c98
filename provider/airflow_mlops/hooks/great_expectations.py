"""GreatExpectationsHook: a frame that is in memory, held to expectations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_mlops.core.vocabulary import clean

if TYPE_CHECKING:
    import pandas


class GreatExpectationsHook(BaseHook):
    """Run Great Expectations in memory: no project folder, no connection, nothing written, nothing sent.

    For frames that a task has at hand; :class:`airflow_mlops.operators.data.ValidateDataOperator` is for datasets.
    """

    hook_name = "Great Expectations"

    def __init__(self) -> None:
        super().__init__()

    def get_conn(self) -> Any:
        """Return the library.

        :raises MissingExtraError: if it is not installed.
        """
        from airflow_mlops.core.validation.library import great_expectations

        return great_expectations()

    def validate(
        self,
        frame: pandas.DataFrame,
        expectations: Any,
        *,
        private: list[str] | None = None,
        show_values: bool = False,
        name: str = "frame",
    ) -> dict[str, Any]:
        """Hold a frame to expectations and return a verdict.

        :param frame: the data; it is not changed.
        :param expectations: in any form that ``ValidateDataOperator`` takes.
        :param private: columns whose values are never shown.
        :param show_values: whether to show up to 20 failing values of each expectation.
        :param name: what to call the data in the summary.
        :return: ``passed``, ``severity``, ``summary``, ``metrics`` and ``expectations``, one dict for each with
            ``type``, ``column``, ``passed``, ``severity``, ``skew``, ``unexpected``, ``total`` and ``message``.
        :raises SpecError: if the expectations are not well formed.
        :raises MissingExtraError: if Great Expectations is not installed.
        """
        from airflow_mlops.core.validation.expectations import read_expectations
        from airflow_mlops.core.validation.verdict import validate_frame

        found = validate_frame(frame, read_expectations(expectations), private=private, show_values=show_values)
        return clean(  # type: ignore[no-any-return]
            {
                "passed": found.passed,
                "severity": found.severity,
                "summary": found.summary(name),
                "metrics": found.metrics,
                **found.to_dict(),
            }
        )
