"""Runs git on a repository elsewhere: with credentials that stand in no command line, and its errors in our words."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    MissingExtraError,
    MlopsError,
    NotFoundError,
    SpecError,
)
from airflow_mlops.core.tracking import strip_credentials

#: Seconds that one call of git may take: a look at a ref, and a fetch.
LOOK_TIMEOUT, FETCH_TIMEOUT = 60.0, 600.0
#: What ``StrictHostKeyChecking`` may be; ``ask`` would ask nobody.
HOST_KEY_CHECKING = ("accept-new", "yes", "no", "off")
_PROTOCOLS = ("file", "git", "http", "https", "ssh")
#: What must not come from the environment of whoever runs us: another repository, a prompt, a trace with headers.
_KEPT_BACK = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW", "GIT_")
_KEPT = ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_EXEC_PATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL")
_USER, _PASSWORD, _PASSPHRASE = "MLOPS_GIT_USER", "MLOPS_GIT_PASSWORD", "MLOPS_GIT_PASSPHRASE"
#: Answers with what the environment holds; git asks it for the one server that it is configured for.
_HELPER = f'!f() {{ test "$1" = get && echo "username=${_USER}" && echo "password=${_PASSWORD}"; }}; f'
_ABSENT = r"[Rr]epository ('.*' )?not found|returned error: 404|does not appear to be a git repository|No such file"
_REFUSED = r"Authentication failed|could not read (Username|Password)|Permission denied|returned error: 40[13]"


@dataclass(frozen=True)
class GitAccess:
    """A repository and what opens it.

    :param url: URL, ``git@host:path`` or absolute path, without a password.
    :param login: user for ``http(s)``.
    :param password: password or token for ``http(s)``.
    :param private_key: text of a private key for SSH; or ``key_file``, its path.
    :param source: for messages: the connection's id.
    """

    url: str
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    host_key_checking: str = "accept-new"
    known_hosts_file: str | None = None
    ssh_config_file: str | None = None
    proxy_command: str | None = None
    port: int | None = None
    source: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        via = f" (connection {self.source!r})" if self.source else ""
        return f"the repository {strip_credentials(self.url)}{via}"

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """Give git's environment; keys are in files of their own as long as it is used."""
        found = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_KEPT_BACK)}
        found |= {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_ALLOW_PROTOCOL": ":".join(_PROTOCOLS),
            "LC_ALL": "C",
        }
        config = {"credential.helper": "", "gc.auto": "0"}
        if self.password and self.url.startswith(("http://", "https://")):
            server = urlsplit(self.url)
            config[f"credential.{server.scheme}://{server.netloc.rpartition('@')[2]}.helper"] = _HELPER
            found |= {_USER: self.login or "git", _PASSWORD: self.password}
        for number, (key, value) in enumerate(config.items()):
            found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        found["GIT_CONFIG_COUNT"] = str(len(config))
        with contextlib.ExitStack() as held:
            if self._ssh:
                folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="mlops-ssh-")))
                found["GIT_SSH_COMMAND"] = shlex.join(self._ssh_command(folder))
                if self.passphrase:
                    asked = folder / "askpass"
                    asked.write_text(f'#!/bin/sh\nprintf "%s\\n" "${_PASSPHRASE}"\n')
                    asked.chmod(0o700)
                    found |= {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force", _PASSPHRASE: self.passphrase}
            yield found

    @property
    def _ssh(self) -> bool:
        return any(
            (self.private_key, self.key_file, self.known_hosts_file, self.ssh_config_file, self.proxy_command)
        ) or bool(self.port)

    def _ssh_command(self, folder: Path) -> list[str]:
        key = self.key_file
        if self.private_key:
            file = folder / "key"
            file.touch(0o600)
            file.write_text(self.private_key.strip() + "\n")  # OpenSSH refuses a key whose last line does not end
            key = str(file)
        options = [f"StrictHostKeyChecking={self.host_key_checking}"]
        if key:
            options.append("IdentitiesOnly=yes")
        if not self.passphrase:
            options.append("BatchMode=yes")
        if self.known_hosts_file:
            options.append(f"UserKnownHostsFile={self.known_hosts_file}")
        if self.proxy_command:
            options.append(f"ProxyCommand={self.proxy_command}")
        words = ["ssh", *(["-i", key] if key else []), *(["-F", self.ssh_config_file] if self.ssh_config_file else [])]
        for option in options:
            words += ["-o", option]
        return [*words, *(["-p", str(self.port)] if self.port else [])]


def access_of(url: str, **known: object) -> GitAccess:
    """Return the access to a repository; user and password in the URL become its own.

    :raises SpecError: for what is no address of a repository.
    """
    text = str(url or "").strip()
    if not text or text.startswith("-") or re.search(r"[\x00-\x1f]", text):
        raise SpecError(
            f"a repository is a URL, git@host:path or the path of a folder, got {strip_credentials(text)!r}"
        )
    if "::" in text.partition("/")[0] or ("://" in text and text.partition("://")[0].lower() not in _PROTOCOLS):
        raise SpecError(
            f"{strip_credentials(text)!r} is none of {', '.join(f'{one}://' for one in _PROTOCOLS)}, git@host:path and "
            "the path of a folder"
        )
    login, password = known.pop("login", None), known.pop("password", None)
    if text.startswith(("http://", "https://")):
        parts = urlsplit(text)
        own, _, secret = parts.netloc.rpartition("@")[0].partition(":")
        text = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        login, password = login or unquote(own) or None, password or unquote(secret) or None
    elif "://" not in text and not re.match(r"[^/]+:", text):
        text = os.path.abspath(os.path.expanduser(text))
    return GitAccess(text, login=login, password=password, **known)  # type: ignore[arg-type]


def has_password(url: str) -> bool:
    """Say whether a URL carries a password, which then stands wherever the URL does."""
    return bool(re.match(r"\w+://[^/@\s]*:[^/@\s]+@", str(url)))


def git(
    access: GitAccess | None, *arguments: str, cwd: Path | None = None, timeout: float = LOOK_TIMEOUT, at: str = ""
) -> str:
    """Run git and return what it writes.

    :param access: whose credentials it needs; None: a call that stays on this machine.
    :raises MissingExtraError: if git is not installed.
    :raises CannotReachError: if the server does not answer in time, or at all.
    :raises CredentialsError: if it refuses the credentials, or asks for some.
    :raises NotFoundError: if there is no such repository.
    """
    own = access or GitAccess(at or str(cwd or "."))
    with own.environment() as environment:
        done = _run(own, ["git", *arguments], cwd, environment, timeout)
    if done.returncode:
        raise _failed(own, arguments, done)
    return done.stdout


def _run(
    access: GitAccess, command: list[str], cwd: Path | None, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise MissingExtraError(
            "git is not installed here, or not on the PATH; install it (apt-get install git) wherever workers and "
            "triggerers run",
            library="git",
        ) from error
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise CannotReachError(f"{access.name} did not answer within {timeout:.0f} s") from None
    finally:
        # Also what git has started, such as ssh, which would hold the pipes.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _failed(access: GitAccess, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> MlopsError:
    lines = [line.strip() for line in strip_credentials(done.stderr).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:", "remote:"))), lines[0] if lines else "")
    text = "\n".join(lines)
    for secret in (access.password, access.passphrase):
        if secret and len(secret) > 3:
            text, said = text.replace(secret, "***"), said.replace(secret, "***")
    if "dubious ownership" in text:
        return SpecError(
            f"{access.name} belongs to another user, and git does not trust it; run as the worker's user: "
            f"git config --global --add safe.directory {shlex.quote(access.url)}"
        )
    if re.search(_REFUSED, text):
        return CredentialsError(
            f"{access.name} refuses the credentials, or asks for some: {said}. Check login, password (a token) or "
            "key of the git connection"
        )
    if re.search("Host key verification failed", text):
        return CredentialsError(
            f"{access.name}: the server's host key is not known, or another than before. Give known_hosts_file in the "
            "extra of the git connection"
        )
    if re.search(_ABSENT, text):
        return NotFoundError(f"{access.name} is not there, or not for this login: {said}")
    if re.search("Could not resolve|unable to access|Connection|timed out|early EOF|unexpected disconnect", text):
        return CannotReachError(f"{access.name} cannot be reached now: {said}")
    return CannotReachError(f"git {arguments[0]} of {access.name} ended with {done.returncode}: {said or 'no word'}")
