"""What a decision is made of: reports, arrivals of data, ends of retrainings, each with an id of its own.

A signal comes as a dict of the vocabulary, bare, as the extra of an asset event or in the payload of a watcher's
event; several may come together. The id is the sender's ``id``, else its ``digest``, else that of the content, so what
is delivered twice has the same one.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_instant

#: Kinds that say something to a policy.
WINDOWED = ("performance", "drift")
DATA = ("new_rows", "new_data", "dataset")
#: How a retraining tells what it cost: ``{"kind": "retraining", "seq": 3, "hours": 0.5}``.
ENDED = "retraining"
KINDS = (*WINDOWED, *DATA, ENDED)
#: Where an event's extra may hold signals.
_HOLDERS = ("payload", "report", "reports", "dataset", "signals", "events", "arrival")


@dataclass(frozen=True)
class Signal:
    """One thing that was told.

    :param start: of the window that it speaks of, or the instant at which it was told.
    :param end: of that window.
    :param told: when it was made; of two reports on one window the later one holds.
    :param facts: the parts of the dict that a policy reads.
    """

    id: str
    kind: str
    start: dt.datetime
    end: dt.datetime
    told: dt.datetime
    subject: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[dt.datetime, dt.datetime, str]:
        """What a later report takes the place of: the window, and the subject where it has a name."""
        # A digest names what was looked at, which is another one whenever it is looked at again.
        named = self.subject if self.subject and not self.subject.startswith("sha256:") else ""
        return self.start, self.end, named

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "told": self.told.isoformat(),
            "subject": self.subject,
            "facts": self.facts,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Signal:
        """Read what :meth:`to_dict` wrote."""
        start, end, told = (dt.datetime.fromisoformat(value[name]) for name in ("start", "end", "told"))
        return cls(value["id"], value["kind"], start, end, told, value["subject"], value["facts"])


def signals_of(values: Any, now: dt.datetime) -> tuple[list[Signal], list[str]]:
    """Return the signals in reports, event extras and lists of these, and what was passed over.

    One that cannot be read is passed over: the others that came with it would be lost with it.

    :param now: stands for the instants of what has none.
    :raises SpecError: for what is neither a dict, a list of dicts, nor nothing.
    """
    found: list[Signal] = []
    passed_over: list[str] = []
    for value in _dicts(values):
        inner = list(_inside(value))
        if not inner:
            passed_over.append(f"an event that says nothing to a policy ({', '.join(sorted(map(str, value))[:8])})")
        for one in inner:
            try:
                found.append(signal_of(one, now))
            except SpecError as error:
                passed_over.append(f"a {one['kind']} that cannot be read: {error.message}")
    return found, passed_over


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    if values is None or values == "":
        return
    if isinstance(values, dict):
        yield values
    elif isinstance(values, (list, tuple)):
        for one in values:
            yield from _dicts(one)
    else:
        raise SpecError(f"reports are dicts, or a list of them, got {type(values).__name__}")


def _inside(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if value.get("kind") in KINDS:
        yield from _windows_of(value)
        return
    for name in _HOLDERS:
        if isinstance(value.get(name), (dict, list)):
            for one in _dicts([one for one in _several(value[name]) if isinstance(one, dict)]):
                yield from _inside(one)


def _windows_of(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a report for each window that a performance monitor settled; one that waits for labels says nothing."""
    told = value.get("settled")
    if value["kind"] != "performance" or not isinstance(told, list):
        yield value
        return
    settled = [one for one in told if isinstance(one, dict)]
    if not settled and value.get("passed") is not False:
        return
    if len(settled) < 2:
        yield value
        return
    identity = value.get("id") or value.get("digest") or digests.of_json(value)
    for one in settled:
        newest = one is settled[-1]
        yield {
            **value,
            "id": f"{identity}|{one.get('window')}",
            "window": one.get("window"),
            "passed": one.get("severity") != "error",
            "metrics": value.get("metrics") if newest else _measured(one),
        }


def _measured(one: dict[str, Any]) -> dict[str, Any]:
    figures = one.get("figures")
    return {**(figures if isinstance(figures, dict) else {}), "labelled": one.get("labelled")}


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def signal_of(value: dict[str, Any], now: dt.datetime) -> Signal:
    """Read one report or event.

    :raises SpecError: if an instant in it is none.
    """
    kind = str(value["kind"])
    told = _instant(value.get("created_at") or value.get("at"), now)
    window = value.get("window") if isinstance(value.get("window"), dict) else {}
    end = _instant((window or {}).get("end"), told)
    start = _instant((window or {}).get("start"), end)
    identity = value.get("id") or value.get("digest") or digests.of_json(value)
    return Signal(
        id=digests.hex_of(digests.of_json([kind, str(identity)]))[:16],
        kind=kind,
        start=min(start, end),
        end=end,
        told=told,
        subject=str(value["subject"]) if value.get("subject") else None,
        facts=_facts(kind, value),
    )


def _instant(value: Any, otherwise: dt.datetime) -> dt.datetime:
    return parse_instant(value).astimezone(dt.timezone.utc) if value else otherwise


def _facts(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    if kind in WINDOWED:
        metrics = value.get("metrics") if isinstance(value.get("metrics"), dict) else {}
        kept = {name: one for name, one in (metrics or {}).items() if _plain(one)}
        facts: dict[str, Any] = {"passed": value.get("passed") is not False, "metrics": kept}
        if value.get("report_uri"):
            facts["report_uri"] = str(value["report_uri"])
        if isinstance(value.get("baseline"), dict):
            facts["baseline"] = {name: one for name, one in value["baseline"].items() if _plain(one)}
        if value.get("estimated") or kept.get("estimated"):
            facts["estimated"] = True
        return facts
    if kind == ENDED:
        return {"seq": value.get("seq"), "hours": value.get("hours")}
    new = value.get("new") if isinstance(value.get("new"), dict) else {}
    rows = (new or {}).get("rows", value.get("rows"))
    facts = {"rows": rows if isinstance(rows, int) and not isinstance(rows, bool) and rows > 0 else 0}
    if kind == "dataset":
        facts["name"] = value.get("name")
    return facts


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return len(value) <= 20 and all(one is None or _plain(one) for one in value.values())
    return isinstance(value, (int, float)) and math.isfinite(value)


def of_subject(signals: Iterable[Signal], wanted: Any) -> tuple[list[Signal], list[Signal]]:
    """Return the signals that speak of a subject, or of none, and the others.

    :param wanted: a subject, a pattern such as ``"churn:*"``, or a list of these; None: every subject.
    """
    patterns = [str(one) for one in _several(wanted) if one]
    kept: list[Signal] = []
    others: list[Signal] = []
    for one in signals:
        of_it = not patterns or one.subject is None or any(fnmatch.fnmatchcase(one.subject, p) for p in patterns)
        (kept if of_it else others).append(one)
    return kept, others
