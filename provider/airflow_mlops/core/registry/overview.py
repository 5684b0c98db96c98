"""What stands in the registry and what the ledger says of it, for people to read. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.alerts.listing import open_incidents
from airflow_mlops.core.errors import ConflictError, NotFoundError, did_you_mean
from airflow_mlops.core.monitoring import history as series
from airflow_mlops.core.registry.ledger import Entry, Ledger, last_done
from airflow_mlops.core.registry.versions import RegisteredModel, version_record
from airflow_mlops.core.serving.state import Deployment, ServerState, servers
from airflow_mlops.core.store import safe_name

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: What is shown of a report that a version was registered with.
REPORTED = ("kind", "passed", "digest", "subject", "report_uri")


def models_with_ledger(context: StepContext) -> list[str]:
    """Return the names of the models that have a ledger in the store."""
    keys = [key for key in context.store.keys("ledger") if key.endswith("/binding.json")]
    return sorted(context.store.get_json(key)["model"] for key in keys)


def status(context: StepContext, name: str | None = None) -> list[dict[str, Any]]:
    """Return one row for each alias: where it is, since when, by whom, whether the ledger agrees, and how it does.

    What is watched without being a registered model has a row without an alias. ``health`` is the worst of the last
    verdicts, ``last_window`` the end of the newest window that was judged, ``series`` what the verdicts rest on,
    ``incidents`` what is open, ``refused`` the last challenger that lost, and why.

    :raises NotFoundError: for a name that neither the registry nor the store knows.
    """
    watched = series.subjects(context.store)
    incidents = open_incidents(context, name)
    known = models_with_ledger(context)
    if name is None:
        rows = [row for one in known for row in _status(context, one)]
        rows += map(_watched, sorted({*watched} - {*known}))
    else:
        try:
            rows = _status(context, name)
        except NotFoundError:
            if name not in watched and not incidents:
                raise
            rows = [_watched(name)] if name in watched else []
    shown = {about for row in rows for about in _abouts(row)}
    rows += [_watched(about) for about in dict.fromkeys(one["about"] for one in incidents) if about not in shown]
    refused = {one: _refused_records(context, one) for one in {row["model"] for row in rows} & {*known, name}}
    return [
        {
            **_healthy(context, row),
            "incidents": _of_row(row, incidents),
            "refused": _later(refused.get(row["model"], {}), row),
        }
        for row in rows
    ]


def _refused_records(context: StepContext, name: str) -> dict[int, dict[str, Any]]:
    """Return the records of versions whose evidence stands against a promotion, by number."""
    folder = f"versions/{safe_name(name)}/"
    found: dict[int, dict[str, Any]] = {}
    for key in context.store.keys(folder.rstrip("/")):
        number = key.rpartition("/")[2].removesuffix(".json")
        if number.isdigit() and (record := context.store.get_json(key)).get("refused"):
            found[int(number)] = record
    return dict(sorted(found.items()))


def _later(refused: dict[int, dict[str, Any]], row: dict[str, Any]) -> str | None:
    """Return the last challenger of an alias's version that lost, and why."""
    later = [number for number in refused if row["version"] is not None and number > row["version"]]
    return f"version {later[-1]}: {refused[later[-1]]['refused']}" if later else None


def _abouts(row: dict[str, Any]) -> tuple[str, str]:
    """Return how an incident names what a row is of: the model, or its alias."""
    return row["model"], f"{row['model']}@{row['alias']}"


def _of_row(row: dict[str, Any], incidents: list[dict[str, Any]]) -> str | None:
    ours = [one for one in incidents if one["about"] in _abouts(row)]
    return ", ".join(f"{one['topic']} ({one['severity']}) since {one['since'][:10]}" for one in ours) or None


def _watched(name: str) -> dict[str, Any]:
    return _row(name, None, None, None, None, "watched, not registered")


def _healthy(context: StepContext, row: dict[str, Any]) -> dict[str, Any]:
    found = series.health(context.store, row["model"], row["version"])
    window = found["window"]["end"][:19] if found else None
    return {
        **row,
        "health": found["severity"] if found else None,
        "last_window": window,
        "series": found["series"] if found else {},
    }


