"""Counters of a model server from what it exposes for Prometheus, whoever has started it."""

from __future__ import annotations

import base64
import http.client
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from airflow_mlops.core.errors import CannotReachError, SpecError, did_you_mean

#: Most bytes that are read of one endpoint.
MAX_BYTES = 16 << 20
#: Seconds that it may take to answer.
TIMEOUT = 10.0

_SAMPLE = re.compile(
    r"""([a-zA-Z_:][\w:]*)\s*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+([^\s#]+)(?:\s+-?\d[\d.]*)?\s*(?:\#.*)?"""
)
_LABEL = re.compile(r'([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_TYPE = re.compile(r"^# TYPE ([\w:]+) (\w+)$", re.MULTILINE)
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}
#: Labels that hold a status code, where nobody says which one does.
CODES = ("code", "status", "status_code")


@dataclass(frozen=True)
class Series:
    """Which of the exposed series mean what.

    :param requests: a counter of requests, by status code; empty: the count of ``latency``.
    :param code: its label with the code; those that begin with 5 are errors. Empty: ``code``, ``status`` or
        ``status_code``, whichever there is.
    :param errors: a counter of requests that failed, where codes do not say.
    :param latency: a histogram; its unit is told by the name's end: ``_seconds`` (or none), ``_ms``,
        ``_milliseconds``, ``_us``, ``_microseconds``.
    :param where: labels that a sample must have, such as ``{"handler": "/predict"}``.
    """

    requests: str = ""
    code: str = ""
    errors: str = ""
    latency: str = ""
    where: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Series | None:
        """Read a dict of the fields; None for None.

        :raises SpecError: for anything else.
        """
        if value in (None, "", {}):
            return None
        names = [one.name for one in fields(cls)]
        if not isinstance(value, Mapping):
            raise SpecError(f"series must be a dict with {', '.join(names)}, got {value!r}")
        for key in value:
            if key not in names:
                raise SpecError(f"series has no {key!r}{did_you_mean(key, names) or '.'} It has {', '.join(names)}")
        found = cls(**{**value, "where": {str(k): str(v) for k, v in (value.get("where") or {}).items()}})
        if not (found.requests or found.latency):
            raise SpecError("series needs 'requests' or 'latency': without either nothing is counted")
        return found


#: What is looked for where nobody says: this provider's servers, and what most instrumentations of HTTP servers expose.
KNOWN = (
    Series(requests="mlops_requests_total", code="code", latency="mlops_request_seconds"),
    Series(requests="http_requests_total", latency="http_request_duration_seconds"),
    Series(requests="http_requests_total"),
    Series(latency="http_request_duration_seconds"),
)


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, labels and value of each sample of Prometheus' text format, or OpenMetrics'."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line.strip()) if line and not line.startswith("#") else None
        if match:
            try:
                value = float(match[3])
            except ValueError:
                continue
            yield match[1], {name: _unescaped(one) for name, one in _LABEL.findall(match[2] or "")}, value


def counted(text: str, series: Series | None = None) -> dict[str, Any]:
    """Return what a text says of its requests.

    :param series: None: the first of :data:`KNOWN` that is there.
    :return: ``requests`` and ``errors`` (None where nothing tells), ``seconds``, ``buckets`` (``[[upper end in seconds,
        None for none, requests up to it], ...]``, or None), ``started`` (when the process began, or None), and
        ``model``, ``version``, ``deployment`` of a server of this provider.
    :raises SpecError: if the series are not there, naming those that are.
    """
    found = list(samples(text))
    # A counter by code has no sample before the first request, only its type.
    typed = _TYPE.findall(text)
    names = {name for name, _, _ in found} | {f"{name}_count" if kind == "histogram" else name for name, kind in typed}
    chosen = series or next((one for one in KNOWN if _there(one, names)), None)
    if chosen is None or not _there(chosen, names):
        raise SpecError(_absent(chosen, names))
    started = next((value for name, _, value in found if name == "process_start_time_seconds"), None)
    known = next((labels for name, labels, _ in found if name == "mlops_model_info"), {})
    kept = [one for one in found if chosen.where.items() <= one[1].items()]
    if not chosen.code:
        labels = {label for name, given, _ in kept if name == chosen.requests for label in given}
        chosen = replace(chosen, code=next((one for one in CODES if one in labels), ""))
    requests, errors = _requests(kept, chosen)
    return {
        "requests": requests,
        "errors": errors,
        "seconds": _seconds(kept, chosen),
        "buckets": _buckets(kept, chosen),
        "started": started,
        **{key: known.get(key) or None for key in ("model", "version", "deployment")},
    }


