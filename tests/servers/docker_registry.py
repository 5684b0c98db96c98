"""Debian's registry of images, with a login, on a free port of loopback."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.docker_steps import wait_for
from servers.s3 import free_port

LOGIN, PASSWORD = "bot", "let-me-in"
#: The password above by bcrypt, the one form that the registry takes.
HASHED = "$2y$05$abcdefghijklmnopqrstuu3Jd./u/rH1RxB6auX5v7gLP6uWhKCgG"


@dataclass
class DockerRegistry:
    """A registry that runs.

    :param address: as it stands in an image's name.
    :param log: what it says.
    """

    address: str
    log: Path


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry that nobody may use without a login."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no registry here: apt-get install docker-registry")
    folder, address = tmp_path / "registry", f"127.0.0.1:{free_port()}"
    folder.mkdir()
    (folder / "users").write_text(f"{LOGIN}:{HASHED}\n")
    settings = f"""version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{address}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/users}}}}
"""
    (folder / "config.yml").write_text(settings)
    made = DockerRegistry(address, folder / "log")
    with open(made.log, "wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _asks_for_a_login(address))
        assert process.poll() is None, made.log.read_text()
        yield made
    finally:
        process.terminate()
        process.wait()


def _asks_for_a_login(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=5)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        pass
    return False
