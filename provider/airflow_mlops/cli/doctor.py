"""What ``airflow mlops doctor`` does: is this Airflow fit for the provider, and how to mend what is not."""

from __future__ import annotations

import argparse
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
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

#: Versions of Airflow that the provider is tested with: from, up to but not including.
AIRFLOW = ("3.1", "3.4")
#: Containers that the provider starts carry labels that begin with this.
LABEL = "airflow_mlops."
DOCKER_CONNECTION = "docker_default"
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
    connection = _docker_connection()
    try:
        import docker
    except ImportError:
        if connection is not None:
            yield Finding(
                "docker",
                "fail",
                f"there is a connection {DOCKER_CONNECTION!r}, but the Docker SDK is not installed",
                "pip install 'airflow-provider-mlops[docker]'",
            )
        return
    host = _docker_host(connection)
    try:
        client = (
            docker.DockerClient(base_url=host, timeout=DOCKER_TIMEOUT)
            if host
            else docker.from_env(timeout=DOCKER_TIMEOUT)
        )
        engine = client.version()
    except Exception as error:
        message = f"no Docker Engine answers at {host or 'the default address'} ({type(error).__name__})"
        cure = "start the engine, and let the user that runs Airflow use it"
        if connection is None and "DOCKER_HOST" not in os.environ:
            yield Finding("docker", "ok", message, f"only for runtime={{'image': ...}}: {cure}")
        else:
            yield Finding("docker", "fail", message, cure)
        return
    try:
        yield Finding("docker", "ok", f"Docker Engine {engine['Version']} (API {engine['ApiVersion']}) answers")
        yield from _containers(client)
    finally:
        client.close()


def _containers(client: Any) -> Iterator[Finding]:
    ours = [
        one
        for one in client.api.containers(all=True)
        if any(label.startswith(LABEL) for label in one.get("Labels") or {})
    ]
    dead = [one for one in ours if one.get("State") != "running"]
    if dead:
        names = ", ".join(one["Names"][0].lstrip("/") for one in dead[:5])
        yield Finding(
            "docker",
            "warn",
            f"{len(dead)} containers of ended tasks were left: {names}",
            "if their tasks are not being retried, remove them: docker rm " + names.replace(", ", " "),
        )
    else:
        yield Finding("docker", "ok", f"{len(ours)} containers of tasks run, none was left over")


def _docker_connection() -> Connection | None:
    try:
        return BaseHook.get_connection(DOCKER_CONNECTION)
    except AirflowNotFoundException:
        return None


def _docker_host(connection: Connection | None) -> str | None:
    """Return the engine's address as Airflow's Docker hook takes it."""
    if connection is None or not connection.host:
        return None
    host = str(connection.host)
    if "://" in host or host.startswith("/"):
        return strip_credentials(host)
    return f"tcp://{host}:{connection.port}" if connection.port else f"tcp://{host}"