def _there(series: Series, names: set[str]) -> bool:
    wanted = [series.requests, series.errors, f"{series.latency}_count" if series.latency else ""]
    return all(name in names for name in wanted if name)


def _absent(series: Series | None, names: set[str]) -> str:
    likely = sorted(one for one in names if re.search("request|latency|duration", one))[:12]
    if series is None:
        wanted = "mlops_requests_total, http_requests_total or http_request_duration_seconds"
    else:
        wanted = " and ".join(filter(None, (series.requests, series.errors, series.latency)))
    has = f"It has {', '.join(likely)}" if likely else f"It has {len(names)} series, none of which sounds like requests"
    return (
        f"the server does not expose {wanted}. {has}. Say which are meant: series={{'requests': ..., 'latency': ...}}"
    )


def _requests(found: list[tuple[str, dict[str, str], float]], series: Series) -> tuple[int, int | None]:
    wanted = series.requests or f"{series.latency}_count"
    ours = [(labels, value) for name, labels, value in found if name == wanted]
    total = round(sum(value for _, value in ours))
    if series.errors:
        return total, round(sum(value for name, _, value in found if name == series.errors))
    if not series.code:
        return total, None
    return total, round(sum(value for labels, value in ours if labels.get(series.code, "").startswith("5")))


def _seconds(found: list[tuple[str, dict[str, str], float]], series: Series) -> float | None:
    sums = [value for name, _, value in found if series.latency and name == f"{series.latency}_sum"]
    return sum(sums) * _unit(series.latency) if sums else None


def _buckets(found: list[tuple[str, dict[str, str], float]], series: Series) -> list[list[Any]] | None:
    by_end: dict[float, float] = {}
    for name, labels, value in found:
        if series.latency and name == f"{series.latency}_bucket" and "le" in labels:
            end = float(labels["le"]) * _unit(series.latency)
            by_end[end] = by_end.get(end, 0) + value
    if not by_end:
        return None
    return [[end if math.isfinite(end) else None, round(by_end[end])] for end in sorted(by_end)]


def _unit(name: str) -> float:
    for ends, unit in ((("_ms", "_milliseconds"), 1e-3), (("_us", "_microseconds"), 1e-6)):
        if name.endswith(ends):
            return unit
    return 1.0


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPED.get(match[1], match[0]), text)


def place_of(url: str) -> str:
    """Return a URL as people may read it: without credentials, and without a query that may hold some."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path}"


def fetch(url: str, *, login: str = "", password: str = "", timeout: float = TIMEOUT) -> str:
    """Return what a URL exposes.

    :param password: with a login: HTTP's basic authentication; alone: a bearer token.
    :raises CannotReachError: if nobody answers, or not with 200.
    :raises SpecError: for a URL that cannot be.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"metrics need an http or https URL, got {place_of(url)!r}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    headers = {"Accept": "text/plain; version=0.0.4"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
    elif password:
        headers["Authorization"] = f"Bearer {password}"
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES)
        if answer.status != 200:
            cure = "; check login and password of the connection" if answer.status in (401, 403) else ""
            raise CannotReachError(f"{place_of(url)} answers {answer.status}{cure}", address=place_of(url))
    except (OSError, http.client.HTTPException) as error:
        why = f"{type(error).__name__}: {error}"
        raise CannotReachError(f"{place_of(url)} does not answer ({why})", address=place_of(url)) from None
    finally:
        connection.close()
    return body.decode("utf-8", "replace")
