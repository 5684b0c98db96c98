"""A Docker Engine for the tests, and the two images they use; no image is pulled from a registry."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

#: Where the base image is kept between sessions; git ignores it.
CACHE = Path(__file__).parents[2] / ".build" / "docker"
BASE, ML = "airflow-mlops-tests/base:bookworm", "airflow-mlops-tests/ml"
#: What the base image has of Debian: Python for steps, and the servers of the Compose stack.
PACKAGES = ("python3", "libgomp1", "ca-certificates", "postgresql-15", "haproxy")
#: What a step needs in an image; their own dependencies come with them.
LIBRARIES = (
    *("mlflow", "scikit-learn", "skops", "pandas", "pyarrow", "great-expectations"),
    *("boto3", "psycopg2-binary"),
)
#: The Python of Debian 12, which the base image has.
IMAGE_PYTHON = (3, 11)


@dataclass
class Engine:
    """One Docker Engine.

    :param url: its address, as in ``DOCKER_HOST``.
    :param folder: of an engine that the tests started: its data, socket and log. None: it was there before.
    """

    url: str
    folder: Path | None = None
    process: Any = field(default=None, repr=False)

    @property
    def client(self) -> Any:
        """A new client of the SDK's low level."""
        import docker

        return docker.APIClient(base_url=self.url, version="auto", timeout=60)

    @property
    def own(self) -> bool:
        """Whether the tests may stop it."""
        return self.folder is not None

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``docker ...``."""
        environment = {**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", *arguments], env=environment, capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        assert self.folder
        with open(self.folder / "log", "ab") as log:
            folders = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "none.json"}
            options = [f"--{option}={self.folder / name}" for option, name in folders.items()]
            options += self.network()
            self.process = subprocess.Popen(["dockerd", f"--host={self.url}", *options], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / "log").read_text()[-2000:]
                raise RuntimeError(f"dockerd did not start: {text}")
            time.sleep(0.05)

    @property
    def bridge(self) -> str:
        """The network bridge of an engine that the tests started."""
        assert self.folder
        return f"dk-{zlib.crc32(os.fsencode(self.folder)):08x}"

    def network(self) -> list[str]:
        """Return the options of a network of the engine's own, so that others on this machine are not disturbed.

        Two engines that write the firewall at once fail, and the one's rules would cut off the other's containers.
        """
        if not Path("/sys/class/net", self.bridge).exists():
            for command in (
                ["link", "add", self.bridge, "type", "bridge"],
                ["address", "add", f"10.{self.number}.0.1/24", "dev", self.bridge],
                ["link", "set", self.bridge, "up"],
            ):
                subprocess.run(["ip", *command], check=True, capture_output=True)
            self.forwarding("--insert")
        pool = f"base={self.pool},size=24"
        return ["--iptables=false", "--ip6tables=false", f"--bridge={self.bridge}", f"--default-address-pool={pool}"]

    @property
    def number(self) -> int:
        """What tells its addresses from those of other engines."""
        return zlib.crc32(os.fsencode(self.bridge)) % 200

    @property
    def pool(self) -> str:
        """The addresses of the networks that are made in it."""
        return f"10.{self.number}.128.0/17"

    def forwarding(self, change: str) -> None:
        """Let containers on one network talk, where another engine has left the firewall closed; or no longer."""
        rule = ["FORWARD", "--source", self.pool, "--destination", self.pool, "--jump", "ACCEPT"]
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["iptables", "--wait", change, *rule], check=False, capture_output=True)

    def unplug(self) -> None:
        """Take its network away."""
        self.forwarding("--delete")
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)

    def stop(self) -> None:
        """Stop it as ``systemctl stop docker`` does; its containers end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def restart(self) -> None:
        """Stop and start; what ran in containers is dead then."""
        self.stop()
        self.start()

    def containers(self, label: str = "airflow_mlops.key") -> list[dict[str, Any]]:
        """Return all containers with a label, running or not."""
        client = self.client
        try:
            return list(client.containers(all=True, filters={"label": label}))
        finally:
            client.close()


def answers(url: str) -> bool:
    """Say whether an engine answers at an address."""
    import docker

    try:
        client = docker.APIClient(base_url=url, version="auto", timeout=5)
    except docker.errors.DockerException:
        return False
    client.close()
    return True