def figures(
    context: StepContext, name: str, *, metric: str | None = None, kind: str | None = None, since: str | None = None
) -> list[dict[str, Any]]:
    """Return one row for each window of a model's history, the oldest first.

    :param metric: only windows that have this figure, which is then ``value``.
    :param kind: only of this series.
    :param since: only windows that end after this instant.
    :raises NotFoundError: if there is no such history or figure.
    """
    points = series.read(context.store, name, kind=kind, since=since)
    if not points:
        known = series.subjects(context.store)
        what = f" of {kind!r}" if kind else ""
        near = "" if name in known else did_you_mean(name, known)
        if kind and name in known:
            kinds = sorted({point.series for point in series.read(context.store, name)})
            near = f"; it has one of {', '.join(kinds)}"
        raise NotFoundError(f"{name!r} has no history{what} in {context.store.uri}{near}")
    if metric is not None and not any(metric in point.figures for point in points):
        names = sorted({one for point in points for one in point.figures})
        listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise NotFoundError(
            f"the history of {name!r} has no figure {metric!r}{did_you_mean(metric, names)} It has: {listed}"
        )
    return [
        {
            "series": point.series,
            "start": point.window["start"][:19],
            "end": point.window["end"][:19],
            "version": point.version,
            **({"metric": metric, "value": point.figures[metric]} if metric is not None else {}),
            "severity": point.severity,
            "summary": point.summary,
            "at": point.at[:19],
            "figures": point.figures,
            "facts": point.facts,
            "report_uri": point.report_uri,
        }
        for point in points
        if metric is None or metric in point.figures
    ]


def _status(context: StepContext, name: str) -> list[dict[str, Any]]:
    registered, ledger = RegisteredModel(context, name), Ledger(context.store, name)
    known = models_with_ledger(context)
    try:
        aliases = registered.aliases()
        ledger.bind(registered, begin=False)
    except NotFoundError:
        if name not in known:
            raise NotFoundError(f"there is no registered model {name!r}{did_you_mean(name, known)}") from None
        return [_row(name, None, None, None, None, "not in MLflow")]
    except ConflictError:
        return [
            _row(name, alias, version, None, None, "ledger of another registry") for alias, version in aliases.items()
        ]
    entries = ledger.entries()
    latest = registered.latest()
    names = sorted({*aliases, *(entry.alias for entry in entries if entry.done and entry.alias)})
    rows = [
        _row(name, alias, aliases.get(alias), latest, last_done(entries, alias), _state(entries, alias, aliases))
        for alias in names
    ]
    return rows or [_row(name, None, None, latest, None, "nothing promoted")]


def _state(entries: list[Entry], alias: str, aliases: dict[str, int]) -> str:
    if entries and entries[-1].outcome is None and entries[-1].alias == alias:
        return "being moved"
    tail = last_done(entries, alias)
    if aliases.get(alias) == (tail.version if tail else None):
        return "ok"
    return "moved outside the ledger"


def _row(
    name: str, alias: str | None, version: int | None, latest: int | None, entry: Entry | None, state: str
) -> dict[str, Any]:
    said = entry.to_ledger_entry() if entry else None
    return {
        "model": name,
        "alias": alias,
        "version": version,
        "latest_version": latest,
        "entry": said.seq if said else None,
        "since": said.at[:19] if said else None,
        "by": said.by if said else None,
        "state": state,
    }


def history(context: StepContext, name: str) -> list[dict[str, Any]]:
    """Return one row for each entry of a ledger and for each deployment, the oldest first; void ones with the reason.

    A version that was not promoted because its evidence did not pass has a row without a number, of action
    ``refused``. ``evidence`` is for people; ``reports``, ``data``, ``code``, ``digest`` and ``key`` have what stands
    behind it.

    :raises NotFoundError: if the model has no ledger here, and was not deployed either.
    """
    ledger, deployed = Ledger(context.store, name), _deployments(context, name)
    if ledger.binding() is None and not deployed:
        known = models_with_ledger(context)
        raise NotFoundError(f"{name!r} has no ledger in {context.store.uri}{did_you_mean(name, known)}")
    rows = [_history_row(entry) for entry in (ledger.entries() if ledger.binding() else [])] + deployed
    numbers = {row["version"] for row in rows if row["version"] is not None}
    origins = {number: _origin(version_record(context, name, number)) for number in numbers}
    promoted = {row["version"] for row in rows if (row["action"], row["state"]) == ("promote", "done")}
    lost = {n: one for n, one in _refused_records(context, name).items() if n not in promoted}
    found = [{**row, **origins.get(row["version"] or 0, _origin(None))} for row in rows]
    found += [{**_refused_row(number, record), **_origin(record)} for number, record in lost.items()]
    return sorted(found, key=lambda row: str(row["at"]))


