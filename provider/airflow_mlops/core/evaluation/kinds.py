"""The kinds of test there are.

A kind is one entry of :data:`KINDS`: which options it takes and the function that runs it,
``(evidence, spec) -> list[Outcome]``. What a user wrote is checked against them in
:mod:`airflow_mlops.core.evaluation.specs`. Nothing here imports a heavy library: operators check their tests as the DAG
is parsed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_duration

SEVERITIES = ("error", "warning")
#: Rows that a metric needs before it says anything.
METRIC_ROWS = 20
SLICE_ROWS = 100
CHAMPION_ROWS = 100
#: Times that a version on probation is compared with the one before it.
LOOKS = 2
#: How often a test may say by chance what is not so.
ALPHA = 0.05
#: ROC AUC or R² from which a feature alone is taken for the answer.
LEAKAGE = 0.99
#: Seconds that the fresh process may take to load the model and answer.
LOAD_SECONDS = 180.0
#: Rows of one batch of the throughput.
BATCH = 1_000


@dataclass(frozen=True)
class Option:
    """What one option of a kind takes.

    :param says: what it must be, for the message: ``"a number"``.
    :param default: its value if it is left out; None and not required: absent.
    :param number: whether it is one; text like ``"0.8"``, as Airflow's templates render, is then read as a number.
    """

    holds: Callable[[Any], bool]
    says: str
    required: bool = False
    default: Any = None
    number: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of test.

    :param run: ``module:function`` with ``(evidence, spec) -> list[Outcome]``.
    :param label: the default name of such a test; may use the options in braces.
    :param any_of: at least one of these options must be given.
    :param of_log: whether it can judge a log of predictions, without the model.
    :param of_backtest: whether it can judge what refitted models say of the time after their training.
    """

    run: str
    label: str
    options: Mapping[str, Option] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    of_log: bool = False
    of_backtest: bool = False


