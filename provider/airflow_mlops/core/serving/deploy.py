"""deploy_model: write what a server shall serve, have it carried out, and report how that went."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import CannotReachError, ConflictError, IntegrityError, MlopsError, SupersededError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.reports import publish
from airflow_mlops.core.serving import withdraw
from airflow_mlops.core.serving.places import Place, driver_of
from airflow_mlops.core.serving.request import Request
from airflow_mlops.core.serving.state import Deployment, ServerState, label
from airflow_mlops.core.vocabulary import ModelRef, Report

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Fields of a model's ref that an intent keeps. Not its data: what a record names is never collected as garbage.
MODEL_FIELDS = ("uri", "name", "version", "run_id", "model_id", "digest")
#: Tag of a registered version, with the server's name behind it.
TAG = "mlops.deployment."
#: Seconds between two looks at what another process carries out.
LOOK_SECONDS = 1.0
#: Seconds that the gateway or the engine may be away while a deployment is carried out.
AWAY_SECONDS = 90.0
#: Seconds that a task waits here before it is worth to wait in the triggerer.
SHORT_SECONDS = 3.0


def deploy_model(
    context: StepContext,
    *,
    model: Any,
    server: str,
    strategy: str = "replace",
    checks: list[dict[str, Any]] | None = None,
    canary: dict[str, Any] | None = None,
    capture: Any = None,
    start_timeout: Any = None,
    trust: models.Trust = "recorded",
    place: Mapping[str, Any] | None = None,
    wait: bool = True,
) -> dict[str, Any]:
    """Have a server serve a model, and return the deployment's report.

    :param model: ref or URI of the model.
    :param server: name of the server; its first deployment makes it.
    :param strategy: ``replace`` or ``canary``; what ``checks``, ``canary`` and ``capture`` hold is in :mod:`.request`.
    :param start_timeout: how long the new server may take until it answers, such as ``"5m"``.
    :param trust: ``"unverified"`` takes a model that nothing is on record of, as it is now.
    :param place: where servers run; see :class:`.places.Place`.
    :param wait: False: return ``{"kind": "deployment_wait", ...}`` instead of waiting for long.
    :raises ConflictError: if another deployment to the server is under way.
    :raises SupersededError: if this task deployed before, and a later deployment stands.
    :raises IntegrityError: if the model's files are not those on record.
    """
    withdraw.begin(context.key)
    request = Request.of(strategy=strategy, checks=checks, canary=canary, capture=capture, start=start_timeout)
    where = Place.of(place)
    state = ServerState(context.store, server)
    where.check(context.store)
    ref = _model(context, model, trust)
    deployment = _obtain(context, state, request, ref, where)
    crash_point("deploy.intent_written")
    if deployment.outcome is None:
        paused = _carry_out(context, state, deployment, where, wait)
        if paused is not None:
            return {"kind": "deployment_wait", "server": server, "seq": deployment.seq, "seconds": paused}
        deployment = state.read(deployment.seq)
    return _report(context, state, deployment, where)


def _model(context: StepContext, model: Any, trust: models.Trust) -> dict[str, Any]:
    """Return what an intent keeps of a model, its digest known."""
    ref = models.resolve(context, model)
    known = models.recorded(context, ref)
    digest = models.digest_of(known["manifest"]) if known else ref.digest
    if digest is None:
        if trust != "unverified":
            raise IntegrityError(
                f"{ref.uri} is not on record here: a model is code, and serving runs it. Register or adopt it first, "
                "or pass trust='unverified'",
                uri=ref.uri,
            )
        import tempfile

        with tempfile.TemporaryDirectory(prefix="mlops-model-") as folder:
            digest = models.digest_of(models.manifest_of(models.download(context, ref, folder, trust)))
    whole = {**ref.to_dict(), "digest": digest}
    return {name: whole.get(name) for name in MODEL_FIELDS}


def _obtain(
    context: StepContext, state: ServerState, request: Request, model: dict[str, Any], place: Place
) -> Deployment:
    """Return this task's deployment: the one that an earlier try began, or a new one."""
    wanted = request.digest(str(model["digest"]), place.identity)
    while True:
        if withdraw.cancelled(context.key):
            raise ConflictError(f"{state.name}: the task was cancelled before it had deployed anything")
        last, live = state.last(), state.live()
        mine = _earlier(context, state, wanted)
        opened = state.open()
        if opened is not None and opened.withdrawn:
            # By an earlier try of this task, or by another one; then there is room for a new attempt.
            _carry_out(context, state, opened, place, True)
            continue
        if mine is not None:
            if mine.state == "live" and live is not None and live.seq != mine.seq:
                raise SupersededError(
                    f"superseded by {live}: this task deployed {label(mine.model)} to {state.name!r} as deployment "
                    f"{mine.seq}, and a later one stands. Deploy in a new run",
                    server=state.name,
                    seq=live.seq,
                )
            context.log.info("%s: going on with %s", state.name, mine)
            return mine
        if opened is not None and opened.held:
            raise ConflictError(
                f"the server {state.name!r} is busy: {opened} is under way (phase {opened.phase}, since "
                f"{opened.intent['at']}). One deployment at a time; run this one again when that one has ended",
                server=state.name,
                seq=opened.seq,
            )
        if opened is not None:
            why = f"whoever carried it out is gone; {context.key or 'another deployment'} took its place"
            state.finish(opened.seq, "abandoned", why)
            context.log.warning("%s: %s was left unfinished: %s", state.name, opened, why)
            continue
        if live is not None and live.intent["request"] == wanted:
            context.log.info("%s: serves %s already, as asked for: %s", state.name, label(model), live)
            return live
        intent = {
            **request.to_dict(),
            "model": model,
            "place": place.identity,
            "request": wanted,
            "slot": "green" if live is not None and live.slot == "blue" else "blue",
            "previous": live.seq if live is not None else None,
            "previous_model": {key: live.model.get(key) for key in ("name", "version", "uri")} if live else None,
            "key": context.key,
            "by": context.run.get("triggered_by"),
            "run": context.run or None,
        }
        # Who loses this race finds the winner's in the next round.
        if state.begin(last + 1, intent):
            if withdraw.cancelled(context.key):  # at this very moment
                state.withdraw(last + 1, "it was withdrawn: its task was cancelled")
            return state.read(last + 1)


