"""`make stack-up` and `make stack-down`: the platform of docker-compose.yml.

It needs Python's standard library, Docker, and Compose: the plug-in (`docker compose`) or docker-compose 1.29.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENV = ROOT / ".env"
SOCKET = "/var/run/docker.sock"
#: A server that ended so often is not coming up.
RESTARTS = 3
#: The volumes whose contents were made with these: with others nobody can read them.
DATA = ("postgres", "s3")
BOUND = (
    *("AIRFLOW_DB_PASSWORD", "AIRFLOW_FERNET_KEY", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_DB_PASSWORD"),
    *("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"),
)


def _word() -> str:
    return secrets.token_hex(24)


#: What the file holds, and how a value is made. No value has a character that a URL, JSON or Compose would read.
SETTINGS: dict[str, Callable[[], str]] = {
    "COMPOSE_PROJECT_NAME": lambda: "mlops",
    "AIRFLOW_PORT": lambda: "8080",
    "MLFLOW_PORT": lambda: "5000",
    "GATEWAY_PORT": lambda: "8090",
    "AIRFLOW_USERS": lambda: f"admin:admin:{_word()}",
    "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW_SECRET_KEY": _word,
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(64),
    "AIRFLOW_DB_PASSWORD": _word,
    "MLFLOW_ADMIN_PASSWORD": _word,
    "MLFLOW_SECRET_KEY": _word,
    "MLFLOW_DB_PASSWORD": _word,
    "POSTGRES_PASSWORD": _word,
    "S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "S3_SECRET_KEY": _word,
}


def read_settings() -> dict[str, str]:
    """Return what stands in the file; nothing if there is none."""
    try:
        lines = ENV.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def write_settings(new: list[str]) -> None:
    """Give settings a new value, and keep all others.

    The file appears whole, and nobody but its owner can read it.
    """
    text = ENV.read_text() if ENV.exists() else "# Settings and passwords of the stack; made by `make stack-env`.\n"
    text = text if text.endswith("\n") or not text else text + "\n"
    kept = [line for line in text.splitlines(keepends=True) if line.partition("=")[0].strip() not in new]
    text = "".join(kept) + "".join(f"{name}={SETTINGS[name]()}\n" for name in new)
    partial = ENV.with_name(f"{ENV.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(ENV)


@cache
def compose_command() -> list[str]:
    """Return the command of Compose that is installed.

    :raises SystemExit: if there is none.
    """
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            found = subprocess.run([*command, "version"], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if found.returncode == 0:
            return command
    sys.exit("there is no Compose here: install Docker with its plug-in (docker compose), or docker-compose 1.29")


def compose(*arguments: str) -> None:
    """Run Compose on the stack; its output is shown.

    :raises SystemExit: if it fails.
    """
    # Compose asks for the passwords even to stop, which must be possible without them.
    environment = {**dict.fromkeys(set(SETTINGS) - set(read_settings()), "0"), **engine_socket(), **os.environ}
    command = [*compose_command(), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with code {done.returncode}")


def setting(name: str) -> str:
    """Return a setting, of the environment or the file; empty if neither has it."""
    return os.environ.get(name) or read_settings().get(name) or ""


def serves_models() -> bool:
    """Say whether somebody has opted in to models in containers of the engine."""
    return any(Path(one).name == "model-servers.yml" for one in setting("COMPOSE_FILE").split(os.pathsep))


def engine_socket() -> dict[str, str]:
    """Return where the engine's socket is, and the group that may open it, if containers shall have it."""
    if not serves_models():
        return {}
    host = os.environ.get("DOCKER_HOST", "")
    socket = setting("DOCKER_SOCKET") or (host.removeprefix("unix://") if host.startswith("unix://") else SOCKET)
    try:
        return {"DOCKER_SOCKET": socket, "DOCKER_GID": setting("DOCKER_GID") or str(os.stat(socket).st_gid)}
    except OSError as error:
        sys.exit(f"the engine's socket {socket} cannot be mounted ({error.strerror}); name it by DOCKER_SOCKET in .env")


def models_network() -> str:
    """Return the name of the network of model servers."""
    return f"{project()}_models"


def model_servers() -> list[str]:
    """Return the ids of the containers of models, which tasks have made, running or not."""
    filters = ["--filter", "label=airflow_mlops.server", "--filter", f"network={models_network()}"]
    found = subprocess.run(["docker", "ps", "--all", "--quiet", *filters], capture_output=True, text=True, check=True)
    return found.stdout.split()


def start_models() -> None:
    """Start the models that served when the stack was stopped."""
    for one in model_servers():
        subprocess.run(["docker", "start", one], stdout=subprocess.DEVNULL, check=True)


