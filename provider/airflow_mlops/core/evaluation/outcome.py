"""What one test found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from airflow_mlops.core.vocabulary import clean


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one test, or of one slice of a test.

    :param severity: how much it counts if it fails: ``error`` or ``warning``.
    :param value: the measured figure, None if nothing could be measured.
    :param threshold: what it was held to, as text: ``"≥ 0.8"``.
    :param interval: ``[low, high]`` of the value, where one is known.
    :param comparison: of a comparison, how sure it is: see :meth:`.significance.Difference.to_dict`.
    :param slice: the part of the rows that it speaks of; None: all.
    :param message: what happened and what to do, in one sentence. It stands in the report.
    :param brief: the same without data values, for logs and XCom; None: the message has none.
    """

    name: str
    kind: str
    passed: bool
    severity: str = "error"
    value: float | None = None
    threshold: str | None = None
    interval: list[float] | None = None
    comparison: dict[str, Any] | None = None
    slice: str | None = None
    message: str = ""
    brief: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as it stands in the details."""
        return {key: clean(value) for key, value in asdict(self).items() if key != "brief"}

    def to_failure(self) -> dict[str, Any]:
        """Return the outcome as it goes to XCom: without slices' values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "severity": self.severity,
            "value": clean(self.value),
            "threshold": self.threshold,
            "message": self.brief or self.message,
        }


def outcome(spec: dict[str, Any], passed: bool, message: str, **more: Any) -> Outcome:
    """Return the outcome of a test by its spec."""
    return Outcome(
        name=spec["name"], kind=spec["kind"], severity=spec["severity"], passed=passed, message=message, **more
    )


def bounds(spec: dict[str, Any]) -> str | None:
    """Return the thresholds of a spec as text, or None."""
    parts = [f"≥ {spec['min']:g}"] if "min" in spec else []
    parts += [f"≤ {spec['max']:g}"] if "max" in spec else []
    return " and ".join(parts) or None


def within(spec: dict[str, Any], value: float) -> bool:
    """Return whether a value keeps to ``min`` and ``max`` of a spec."""
    return bool(spec.get("min", value) <= value <= spec.get("max", value))


def without_values(error: BaseException | str, names: Iterable[str] = ()) -> str:
    """Return an error of foreign code as one line in which no data value stands.

    Quoted text goes unless it is a known name (of a column), as do numbers with decimals; the first 300 characters
    stay.

    :param names: texts that may stay in quotes.
    """
    known = set(names)
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    line = re.sub(r"(['\"])(.*?)\1", lambda m: m[0] if m[2] in known else "'…'", line)
    line = re.sub(r"(?<![\w.])-?\d+\.\d+(?:[eE][-+]?\d+)?(?![\w.])", "…", line)
    return line[:300]