def _earlier(context: StepContext, state: ServerState, wanted: str) -> Deployment | None:
    for one in state.backwards() if context.key else ():
        if one.intent.get("key") == context.key:
            undone = one.state in ("rolled_back", "abandoned")
            if one.intent["request"] != wanted or (undone and (one.withdrawn or state.reported(one.seq))):
                # Asked for something else, or told already, or cancelled: somebody wants another attempt.
                return None
            return one  # type: ignore[no-any-return]
    return None


def _carry_out(
    context: StepContext, state: ServerState, deployment: Deployment, place: Place, wait: bool
) -> float | None:
    """Bring a deployment to its outcome and return None; or seconds to wait, with ``wait=False``."""
    with driver_of(context, state.name, place) as driver:
        away = 0.0
        while state.read(deployment.seq).outcome is None:
            try:
                pause, away = driver(), 0.0
            except (CannotReachError, ConflictError) as error:
                now = time.monotonic()
                away = away or now
                if now - away > AWAY_SECONDS:
                    raise _retryable(error) from error
                context.log.warning("%s; trying again", error.message)
                pause = LOOK_SECONDS
            if pause and not wait and state.read(deployment.seq).outcome is None:
                return max(pause, SHORT_SECONDS)
            time.sleep(pause or 0)
        # What is left of the one that was replaced, or of this one.
        end = time.monotonic() + AWAY_SECONDS
        while (pause := _settled(driver)) and time.monotonic() < end:
            time.sleep(pause)
    return None


def _retryable(error: MlopsError) -> MlopsError:
    return error if error.retryable else CannotReachError(error.message, **error.fields)