def is_number(value: Any) -> bool:
    """Return whether it is a finite number; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _from_zero(value: Any) -> bool:
    return is_number(value) and value >= 0


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _class(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _level(value: Any) -> bool:
    return is_number(value) and 0 < value < 0.5


def _rows(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _duration(value: Any) -> bool:
    try:
        return parse_duration(value).total_seconds() > 0
    except SpecError:
        return False


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _metric(value: Any) -> bool:
    return _text(value) or callable(value)


def _by(value: Any) -> bool:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return bool(parts) and all(
        _text(part) or (isinstance(part, (list, tuple)) and len(part) > 0 and all(_text(p) for p in part))
        for part in parts
    )


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: value in allowed


METRIC = Option(_metric, "the name of a metric, like 'roc_auc', or 'package.module:function'", required=True)
NUMBER = Option(is_number, "a finite number", number=True)
LEVEL = Option(_level, "a probability above 0 and below 0.5", default=ALPHA, number=True)
CLUSTER = Option(_text, "'day' or a column")

HERE = "airflow_mlops.core.evaluation"

#: What a comparison with another version takes.
AGAINST = {
    "metric": METRIC,
    "require": Option(_one_of("not_worse", "better"), "'not_worse' or 'better'", default="not_worse"),
    "margin": Option(_from_zero, "a number from 0 on", default=0.0, number=True),
    "min_rows": Option(_rows, "a whole number from 1 on", default=CHAMPION_ROWS, number=True),
    "alpha": LEVEL,
    "cluster": CLUSTER,
    "on_unclear": Option(_one_of("keep", "promote"), "'keep' or 'promote'", default="keep"),
}

KINDS: dict[str, Kind] = {
    "metric": Kind(
        run=f"{HERE}.quality:metric_test",
        label="{metric}",
        options={
            "metric": METRIC,
            "min": NUMBER,
            "max": NUMBER,
            "min_rows": Option(_rows, "a whole number from 1 on", default=METRIC_ROWS, number=True),
        },
        any_of=("min", "max"),
        of_log=True,
        of_backtest=True,
    ),
    "champion": Kind(
        run=f"{HERE}.champion:champion_test",
        label="{metric} against the champion",
        options=AGAINST,
        of_backtest=True,
    ),
    "anchor": Kind(
        run=f"{HERE}.champion:anchor_test",
        label="{metric} against the anchor",
        options=AGAINST,
        of_backtest=True,
    ),
    "previous": Kind(
        run=f"{HERE}.champion:previous_test",
        label="{metric} against the version before",
        options={
            "metric": METRIC,
            "probation": Option(_duration, "a duration like '60d'", default="60d"),
            "looks": Option(_rows, "a whole number from 1 on", default=LOOKS, number=True),
            "margin": Option(_from_zero, "a number from 0 on", default=0.0, number=True),
            "min_rows": Option(_rows, "a whole number from 1 on", default=CHAMPION_ROWS, number=True),
            "alpha": LEVEL,
            "cluster": CLUSTER,
        },
    ),
    "slices": Kind(
        run=f"{HERE}.slices:slices_test",
        label="{metric} by {by}",
        options={
            "by": Option(_by, "a column, or a list of columns (a list inside crosses its columns)", required=True),
            "metric": METRIC,
            "min": NUMBER,
            "max": NUMBER,
            "max_gap": Option(_from_zero, "a number from 0 on", number=True),
            "min_rows": Option(_rows, "a whole number from 1 on", default=SLICE_ROWS, number=True),
            "correction": Option(_one_of("holm", "none"), "'holm' or 'none'", default="holm"),
            "alpha": LEVEL,
            "cluster": CLUSTER,
        },
        any_of=("min", "max", "max_gap"),
        of_log=True,
    ),
    "calibration": Kind(
        run=f"{HERE}.calibration:calibration_test",
        label="calibration",
        options={
            "max_ece": Option(_share, "a number from 0 to 1", number=True),
            "max_brier": Option(_from_zero, "a number from 0 on", number=True),
            "bins": Option(_rows, "a whole number from 1 on", default=10, number=True),
        },
        any_of=("max_ece", "max_brier"),
        of_log=True,
    ),
    "predictions": Kind(
        run=f"{HERE}.soundness:predictions_test",
        label="predictions make sense",
        options={"min": NUMBER, "max": NUMBER},
        of_log=True,
    ),
    "overfit": Kind(
        run=f"{HERE}.soundness:overfit_test",
        label="{metric} on training rows",
        options={"metric": METRIC, "max_gap": Option(_from_zero, "a number from 0 on", required=True, number=True)},
    ),
    "leakage": Kind(
        run=f"{HERE}.soundness:leakage_test",
        label="no feature is the answer",
        options={"max": Option(_share, "a number from 0 to 1", default=LEAKAGE, number=True)},
    ),
    "robustness": Kind(
        run=f"{HERE}.behaviour:robustness_test",
        label="robust",
        options={
            "max_flips": Option(_from_zero, "a number from 0 on", required=True, number=True),
            "noise": Option(_from_zero, "a number from 0 on", default=0.1, number=True),
            "missing": Option(_share, "a number from 0 to 1", default=0.05, number=True),
            "swap": Option(_share, "a number from 0 to 1", default=0.05, number=True),
        },
    ),
    "invariance": Kind(
        run=f"{HERE}.behaviour:invariance_test",
        label="does not depend on {column}",
        options={
            "column": Option(_text, "a column", required=True),
            "max_flips": Option(_from_zero, "a number from 0 on", default=0.0, number=True),
        },
    ),
    "directional": Kind(
        run=f"{HERE}.behaviour:directional_test",
        label="{expect}s with {column}",
        options={
            "column": Option(_text, "a column", required=True),
            "expect": Option(_one_of("increase", "decrease"), "'increase' or 'decrease'", required=True),
            "change": NUMBER,
            "factor": NUMBER,
            "of_class": Option(_class, "a class that the model knows"),
            "max_wrong": Option(_share, "a number from 0 to 1", default=0.05, number=True),
        },
        any_of=("change", "factor"),
    ),
    "fairness": Kind(
        run=f"{HERE}.fairness:fairness_test",
        label="{criterion} by {by}",
        options={
            "by": Option(_by, "a column, or a list of columns (a list inside crosses its columns)", required=True),
            "criterion": Option(
                _one_of("demographic_parity", "equalized_odds"),
                "'demographic_parity' or 'equalized_odds'",
                required=True,
            ),
            "max_difference": Option(_share, "a number from 0 to 1", number=True),
            "min_ratio": Option(_share, "a number from 0 to 1", number=True),
            "of_class": Option(_class, "a class that the model knows"),
            "at_least": NUMBER,
            "min_rows": Option(_rows, "a whole number from 1 on", default=SLICE_ROWS, number=True),
            "correction": Option(_one_of("holm", "none"), "'holm' or 'none'", default="holm"),
            "alpha": LEVEL,
            "cluster": CLUSTER,
        },
        any_of=("max_difference", "min_ratio"),
        of_log=True,
    ),
    "signature": Kind(run=f"{HERE}.infrastructure:signature_test", label="signature"),
    "load": Kind(
        run=f"{HERE}.infrastructure:load_test",
        label="loads and is served",
        options={"timeout": Option(_positive, "seconds above 0", default=LOAD_SECONDS, number=True)},
    ),
    "contract": Kind(run=f"{HERE}.infrastructure:contract_test", label="input contract"),
    "latency": Kind(
        run=f"{HERE}.infrastructure:latency_test",
        label="single-row latency",
        options={
            **{
                f"{percentile}_ms": Option(_positive, "milliseconds above 0", number=True)
                for percentile in ("p50", "p95", "p99")
            },
            "over": Option(_one_of("predict", "http"), "'predict' or 'http'", default="predict"),
        },
        any_of=("p50_ms", "p95_ms", "p99_ms"),
    ),
    "throughput": Kind(
        run=f"{HERE}.infrastructure:throughput_test",
        label="throughput",
        options={
            "min_rows_per_second": Option(_positive, "a number above 0", number=True),
            "min_requests_per_second": Option(_positive, "a number above 0", number=True),
            "batch": Option(_rows, "a whole number from 1 on", default=BATCH, number=True),
        },
        any_of=("min_rows_per_second", "min_requests_per_second"),
    ),
    "memory": Kind(
        run=f"{HERE}.infrastructure:memory_test",
        label="memory",
        options={"max_mb": Option(_positive, "megabytes above 0", required=True, number=True)},
    ),
    "size": Kind(
        run=f"{HERE}.infrastructure:size_test",
        label="artifact size",
        options={"max_mb": Option(_positive, "megabytes above 0", required=True, number=True)},
    ),
    "custom": Kind(
        run=f"{HERE}.quality:custom_test",
        label="{function}",
        options={
            "function": Option(_metric, "'package.module:function' or a callable", required=True),
        },
    ),
}

COMMON = {
    "severity": Option(_one_of(*SEVERITIES), "'error' or 'warning'", default="error"),
    "name": Option(_text, "a text"),
}