def _deployments(context: StepContext, name: str) -> list[dict[str, Any]]:
    """Return one row for each deployment of a model to any server."""
    return [
        _deployment_row(one)
        for server in servers(context.store)
        for one in ServerState(context.store, server).backwards()
        if one.model.get("name") == name and one.model.get("version")
    ]


def _deployment_row(one: Deployment) -> dict[str, Any]:
    outcome, before, run = one.outcome or {}, one.intent.get("previous_model") or {}, one.intent.get("run") or {}
    why = f": {outcome['reason']}" if outcome.get("reason") else ""
    ours = before.get("name") == one.model["name"] and before.get("version")
    return {
        **dict.fromkeys(("entry", "alias", "evidence", "settled_by")),
        "at": str(outcome.get("at") or one.intent["at"])[:19],
        "action": one.intent["strategy"],
        "version": int(one.model["version"]),
        "previous": int(before["version"]) if ours else None,
        "by": one.intent.get("by"),
        "reason": f"{one.server}: {one.state.replace('_', ' ')}{why}",
        "run": _run(run),
        "state": one.state,
        "digest": one.digest,
        "archived": [],
        "reports": [],
        "key": one.intent.get("key") or None,
        "provider_version": run.get("provider_version"),
    }


def _refused_row(number: int, record: dict[str, Any]) -> dict[str, Any]:
    run = record.get("run") or {}
    reports = record.get("evidence") or []
    said = f"not promoted: {record['refused']}"
    return {
        "entry": None,
        "at": str(record.get("refused_at") or record["at"])[:19],
        "action": "refused",
        "alias": None,
        "version": number,
        "previous": None,
        "by": None,
        "reason": f"{record['reason']} {said[0].upper()}{said[1:]}" if record.get("reason") else said,
        "evidence": ", ".join(f"{one['kind']} {'passed' if one['passed'] else 'failed'}" for one in reports) or None,
        "run": _run(run),
        "state": "refused",
        "digest": (record.get("ref") or {}).get("digest"),
        "archived": None,
        "reports": [{key: one.get(key) for key in REPORTED} for one in reports],
        "key": None,
        "provider_version": run.get("provider_version"),
        "settled_by": None,
    }


def _run(run: dict[str, Any]) -> str | None:
    return "/".join(str(run[k]) for k in ("dag_id", "run_id", "task_id") if run.get(k)) or None


def _history_row(entry: Entry) -> dict[str, Any]:
    said = entry.to_ledger_entry()
    run = said.run or {}
    evidence = ", ".join(f"{e['kind']} {'passed' if e['passed'] else 'failed'}" for e in said.evidence)
    archived = f"archived {', '.join(map(str, said.archived))}" if said.archived else None
    why = said.reason if entry.done else f"{entry.state}: {(entry.outcome or {}).get('reason')}"
    return {
        "entry": said.seq,
        "at": said.at[:19],
        "action": said.action,
        "alias": said.alias or None,
        "version": said.version,
        "previous": said.previous_version,
        "by": said.by,
        "reason": "; ".join(one for one in (archived, why) if one) or None,
        "evidence": evidence or ("waived" if said.evidence_waived else None),
        "run": _run(run),
        "state": entry.state,
        "digest": said.digest,
        "archived": said.archived,
        "reports": said.evidence,
        "key": entry.key or None,
        "provider_version": run.get("provider_version"),
        "settled_by": (entry.outcome or {}).get("settled_by"),
    }


def _origin(record: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the version was made from, as far as it was registered with it."""
    ref = (record or {}).get("ref") or {}
    training = ref.get("training") or {}
    data = {key: training.get(key) for key in ("dataset_digest", "window", "rows")}
    return {
        "data": data if any(data.values()) else None,
        "code": ref.get("code"),
        "mlflow_run_id": ref.get("run_id"),
        "registered_by": (record or {}).get("key"),
        "made_because": (record or {}).get("reason"),
    }