def _settled(driver: Any) -> float | None:
    try:
        pause: float | None = driver()
    except (CannotReachError, ConflictError):
        return None  # another process, or a later deployment, clears up
    return pause


def _report(context: StepContext, state: ServerState, deployment: Deployment, place: Place) -> dict[str, Any]:
    assert deployment.outcome is not None
    passed = deployment.state == "live"
    checks = deployment.progress.get("checks") or []
    failed = [one for one in checks if not one["passed"]]
    history = deployment.progress.get("history") or []
    reason = deployment.outcome.get("reason")
    # A canary that goes back has harmed nobody but its share of the requests; there is nothing for anybody to mend now.
    harmless = bool(history) and deployment.intent.get("previous_model") is not None
    p95 = next((one["value"] for one in checks if one["kind"] == "latency"), None)
    metrics = {"p95_ms": p95, "canary_requests": sum(one["requests"] for one in history) if history else None}
    previous = deployment.intent.get("previous_model")
    report = Report(
        report="deployment",
        passed=passed,
        severity="ok" if passed else "warning" if harmless else "error",
        summary=_summary(deployment, previous, reason, p95),
        metrics={key: value for key, value in metrics.items() if value is not None},
        checks={"total": len(checks) + bool(reason and not failed), "failed": len(failed) or int(not passed)},
        failures=[{"check": one["kind"], "message": one["message"]} for one in failed]
        or ([{"check": deployment.intent["strategy"], "message": reason}] if not passed else []),
        subject=deployment.digest,
    )
    details = {
        "schema": 1,
        "kind": "deployment",
        "server": state.name,
        "seq": deployment.seq,
        "state": deployment.state,
        "reason": reason,
        "model": deployment.model,
        "previous": previous,
        "strategy": deployment.intent["strategy"],
        "checks": checks,
        "canary": {"settings": deployment.intent["canary"], "steps": history},
        "capture": deployment.intent["capture"],
        "began": deployment.intent["at"],
        "ended": deployment.outcome["at"],
        "address": place.address(context.store, state.name),
    }
    made = publish(
        context,
        report,
        details=details,
        template="deployment.html",
        identity=[state.name, deployment.seq],
        title=f"Deployment of {label(deployment.model)} to {state.name}",
    )
    _tell_registry(context, deployment)
    state.report(deployment.seq, made["report_uri"])
    model = ModelRef.from_dict({**deployment.model, "kind": "model"})
    return {
        **made,
        "server": state.name,
        "seq": deployment.seq,
        "state": deployment.state,
        "model": {"uri": model.uri, "name": model.name, "version": model.version, "digest": model.digest},
        "previous": previous,
        "address": details["address"],
    }


def _tell_registry(context: StepContext, deployment: Deployment) -> None:
    """Say on the registered version how its deployment went; a registry that is away holds nothing up."""
    name, version = deployment.model.get("name"), deployment.model.get("version")
    if not (name and version and context.tracking_uri and deployment.outcome):
        return
    from airflow_mlops.core.registry.verdict import TAG_LIMIT
    from airflow_mlops.core.registry.versions import RegisteredModel

    reason = deployment.outcome.get("reason")
    text = f"{deployment.state.replace('_', ' ')} (deployment {deployment.seq}){f': {reason}' if reason else ''}"
    try:
        RegisteredModel(context, name).tag_version(int(version), {TAG + deployment.server: text[:TAG_LIMIT]})
    except MlopsError as error:
        context.log.warning("the registry does not show this deployment: %s", error.message)


def _summary(deployment: Deployment, previous: Any, reason: str | None, p95: Any) -> str:
    what, where = label(deployment.model), deployment.server
    if deployment.state != "live":
        stays = f"; {label(previous)} goes on serving" if previous else "; nothing serves there"
        return f"{what} was not deployed to {where}: {reason}{stays}."
    instead = f" instead of {label(previous)}" if previous else ""
    fast = f", p95 {text(p95)} ms" if p95 is not None else ""
    return f"{where} serves {what}{instead} ({deployment.intent['strategy']}{fast})."
