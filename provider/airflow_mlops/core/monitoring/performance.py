"""The step ``monitor_performance``: how right a model was, once that is known; until then, how right it may have been.

A run speaks of one window, often the one that has just ended, whose labels are not there yet. It is estimated, and put
on record as waiting. Then every window whose labels have had ``label_delay`` to come is settled: those of the log, and
those that earlier runs have put on record. What is settled is not settled again, but by a run of that very window.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.evaluation import prediction_log
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.monitoring import estimate, history, labels, measured
from airflow_mlops.core.monitoring.source import PredictionSource, opened
from airflow_mlops.core.monitoring.verdict import build
from airflow_mlops.core.registry.versions import version_record
from airflow_mlops.core.reports import publish
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.training.metrics import default_metrics, metric, task_of
from airflow_mlops.core.vocabulary import Window, parse_duration, parse_instant

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

FOLDER = "performance"
#: Windows without labels that are looked at again, the newest first.
MAX_PENDING = 24


@dataclass
class Asked:
    """What is measured, and held against what."""

    metrics: list[Any] | None
    baseline: dict[str, Any]
    max_drop: Any
    thresholds: Any
    slices: list[list[str]]
    min_rows: int
    cluster: str | None
    roles: dict[str, Any] = field(default_factory=dict)
    positive: Any = None


def monitor_performance(
    context: StepContext,
    *,
    predictions: Any,
    labels: Any = None,
    label_delay: str | None = None,
    metrics: list[Any] | None = None,
    baseline: Any = None,
    max_drop: Any = None,
    thresholds: dict[str, Any] | None = None,
    subject: str | None = None,
    window: dict[str, Any] | None = None,
    as_of: str | None = None,
    slices: Any = None,
    min_rows: int = 200,
    cluster: str | None = None,
    estimated: bool = True,
    target: str | None = None,
    roles: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the windows whose labels have come, estimate the one whose labels have not, and return the report.

    :param predictions: name of a log of ours, the ref of a window of one, or a description of somebody else's; see
        :mod:`airflow_mlops.core.evaluation.prediction_log`.
    :param labels: a dataset ref, path, glob or URI; default: the log's own column ``label``.
    :param label_delay: how long after its end a window has all its labels; default: the role label_delay, else none.
    :param metrics: default: the task's own.
    :param baseline: ``{metric: value}``, or a report with ``metrics``; default: what is on record of the version.
    :param max_drop: how much worse than the baseline: a number, or ``{metric: number}``.
    :param thresholds: ``{metric: number or {"min", "max"}}``.
    :param subject: what the history is of; default: the log's name.
    :param window: of this run; needed for a log without windows of its own.
    :param as_of: the instant by which windows must have matured; default: the end of ``window``, else now.
    :param slices: columns, or lists of columns, of the log or the labels.
    :param min_rows: labelled rows that a slice needs to be judged.
    :param cluster: ``day``, or the column that says which rows depend on each other.
    :param estimated: whether windows without labels are estimated.
    :return: a report of kind ``performance`` of the newest window that was settled; with ``estimated`` true where none
        was, and it speaks of the estimate.
    :raises SpecError: for a mistake in the arguments.
    """
    require("pandas", "monitor_performance")
    require("sklearn", "monitor_performance")
    run = _Run.of(context, predictions, subject, window, as_of, label_delay, roles)
    asked = Asked(
        metrics,
        _baseline(context, baseline, run),
        max_drop,
        thresholds,
        [
            [one] if isinstance(one, str) else list(one)
            for one in ([slices] if isinstance(slices, str) else slices or [])
        ],
        min_rows,
        cluster,
        roles or {},
    )
    for name in metrics or []:
        measured.limits_of(metric(name).name, asked.baseline, max_drop, thresholds)
    known = run.read_labels(labels, target, roles) if labels not in (None, "", {}) else None
    settled = [found for one in run.matured() if (found := run.settle(one, known, asked))]
    waiting = run.wait(asked, estimated, settled) if run.window and not run.is_mature(run.window) else None
    if run.window and waiting is None and all(one["window"] != run.window for one in settled):
        waiting = run.empty()
    report, details = build(run.subject, settled, waiting, run.pending(), known)
    newest = settled[-1] if settled else None
    result = publish(
        context,
        report,
        details=details,
        template="performance.html",
        identity=[run.subject, report.window],
        title=f"Performance of {run.subject}",
    )
    for one in settled:
        run.record(one, result)
    crash_point("performance.recorded")
    return {
        **result,
        "baseline": {name: value for name, value in asked.baseline.items() if name in report.metrics},
        "estimated": newest is None and bool(waiting and waiting["estimate"]),
        "estimate": waiting["estimate"] if waiting else {},
        "version": newest["version"] if newest else None,
        "as_of": run.as_of.astimezone(dt.timezone.utc).isoformat(),
        "settled": [
            {
                **{key: one[key] for key in ("window", "severity", "summary", "figures", "version")},
                "labelled": one["counts"]["labelled"],
            }
            for one in settled
        ],
        "pending": run.pending()[:MAX_PENDING],
    }


