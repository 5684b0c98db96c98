"""The plain JSON dicts that go from task to task, as frozen dataclasses.

What stands in XCom is always ``to_dict()`` of one of these: ``"schema": 1``, a ``"kind"``, JSON values only (see
:func:`airflow_mlops.core.plain.clean`), trimmed by :func:`airflow_mlops.core.xcom.fit_xcom`. Readers accept every
earlier schema and ignore fields they do not know.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.plain import clean as clean

SCHEMA = 1
#: Columns that a dataset ref lists; beyond, they stand in the store.
MAX_COLUMNS = 100
#: Failures that a report carries; the details have all of them.
MAX_FAILURES = 20

ROLE_NAMES = ("key", "time", "available_at", "target", "weight", "group", "private", "label_delay")

Severity = Literal["ok", "warning", "error"]
T = TypeVar("T", bound="Thing")


def utc_now() -> str:
    """Return the present instant as ISO 8601 in UTC, to the microsecond."""
    return dt.datetime.now(dt.timezone.utc).isoformat()


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Base of the vocabulary: JSON out, JSON in."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict with ``schema`` and ``kind``."""
        return {"schema": SCHEMA, "kind": self.kind} | {
            f.name: clean(getattr(self, f.name)) for f in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls: type[T], value: dict[str, Any]) -> T:
        """Read a dict that this or an earlier version wrote.

        :raises SpecError: if the kind is another one or the schema is newer than this version.
        """
        if not isinstance(value, dict):
            raise SpecError(f"expected a {cls.kind} as a dict, got {type(value).__name__}")
        kind = value.get("kind", cls.kind)
        if kind != cls.kind:
            raise SpecError(f"expected a {cls.kind}, got a {kind}", expected=cls.kind, got=kind)
        schema = value.get("schema", SCHEMA)
        if not isinstance(schema, int) or isinstance(schema, bool) or schema > SCHEMA:
            raise SpecError(
                f"this {kind} has schema {schema}; this version of airflow-provider-mlops reads up to {SCHEMA}: "
                "upgrade it where this task runs"
            )
        names = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{k: v for k, v in value.items() if k in names})
        except TypeError as error:
            raise SpecError(f"this {cls.kind} lacks a field: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Window(Thing):
    """A half-open period ``[start, end)`` that data, predictions or a verdict speak of.

    :param start: ISO 8601, inclusive.
    :param end: ISO 8601, exclusive.
    """

    kind: ClassVar[str] = "window"
    start: str
    end: str

    @classmethod
    def of(cls, value: Any) -> Window | None:
        """Read ``{"start", "end"}`` or ``{"end", "length": "7d"}``; None and empty stay None.

        Dates without a time mean midnight, times without a zone mean UTC.

        :raises SpecError: for anything else, or a start that is not before its end.
        """
        if value is None or value == "" or value == {}:
            return None
        if isinstance(value, Window):
            return value
        if not isinstance(value, dict) or not value.get("end"):
            raise SpecError(f"a window is {{'start', 'end'}} or {{'end', 'length': '7d'}}, got {value!r}")
        end = parse_instant(value["end"])
        if value.get("length"):
            try:
                start = end - parse_duration(value["length"])
            except OverflowError as error:
                raise SpecError(f"the window of length {value['length']!r} would start before the year 1") from error
        elif value.get("start"):
            start = parse_instant(value["start"])
        else:
            raise SpecError("a window needs a 'start' or a 'length' beside its 'end'")
        if start >= end:
            raise SpecError(f"the window starts at {start.isoformat()}, not before its end {end.isoformat()}")
        return cls(start=start.isoformat(), end=end.isoformat())


def parse_instant(value: Any) -> dt.datetime:
    """Return an aware datetime from ISO 8601 text, a date or a datetime; no zone means UTC.

    :raises SpecError: for anything else, or what is outside the years 1 to 9999 in UTC.
    """
    if isinstance(value, dt.datetime):
        instant = value
    elif isinstance(value, dt.date):
        instant = dt.datetime(value.year, value.month, value.day)
    else:
        text = re.sub(r"[Zz]$", "+00:00", str(value).strip())
        # Python 3.10 reads fractions of three or six digits only.
        text = re.sub(r"\.(\d+)", lambda match: "." + match[1][:6].ljust(6, "0"), text)
        try:
            instant = dt.datetime.fromisoformat(text)
        except ValueError as error:
            raise SpecError(f"{value!r} is not an instant in ISO 8601, like 2013-03-01 or 2013-03-01T06:00Z") from error
    instant = instant if instant.tzinfo else instant.replace(tzinfo=dt.timezone.utc)
    try:
        instant.astimezone(dt.timezone.utc)
    except OverflowError as error:
        raise SpecError(f"{value!r} is outside the years 1 to 9999 in UTC") from error
    return instant


def optional_instant(value: Any, what: str) -> dt.datetime | None:
    """Return an instant as a user or a template writes it, in UTC; None for none.

    :param what: name of the argument, for the message.
    :raises SpecError: if it is no instant.
    """
    if value is None or str(value).strip() in ("", "None"):
        return None
    try:
        return parse_instant(value).astimezone(dt.timezone.utc)
    except SpecError as error:
        raise SpecError(f"{what}: {error.message}") from None


def parse_duration(value: Any) -> dt.timedelta:
    """Return the timedelta of ``"28d"``, ``"12h"``, ``"30m"``, ``"45s"`` or ``"4w"``.

    :raises SpecError: for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", str(value))
    if not match:
        raise SpecError(f"{value!r} is not a duration like '28d', '12h', '30m', '45s' or '4w'")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    try:
        return dt.timedelta(**{unit: float(match[1])})
    except OverflowError as error:
        raise SpecError(f"{value!r} is longer than a duration can be") from error


def check_roles(roles: dict[str, Any] | None) -> dict[str, Any]:
    """Return the roles with empty ones dropped.

    :raises SpecError: for a role that does not exist, naming the nearest.
    """
    for name in roles or {}:
        if name not in ROLE_NAMES:
            hint = did_you_mean(name, ROLE_NAMES) or "."
            raise SpecError(f"{name!r} is not a role{hint} Roles: {', '.join(ROLE_NAMES)}")
    return {name: value for name, value in (roles or {}).items() if value not in (None, "", [])}


def role_columns(roles: dict[str, Any], *names: str) -> list[str]:
    """Return the columns that the named roles (default: all that name columns) point at, without repeats."""
    columns: list[str] = []
    for name in names or tuple(n for n in ROLE_NAMES if n != "label_delay"):
        value = roles.get(name)
        for column in value if isinstance(value, (list, tuple)) else [value]:
            if column is not None and column not in columns:
                columns.append(column)
    return columns


@dataclass(frozen=True, kw_only=True)
class DatasetRef(Thing):
    """One immutable version of some data.

    :param digest: ``sha256:`` of the logical content (schema and values), or of the manifest of what was read in place.
    :param columns: ``{name: Arrow type}``, or None beyond 100 columns; then ``schema_uri`` has them.
    :param roles: what columns mean; keys are among :data:`ROLE_NAMES`.
    """

    kind: ClassVar[str] = "dataset"
    name: str
    uri: str
    digest: str
    format: str = "parquet"
    rows: int | None = None
    columns: dict[str, str] | None = None
    schema_uri: str | None = None
    window: dict[str, Any] | None = None
    roles: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    created_at: str = field(default_factory=utc_now)


@dataclass(frozen=True, kw_only=True)
class ModelRef(Thing):
    """One logged or registered model; what is not known of it is None.

    :param uri: ``models:/m-<id>`` when logged, ``models:/<name>/<version>`` when registered, or any MLflow URI.
    :param digest: ``sha256:`` of the manifest of its files at log time.
    :param training: ``{"dataset_digest", "window", "row_keys_uri", "split", "rows"}`` of what it was fitted on, and
        ``importance``: how much each column matters to it, as shares, what matters most first.
    :param test_dataset: dataset ref of the rows held out from training.
    """

    kind: ClassVar[str] = "model"
    name: str | None = None
    version: int | None = None
    uri: str
    run_id: str | None = None
    model_id: str | None = None
    digest: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    test_dataset: dict[str, Any] | None = None
    target: str | None = None
    code: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    created_at: str = field(default_factory=utc_now)


@dataclass(frozen=True, kw_only=True)
class Report(Thing):
    """The verdict of a gate.

    :param report: what was judged: ``validation``, ``model_test``, ``drift``, ``performance``; it is the ``kind`` of
        the dict.
    :param summary: one line that a person can act on.
    :param checks: ``{"total", "failed"}``.
    :param failures: the worst failures, at most 20.
    :param subject: digest of the dataset or model that was judged.
    :param details_uri: JSON with everything behind the verdict.
    """

    kind: ClassVar[str] = "report"
    report: str
    passed: bool
    severity: Severity
    summary: str
    metrics: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=lambda: {"total": 0, "failed": 0})
    failures: list[dict[str, Any]] = field(default_factory=list)
    window: dict[str, Any] | None = None
    subject: str | None = None
    report_uri: str | None = None
    details_uri: str | None = None
    digest: str | None = None
    created_at: str = field(default_factory=utc_now)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict; its ``kind`` is what was judged."""
        value = super().to_dict()
        value["kind"] = value.pop("report")
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Report:
        """Read the dict of any kind of report."""
        if not isinstance(value, dict) or "passed" not in value or "kind" not in value:
            raise SpecError("expected a report: a dict with 'kind' and 'passed'")
        return super().from_dict({**value, "report": value["kind"], "kind": cls.kind})


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(Thing):
    """One promotion, rollback, archival or outside change; append-only.

    :param seq: number of the entry, consecutive from 1 in each model's ledger.
    :param version: the version the alias points at afterwards; None where it was removed.
    :param evidence: ``[{"kind", "passed", "digest", "subject", "report_uri"}]`` that the change rests on.
    :param evidence_waived: whether somebody asked for the change without evidence.
    :param clock: when it took place in the time of the data, where that is not ``at``: months that are replayed.
    :param archived: the versions of an archival, which has no alias and no version.
    """

    kind: ClassVar[str] = "ledger_entry"
    seq: int
    action: Literal["promote", "rollback", "archive", "external"]
    model: str
    version: int | None
    previous_version: int | None
    alias: str
    digest: str | None = None
    by: str | None = None
    reason: str | None = None
    evidence: list[dict[str, Any]] = field(default_factory=list)
    evidence_waived: bool = False
    clock: str | None = None
    archived: list[int] | None = None
    run: dict[str, Any] | None = None
    at: str = field(default_factory=utc_now)