def stop_models() -> None:
    """Stop the models; they end what is under way, and write what they have captured."""
    if servers := model_servers():
        subprocess.run(["docker", "stop", "--time", "60", *servers], stdout=subprocess.DEVNULL, check=True)


def make_models_network() -> None:
    """Make the network of model servers, which leads nowhere outside, if it is not there."""
    if serves_models() and not inspect(models_network()):
        command = ["docker", "network", "create", "--internal", models_network()]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def project() -> str:
    """Return the name that Compose gives all that belongs to the stack."""
    return setting("COMPOSE_PROJECT_NAME") or "mlops"


def containers() -> list[dict[str, Any]]:
    """Return what Docker knows of the stack's containers, running or not."""
    found = ["docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project()}"]
    return inspect(*subprocess.run(found, capture_output=True, text=True, check=True).stdout.split())


def inspect(*names: str) -> list[dict[str, Any]]:
    """Return what Docker knows of containers, volumes or networks; fewer than were named if some do not exist."""
    if not names:
        return []
    done = subprocess.run(["docker", "inspect", *names], capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def refuse_lost_passwords(new: Iterable[str]) -> None:
    """Stop if volumes are there whose passwords are not.

    :raises SystemExit: with the cure.
    """
    lost = [name for name in new if name in BOUND]
    there = [volume for volume in (f"{project()}_{name}" for name in DATA) if inspect(volume)]
    if lost and there:
        sys.exit(
            f"the volumes {', '.join(there)} are there, but their passwords are not in {ENV.name}: {', '.join(lost)}. "
            f"Put the file back from where you keep it, or, to lose the data, run: docker volume rm {' '.join(there)}"
        )


def state_of(container: dict[str, Any]) -> tuple[str, str]:
    """Return a container's service, and ``well``, ``starting``, or what is wrong."""
    service, state = container["Config"]["Labels"]["com.docker.compose.service"], container["State"]
    health = (state.get("Health") or {}).get("Status")
    if state["Status"] == "exited" and state["ExitCode"] == 0 and service == "set-up":
        return service, "well"
    lost = state["Status"] == "restarting" and container["RestartCount"] >= RESTARTS
    if lost or state["Status"] in ("exited", "dead"):
        return service, f"{state['Status']} with code {state['ExitCode']}"
    return service, "well" if health == "healthy" else "starting" if health != "unhealthy" else "unhealthy"


def wait(timeout: float) -> None:
    """Wait until all containers are well, and say which are.

    :raises SystemExit: if one ends, or is not well in time; with the last that it said.
    """
    end, shown = time.monotonic() + timeout, set[str]()
    while True:
        states = dict(map(state_of, containers()))
        for service in sorted(name for name, state in states.items() if state == "well" and name not in shown):
            print(f"  {service} is well", flush=True)
            shown.add(service)
        if not states:
            sys.exit("its containers are gone: somebody stopped the stack while it came up")
        ill = {service: state for service, state in states.items() if state != "well"}
        if not ill:
            return
        if time.monotonic() > end or any(" with code " in state for state in ill.values()):
            compose("logs", "--no-color", "--tail", "30", *sorted(ill))
            sys.exit(f"not well: {', '.join(f'{service} ({state})' for service, state in ill.items())}; see above")
        time.sleep(1)


def make_settings() -> None:
    """Write what is missing in the file of settings."""
    known = read_settings()
    new = [name for name in SETTINGS if not known.get(name)]
    if new:
        refuse_lost_passwords(new)
        write_settings(new)
        print(f"{ENV.name}: made {', '.join(new)}", flush=True)


def up(timeout: float) -> None:
    """Build, start, wait, and say where everything is."""
    make_settings()
    compose("build")
    make_models_network()
    compose("up", "--detach", "--remove-orphans")
    start_models()
    wait(timeout)
    settings = {**read_settings(), **os.environ}  # as Compose does
    print(f"Airflow:  http://localhost:{settings['AIRFLOW_PORT']}  (user admin; AIRFLOW_USERS in {ENV.name})")
    print(f"MLflow:   http://localhost:{settings['MLFLOW_PORT']}  (user admin; MLFLOW_ADMIN_PASSWORD in {ENV.name})")
    print(f"Gateway:  http://localhost:{settings['GATEWAY_PORT']}")
    print("make stack-down stops it and keeps its data.")


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("env", "up", "down"))
    parser.add_argument("--timeout", type=float, default=900, help="seconds until everything must be well")
    options = parser.parse_args()
    if options.command == "env":
        make_settings()
    elif options.command == "up":
        up(options.timeout)
    else:
        stop_models()
        compose("down", "--remove-orphans")


if __name__ == "__main__":
    main()