@dataclass
class _Run:
    """One run: what it reads, which windows there are, and what is on record of them."""

    context: StepContext
    source: PredictionSource
    subject: str
    version: str | None
    window: dict[str, str] | None
    as_of: dt.datetime
    delay: dt.timedelta
    delay_text: str

    @classmethod
    def of(
        cls, context: StepContext, predictions: Any, subject: Any, window: Any, as_of: Any, delay: Any, roles: Any
    ) -> _Run:
        source = opened(context, prediction_log.check(predictions), predictions, roles or {})
        name, version = history.split_subject(subject or source.name)
        span = Window.of(window) or Window.of(source.window)
        text = str(delay or (roles or {}).get("label_delay") or source.roles.get("label_delay") or "0s")
        end = parse_instant(as_of) if as_of else None
        end = end or (parse_instant(span.end) if span else dt.datetime.now(dt.timezone.utc))
        found = {"start": span.start, "end": span.end} if span else None
        if found is None and not source.windows():
            raise SpecError("monitor_performance needs a window: these predictions have no windows of their own")
        return cls(context, source, name, version, _plain(found), end, parse_duration(text), text)

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{safe_name(self.subject)}"

    def read_labels(self, given: Any, target: Any, roles: Any) -> labels.Labels:
        """Return the labels that are known by now."""
        return labels.read(
            self.context, given, target=target, roles=roles, as_of=self.as_of, key=self.source.key_columns
        )

    def is_mature(self, window: dict[str, str]) -> bool:
        """Return whether all labels of a window have had the time to come."""
        return parse_instant(window["end"]) + self.delay <= self.as_of

    def windows(self) -> list[dict[str, str]]:
        """Return the windows that there are, by their end: the log's, those on record, and the run's own."""
        known = [_plain(one) for one in self.source.windows()]
        known += [_plain(self.context.store.get_json(key)["window"]) for key in self._keys()]
        known += [self.window] if self.window else []
        distinct = {(one["start"], one["end"]): one for one in known if one}
        return sorted(distinct.values(), key=lambda one: (one["end"], one["start"]))

    def _keys(self) -> list[str]:
        return list(self.context.store.keys(self.folder))

    def key(self, window: dict[str, str]) -> str:
        """Return where a window's counts and state are kept."""
        from airflow_mlops.core.predictions.layout import window_name

        return f"{self.folder}/{window_name(window)}.json"

    def state(self, window: dict[str, str]) -> dict[str, Any]:
        """Return what is on record of a window."""
        return self.context.store.find_json(self.key(window)) or {}

    def matured(self) -> list[dict[str, str]]:
        """Return the windows that this run settles: mature, and not settled yet or the run's own."""
        found = [one for one in self.windows() if self.is_mature(one)]
        return [one for one in found if one == self.window or not self.state(one).get("settled")][-MAX_PENDING:]

    def pending(self) -> list[dict[str, str]]:
        """Return the windows whose labels are waited for."""
        return [one for one in self.windows() if not self.is_mature(one)]

    def settle(self, window: dict[str, str], known: labels.Labels | None, asked: Asked) -> dict[str, Any] | None:
        """Measure a window; None if it has no rows."""
        try:
            frame = self.source.frame(window)
        except EmptyDataError:
            return None
        joined = labels.join(frame, known, self.source.label)
        found: dict[str, Any] = {"window": window, "counts": dict(joined.counts), "slices": [], "figures": {}}
        found |= {"version": self.version or self.source.version(frame), "checks": [], "severity": "ok"}
        found["estimate"] = self.state(window).get("estimate") or {}
        if known is not None:
            found["counts"] |= known.counts
            unknown = ~known.frame["__key__"].isin(self.source.all_keys())
            found["counts"]["unknown_rows"] = int(unknown.sum())
        if joined.counts["labelled"] == 0:
            return found | {"settled": False, "bins": None}
        truth = joined.frame[labels.LABEL].to_numpy()
        said = self.source.predictions(joined.frame, truth)
        names = [metric(one).name for one in asked.metrics or default_metrics(task_of(truth, said))]
        clusters = measured.clusters_of(joined.frame, asked.cluster, self.source.group)
        weights = self.source.weights(joined.frame)
        for place, name in enumerate(names):
            limits = measured.limits_of(name, asked.baseline, asked.max_drop, asked.thresholds)
            given = (asked.metrics or names)[place]
            one = measured.judge(measured.measure(given, truth, said, clusters, weights), limits)
            found["checks"].append({**one, "judged": limits.any})
            found["figures"][name] = one["value"]
        for by in asked.slices:
            limits = measured.limits_of(names[0], asked.baseline, asked.max_drop, asked.thresholds)
            found["slices"] += measured.slices(
                joined.frame,
                by,
                (asked.metrics or names)[0],
                truth,
                said,
                weights,
                limits,
                min_rows=asked.min_rows,
                cluster=asked.cluster,
                group=self.source.group,
            )
        return found | {"settled": True, "bins": self.source.bins(said, truth)}

    def wait(self, asked: Asked, wanted: bool, settled: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Put the run's window on record as one whose labels are waited for, with what can be estimated of it."""
        assert self.window is not None
        try:
            frame = self.source.frame(self.window)
        except EmptyDataError:
            return self.empty()
        past = []
        for one in self.windows():
            state = next((now for now in settled if now["window"] == one), None) or self.state(one)
            if state.get("settled") and state.get("bins") and one["end"] <= self.window["start"]:
                past.append((state["bins"], state["figures"]))
        found: dict[str, dict[str, float | None]] = {}
        why: str | None = "it was not asked for"
        try:
            bins = self.source.bins(self.source.predictions(frame, None), None) if wanted else None
        except SpecError as error:
            # All rows of one class, say.
            bins, found, why = None, {}, error.message
        if bins:
            names = [metric(one).name for one in asked.metrics or list(past[-1][1] if past else asked.baseline)]
            found, why = estimate.with_band(bins, past, names or ["roc_auc"])
        elif wanted:
            why = "only probabilities of two classes can be estimated from"
        version = self.version or self.source.version(frame)
        state = {"window": self.window, "settled": False, "estimate": found, "rows": len(frame), "why": why}
        self.context.store.put_json(self.key(self.window), state)
        crash_point("performance.waiting")
        history.record(
            self.context.store,
            self.subject,
            self.window,
            {"rows": len(frame), **{name: one["value"] for name, one in found.items()}},
            "estimate",
            version=version,
            facts={"estimate": found, "why": why},
            run=self.context.run,
        )
        limits = {name: measured.limits_of(name, asked.baseline, asked.max_drop, asked.thresholds) for name in found}
        return {**state, "limits": limits, "version": version}

    def empty(self) -> dict[str, Any]:
        """Return what is known of the run's window if nobody was asked anything in it."""
        return {"window": self.window, "rows": 0, "estimate": {}, "why": "the window has no predictions"}

    def record(self, one: dict[str, Any], report: dict[str, Any]) -> None:
        """Put a settled window on record: the point in the history, then that it is settled."""
        facts = {
            "counts": one["counts"],
            "intervals": {c["metric"]: [c["low"], c["high"]] for c in one["checks"] if c["low"] is not None},
            "baseline": {c["metric"]: c["baseline"] for c in one["checks"] if c["baseline"] is not None},
            "estimate": {name: e["value"] for name, e in one["estimate"].items()},
        }
        history.record(
            self.context.store,
            self.subject,
            one["window"],
            {**one["figures"], "labelled": one["counts"]["labelled"], "rows": one["counts"]["predictions"]},
            "performance",
            version=one["version"],
            severity=one["severity"],
            summary=one["summary"],
            report_uri=report["report_uri"],
            facts=facts,
            run=self.context.run,
        )
        kept = {key: one[key] for key in ("window", "settled", "bins", "figures", "estimate")}
        self.context.store.put_json(self.key(one["window"]), kept)


def _slices(given: Any) -> list[list[str]]:
    several = [given] if isinstance(given, str) else given or []
    return [[one] if isinstance(one, str) else list(one) for one in several]


def _plain(window: dict[str, Any] | None) -> Any:
    if window is None:
        return None
    return {name: parse_instant(window[name]).astimezone(dt.timezone.utc).isoformat() for name in ("start", "end")}


def _baseline(context: StepContext, given: Any, run: _Run) -> dict[str, Any]:
    """Return what was asked for, else the level on record of the version: adopted with it, or of its last test."""
    if isinstance(given, dict) and given:
        return dict(given.get("metrics") or {}) if "kind" in given else given
    if given not in (None, "", {}):
        raise SpecError(f"baseline is {{metric: value}} or a report, got {given!r}")
    version = run.version or run.source.latest_version()
    if not version or not str(version).isdigit():
        return {}
    record = version_record(context, run.subject, int(version)) or {}
    tests = [one for one in record.get("evidence") or [] if one.get("kind") == "model_test"]
    found = record.get("baseline") or (tests[-1].get("metrics") if tests else None) or {}
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}
