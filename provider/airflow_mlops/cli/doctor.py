"""What ``airflow mlops doctor`` does: is this Airflow fit for the provider, and how to mend what is not."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

import airflow_mlops
from airflow_mlops import backend
from airflow_mlops.cli.session import command, session, show
from airflow_mlops.core.errors import MlopsError, did_you_mean
from airflow_mlops.core.lifecycle import checkup, requirements
from airflow_mlops.core.lifecycle.checkup import Finding, guarded
from airflow_mlops.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from airflow_mlops.runtimes.docker_engine import Engine

#: Versions of Airflow that the provider is tested with: from, up to but not including.
AIRFLOW = ("3.1", "3.4")
#: Seconds that a call of Docker's engine may take.
DOCKER_TIMEOUT = 5


@command
def doctor(args: argparse.Namespace) -> None:
    """Check everything, print a line for each, and fail if one of them did."""
    findings = [finding.to_dict() for finding in _examine(args)]
    if args.json or args.output == "json":
        show(findings, "json")
    elif args.output == "table":
        for one in findings:
            print(f"{one['state']:<5} {one['check']}: {one['message']}")
            if one["cure"]:
                print(f"      -> {one['cure']}")
    else:
        show(findings, args.output)
    failed = [one["check"] for one in findings if one["state"] == "fail"]
    if failed:
        raise MlopsError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(dict.fromkeys(failed))}")


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    # Before anything sets the libraries' variables.
    telemetry = list(_telemetry())
    yield from guarded("versions", _versions)
    yield from guarded("extras", requirements.installed)
    yield from guarded("plugin", _plugin)
    yield from telemetry
    yield from guarded("configuration", _configuration)
    yield from guarded("back end", _backend)
    yield from guarded("MLflow", _mlflow, args)
    yield from guarded("store", _store, args)
    yield from guarded("docker", _docker)


def _versions() -> Iterator[Finding]:
    from packaging.version import Version

    airflow = importlib.metadata.version("apache-airflow-core")
    yield Finding("versions", "ok", f"airflow-provider-mlops {airflow_mlops.__version__}, Python {_python()}")
    if Version(AIRFLOW[0]) <= Version(airflow) < Version(AIRFLOW[1]):
        yield Finding("versions", "ok", f"Airflow {airflow}")
    else:
        yield Finding(
            "versions",
            "warn",
            f"Airflow {airflow} is none that the provider is tested with",
            f"use Airflow {AIRFLOW[0]} or later, below {AIRFLOW[1]}",
        )


def _python() -> str:
    return platform.python_version()


def _plugin() -> Iterator[Finding]:
    entries = [
        e for e in importlib.metadata.entry_points(group="airflow.plugins") if e.value.startswith("airflow_mlops")
    ]
    if not entries:
        yield Finding("plugin", "fail", "Airflow does not know the provider's plugin", "install the package again")
        return
    try:
        entries[0].load()
    except Exception as error:
        message = f"the plugin does not load: {type(error).__name__}: {str(error)[:200]}"
        yield Finding("plugin", "fail", message, "install the package again; report it if that does not help")
        return
    yield Finding("plugin", "ok", "Airflow loads the provider's plugin")


def _telemetry() -> Iterator[Finding]:
    loud = [
        name
        for name, off in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("GX_ANALYTICS_ENABLED", "false"))
        if os.environ.get(name, off).strip().lower() not in (off, {"true": "1", "false": "0"}[off])
    ]
    if loud:
        yield Finding("telemetry", "warn", f"it is on, because {', '.join(loud)} says so", "unset the variable")
    else:
        yield Finding("telemetry", "ok", "the libraries' telemetry is off in every task")


def _configuration() -> Iterator[Finding]:
    known = get_provider_info()["config"][backend.SECTION]["options"]
    section = dict(conf.getsection(backend.SECTION) or {})
    prefix = f"AIRFLOW__{backend.SECTION.upper()}__"
    given = {*section, *(name[len(prefix) :].lower() for name in os.environ if name.startswith(prefix))}
    # The same option may come as a command or from a secrets back end.
    unknown = sorted(name for name in given if name.removesuffix("_cmd").removesuffix("_secret") not in known)
    for name in unknown:
        yield Finding(
            "configuration",
            "warn",
            f"[{backend.SECTION}] {name} is no option of the provider{did_you_mean(name, known)}",
            f"remove it; the options are {', '.join(known)}",
        )
    if not unknown:
        yield Finding("configuration", "ok", f"[{backend.SECTION}] has no unknown option")


def _backend() -> Iterator[Finding]:
    name = backend.name()
    if name == "embedded":
        home = backend.home()
        yield Finding("back end", "ok", f"embedded, in {home}")
        yield from checkup.disk(home)
    else:
        yield Finding("back end", "ok", "connections")


def _mlflow(args: argparse.Namespace) -> Iterator[Finding]:
    from airflow_mlops.core.extras import require, silence_telemetry
    from airflow_mlops.hooks.mlflow import MLflowHook

    silence_telemetry()
    require("mlflow", "the check of MLflow")
    hook = MLflowHook(args.mlflow_conn_id)
    uri = hook.tracking.tracking_uri
    found = list(checkup.database(uri))
    yield from found
    if not uri.startswith("sqlite:"):
        good, message = hook.test_connection()
        cure = f"correct the connection {hook.tracking.source!r}, or start the server"
        yield Finding("MLflow", "ok" if good else "fail", message, None if good else cure)


def _store(args: argparse.Namespace) -> Iterator[Finding]:
    with session(args) as context:
        yield from checkup.store(context.store)
        yield from checkup.leftovers(context.store)
        if any(True for _ in context.store.keys("ledger")):
            yield from guarded("ledger", checkup.ledgers, context)


def _docker() -> Iterator[Finding]:
    from airflow_mlops.runtimes.docker_engine import DEFAULT_CONNECTION, engine_of

    named = _has_connection(DEFAULT_CONNECTION)
    if not named and "DOCKER_HOST" not in os.environ and backend.name() == "connections":
        message = f"there is no connection {DEFAULT_CONNECTION!r}"
        yield Finding("docker", "ok", message, "only for runtime={'image': ...}: add it, of type docker")
        return
    try:
        engine = engine_of(None)
        client = engine.client(timeout=DOCKER_TIMEOUT)
    except MlopsError as error:
        if named or "DOCKER_HOST" in os.environ:
            yield Finding("docker", "fail", error.message)
        else:
            yield Finding("docker", "ok", "no Docker Engine is used", f"only for runtime={{'image': ...}}: {error}")
        return
    try:
        yield from _engine(engine, client)
    finally:
        client.close()


def _engine(engine: Engine, client: Any) -> Iterator[Finding]:
    from airflow_mlops.runtimes import docker_leftovers as leftovers
    from airflow_mlops.runtimes.docker_engine import engine_errors

    with engine_errors(engine):
        known, limits = client.version(), client.info()
    memory = f"{limits.get('MemTotal', 0) / (1 << 30):.0f} GB"
    message = f"{engine.name} {known['Version']} answers: {limits.get('NCPU')} CPUs, {memory}"
    yield Finding("docker", "ok", message[0].upper() + message[1:])
    now = dt.datetime.now(dt.timezone.utc)
    found = leftovers.step_containers(engine, client)
    left = [one for one in found if one.spared(leftovers.GRACE, running=False, kept=False, now=now) is None]
    if left:
        names = ", ".join(one.name for one in left[:5])
        message = f"{len(left)} containers of steps that ended more than a day ago were left: {names}"
        yield Finding("docker", "warn", message, "airflow mlops reap --delete")
    else:
        yield Finding("docker", "ok", f"{sum(one.runs for one in found)} containers of steps run, none was left over")


def _has_connection(conn_id: str) -> bool:
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return False
    return True