def start_engine() -> Engine:
    """Return the engine of this machine, or start one in a temporary folder.

    :raises FileNotFoundError: if there is none and none can be started.
    """
    for url in (os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock"):
        if url and answers(url):
            return Engine(url)
    if not shutil.which("dockerd") or not shutil.which("docker"):
        raise FileNotFoundError("there is no Docker Engine here: apt-get install docker.io")
    if os.geteuid() != 0:
        raise FileNotFoundError("no Docker Engine answers, and only root can start one")
    folder = Path(tempfile.mkdtemp(prefix="dk-", dir="/tmp"))
    engine = Engine(f"unix://{folder}/s", folder)
    (folder / "none.json").write_text("{}")
    engine.start()
    return engine


def base_tarball() -> Path:
    """Return Debian 12 with Python and some servers as a tarball, made once (about a minute).

    :raises FileNotFoundError: if it has to be made and debootstrap is not installed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = ",".join(PACKAGES)
    tarball = CACHE / f"base-{hashlib.sha256(packages.encode()).hexdigest()[:12]}.tar"
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if tarball.exists():
            return tarball
        if not shutil.which("debootstrap"):
            raise FileNotFoundError("the images of the tests are made from Debian: apt-get install debootstrap")
        root = Path(tempfile.mkdtemp(prefix="dk-root-", dir="/tmp"))
        try:
            # Without a mirror debootstrap takes Debian's own.
            mirror = [os.environ["DEBIAN_MIRROR"]] if "DEBIAN_MIRROR" in os.environ else []
            options = ["--variant=minbase", f"--include={packages}"]
            command = ["debootstrap", *options, "bookworm", os.fspath(root), *mirror]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
            for folder in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
                shutil.rmtree(root / folder, ignore_errors=True)
            partial = tarball.with_suffix(".partial")
            subprocess.run(["tar", "-C", root, "-cf", partial, "."], check=True)
            partial.rename(tarball)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return tarball


def closure(*requirements: str) -> list[str]:
    """Return the installed distributions that some need, with their extras (``moto[s3]``), themselves included."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = list(requirements)
    while todo:
        wanted = Requirement(todo.pop())
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                distribution = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            found[name] = distribution.name
            for text in distribution.requires or ():
                marker = Requirement(text).marker
                if marker is None or marker.evaluate({"extra": extra}):
                    todo.append(text)
    return sorted(found.values())


def library_files(names: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield the files of libraries with their places: this environment's own, or the same versions from the index."""
    if sys.version_info[:2] != IMAGE_PYTHON:
        with tempfile.TemporaryDirectory(prefix="libraries-", dir=CACHE) as folder:
            pins = [f"{name}=={metadata.version(name)}" for name in names]
            version = ".".join(map(str, IMAGE_PYTHON))
            options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", folder]
            options += ["--python-version", version, "--python-platform", "x86_64-manylinux_2_28"]
            subprocess.run([Path(sys.executable).parent / "uv", "pip", "install", *options, *pins], check=True)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    yield path, os.fspath(path.relative_to(folder))
        return
    seen = set()
    for name in names:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." in file.parts or not source.is_file() or "tests" in file.parts or file.suffix == ".pyc":
                continue
            if source in seen:  # of two distributions
                continue
            seen.add(source)
            yield source, os.fspath(file)
            # What was compiled at installation is valid there too, and saves seconds of each import.
            compiled = Path(importlib.util.cache_from_source(str(source)))
            if file.suffix == ".py" and compiled.is_file():
                yield compiled, os.fspath(file.parent / "__pycache__" / compiled.name)


def has_image(client: Any, name: str) -> bool:
    """Say whether the engine has an image."""
    return bool(client.images(name=name, quiet=True))


def build_base(engine: Engine) -> str:
    """Make the base image: Debian 12, Python, and no library."""
    client = engine.client
    if not has_image(client, BASE):
        engine.command("import", "--change", 'CMD ["python3"]', os.fspath(base_tarball()), BASE)
    client.close()
    return BASE


def build_ml(engine: Engine) -> str:
    """Make the image with the ML libraries, and with no Airflow.

    It is imported as one stream: a build would write its 800 MB three times.
    """
    names = closure(*LIBRARIES)
    assert "apache-airflow" not in names
    versions = " ".join(f"{name}=={metadata.version(name)}" for name in names)
    image = f"{ML}:{hashlib.sha256(versions.encode()).hexdigest()[:12]}"
    client = engine.client
    if not has_image(client, image):
        reading, writing = os.pipe()
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(_write_ml, writing, names)
            with open(reading, "rb") as stream:
                engine.command("import", "--change", 'CMD ["python3"]', "-", f"{image}-partial", stdin=stream)
            written.result()
        engine.command("tag", f"{image}-partial", image)
        engine.command("rmi", f"{image}-partial")
    client.close()
    return image


def _write_ml(descriptor: int, names: list[str]) -> None:
    with (
        open(descriptor, "wb", buffering=1 << 20) as pipe,
        tarfile.open(base_tarball()) as base,
        tarfile.open(fileobj=pipe, mode="w|", bufsize=1 << 20) as archive,
    ):
        for entry in base:
            archive.addfile(entry, base.extractfile(entry) if entry.isreg() else None)
        for source, place in library_files(names):
            entry = archive.gettarinfo(source, f"./usr/local/lib/python3.11/dist-packages/{place}")
            # Compiled files name their source's time in whole seconds.
            entry.mtime, entry.type, entry.linkname = int(entry.mtime), tarfile.REGTYPE, ""
            entry.size = source.stat().st_size
            with source.open("rb") as content:
                archive.addfile(entry, content)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """A running engine; one that the tests started is stopped in the end, with all that it holds."""
    try:
        engine = start_engine()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield engine
    finally:
        if engine.own:
            with contextlib.suppress(Exception):
                engine.stop()
            engine.unplug()
            remove(engine.folder)


def remove(folder: Path | None) -> None:
    """Remove the folder of an engine that was stopped, its mounts first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def base_image(docker_engine: Engine) -> str:
    """The name of an image with Python and no library."""
    try:
        return build_base(docker_engine)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ml_image(docker_engine: Engine, base_image: str) -> str:
    """The name of an image with the ML libraries and no Airflow."""
    return build_ml(docker_engine)
