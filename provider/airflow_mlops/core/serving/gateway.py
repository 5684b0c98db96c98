"""The gateway: HAProxy in front of the model servers, at an address that stays.

A server has two slots, ``blue`` and ``green``. What each of them is stands in ``servers.json`` in the gateway's
folder, and the configuration is rendered from it, before the running gateway is told the same through its runtime
API: a gateway that restarts at any moment comes up with what is wanted. Only a server's first deployment makes the
gateway read its configuration anew, which it does without refusing a connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from airflow_mlops.core.errors import CannotReachError, ConflictError, SpecError
from airflow_mlops.core.serving import admin
from airflow_mlops.core.serving.state import SLOTS

CONFIGURATION = "haproxy.cfg"
#: What clients may ask of a model server; its metrics are for the network behind the gateway.
PATHS = ("/ping", "/health", "/version", "/model", "/invocations")
#: The header by which a request says whose it is: during a canary the same key always meets the same server.
KEY_HEADER = "X-Key"
#: Seconds that a gateway may take to come back, or to read its configuration anew.
AWAY_SECONDS = 30.0


@dataclass(frozen=True)
class Slot:
    """Where requests go.

    :param address: ``host:port``; empty: the slot is not in use.
    :param weight: share of the requests in percent. 0: it gets no new ones, and ends those it has.
    """

    address: str = ""
    weight: int = 0

    @property
    def state(self) -> str:
        """HAProxy's word for it."""
        return "maint" if not self.address else "ready" if self.weight else "drain"


@dataclass(frozen=True)
class Settings:
    """What the configuration holds beside the servers.

    :param bind: HAProxy's ``bind``: ``127.0.0.1:8600``, or ``:8600`` for every address.
    :param timeout: seconds that a model may take to answer.
    :param resolver: address of a name server that knows the model servers, such as Docker's ``127.0.0.11:53``; empty
        where they are given as addresses.
    :param maxconn: most connections at once; 0: as many as the limit of open files allows, which in a container may be
        a billion, with the memory for them.
    :param log: where a line for each request goes, such as ``stdout``; empty: nowhere.
    :param key: the header that says whose a request is.
    """

    bind: str = "127.0.0.1:8600"
    timeout: int = 60
    resolver: str = ""
    maxconn: int = 0
    log: str = ""
    key: str = KEY_HEADER

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", self.key):
            raise SpecError(f"the header of a request's key must be a name such as 'X-User-Id', got {self.key!r}")


class Gateway:
    """The gateway whose files are in a folder.

    :param folder: made if it is missing; it must be on a disk that the gateway sees at any path, and nobody else's.
    :param settings: None: as the folder has them.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Settings | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o770)
        if settings is not None:
            with self._locked(".lock"):
                self._write("settings.json", json.dumps(asdict(settings)))
                self._render()

    @property
    def settings(self) -> Settings:
        """How it listens."""
        try:
            return Settings(**json.loads((self.folder / "settings.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Settings()

    def slots(self) -> dict[str, dict[str, Slot]]:
        """Return what each server's slots shall be."""
        try:
            found = json.loads((self.folder / "servers.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {server: {name: Slot(**one) for name, one in slots.items()} for server, slots in found.items()}

    @contextlib.contextmanager
    def driving(self, server: str) -> Iterator[None]:
        """Hold the right to change a server's slots: of all processes that share the folder one has it at a time.

        :raises ConflictError: if another process has it now.
        """
        with self._locked(f".{server}.lock", wait=False):
            yield

    def apply(self, server: str, slots: Mapping[str, Slot]) -> None:
        """Make a server's slots so: in the configuration, and in the gateway that runs.

        :raises CannotReachError: if no gateway runs; it will do what is wanted when it starts.
        """
        with self._locked(".lock"):
            before = self.slots()
            wanted = {**before, server: {name: slots.get(name, Slot()) for name in SLOTS}}
            if wanted != before:
                known = {name: {key: asdict(one) for key, one in each.items()} for name, each in wanted.items()}
                self._write("servers.json", json.dumps(known, indent=1, sort_keys=True))
            changed = self._render()
            running = admin.stats(self.folder)
            # A name cannot be given to a slot at run time, an address can.
            moved = self.settings.resolver and any(
                slot.address and slot.address != before.get(server, {}).get(name, Slot()).address
                for name, slot in wanted[server].items()
            )
            if moved or changed or backend_of(server) not in running:
                self._reload(server)
                running = admin.stats(self.folder)
            # Who is to get requests first, or there would be a moment with nobody.
            for name, slot in sorted(wanted[server].items(), key=lambda item: -item[1].weight):
                self._tell(f"{backend_of(server)}/{name}", slot, running[backend_of(server)][name])

    def stats(self, server: str) -> dict[str, admin.SlotStats]:
        """Return what the gateway knows of a server's slots.

        :raises CannotReachError: if no gateway runs.
        """
        return admin.stats(self.folder).get(backend_of(server), {})

    def _tell(self, name: str, slot: Slot, now: admin.SlotStats) -> None:
        commands = []
        if slot.address and slot.address != now.address and not self.settings.resolver:
            host, _, port = slot.address.rpartition(":")
            commands += [f"set server {name} state maint", f"set server {name} addr {host} port {port}"]
        commands += [f"set server {name} weight {slot.weight}"] if slot.address else []
        commands += [f"set server {name} state {slot.state}"]
        for command in commands:
            answer = admin.call(self.folder, command)
            # It says nothing, or what it has changed.
            if answer and "changed" not in answer and "no need to change" not in answer:
                raise CannotReachError(f"the gateway in {self.folder} refuses {command!r}: {answer}", command=command)

    def _reload(self, server: str) -> None:
        """Have the gateway read its configuration; connections are handed over."""
        before = admin.process(self.folder)
        admin.call(self.folder, "reload", "master.sock")
        end = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(CannotReachError):
                if admin.process(self.folder) != before and backend_of(server) in admin.stats(self.folder):
                    return
            time.sleep(0.05)
        raise CannotReachError(
            f"the gateway in {self.folder} does not take its configuration; see its log, and check it with: haproxy -c "
            f"-f {self.folder / CONFIGURATION}"
        )

    def _render(self) -> bool:
        """Write the configuration; return whether more of it changed than can be told to a gateway that runs."""
        text, before = render(self.settings, self.slots()), ""
        with contextlib.suppress(FileNotFoundError):
            before = (self.folder / CONFIGURATION).read_text(encoding="utf-8")
        if before != text:
            self._write(CONFIGURATION, text)
        kept = [[line for line in one.splitlines() if not line.startswith("    server ")] for one in (before, text)]
        return kept[0] != kept[1]

    def _write(self, name: str, text: str) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / name)

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[None]:
        with open(self.folder / name, "a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ConflictError(f"another process is deploying at the gateway in {self.folder}") from None
            yield


def backend_of(server: str) -> str:
    """Return the name of a server's backend in the configuration."""
    return f"server_{server}"


def render(settings: Settings, servers: Mapping[str, Mapping[str, Slot]]) -> str:
    """Return HAProxy's configuration. Names of servers are checked where they come in."""
    lines = [
        "# Written by airflow-provider-mlops from the desired state of the model servers; changes here are lost.",
        "global",
        # The paths are relative to the folder, in which the gateway runs.
        "    stats socket unix@admin.sock mode 660 level admin expose-fd listeners",
        "    stats timeout 30s",
        # Or two gateways could listen at one port, and share the requests.
        "    noreuseport",
        "    hard-stop-after 10m",
        *([f"    maxconn {settings.maxconn}"] if settings.maxconn else []),
        *([f"    log {settings.log} format raw local0 info"] if settings.log else []),
        "defaults",
        "    mode http",
        *(["    log global", "    option httplog", "    option dontlognull"] if settings.log else []),
        "    timeout connect 2s",
        "    timeout client 75s",
        "    timeout http-request 30s",
        "    timeout http-keep-alive 30s",
        "    timeout queue 10s",
        "    timeout check 3s",
        f"    timeout server {settings.timeout}s",
        "    retries 3",
        "    option redispatch 1",
        # A model's answer depends on the request alone, so asking again does no harm. What has begun to answer is not
        # asked again, and neither is one that answered 500.
        "    retry-on conn-failure empty-response",
    ]
    if settings.resolver:
        lines += ["resolvers names", f"    nameserver first {settings.resolver}", "    hold valid 5s"]
    lines += [
        "frontend gateway",
        f"    bind {settings.bind}",
        "    http-request set-log-level silent if { path /gateway/health }",
        "    http-request return status 200 content-type text/plain string ok if { path /gateway/health }",
        "    http-request set-var(txn.server) path,field(2,/)",
        # Who says no key is known by the address, as a proxy before us tells it or as we see it. That of a proxy on
        # this machine would be the same for everybody.
        f"    acl keyed req.hdr({settings.key}) -m found",
        "    acl forwarded req.hdr(x-forwarded-for) -m found",
        f"    http-request set-header {settings.key} %[req.hdr(x-forwarded-for,1)] if !keyed forwarded",
        f"    http-request set-header {settings.key} %[src] if !keyed !forwarded !{{ src 127.0.0.0/8 ::1 }}",
    ]
    lines += [f"    use_backend {backend_of(name)} if {{ var(txn.server) -m str {name} }}" for name in sorted(servers)]
    lines += [
        "    default_backend nothing",
        "backend nothing",
        "    http-request return status 404 content-type text/plain string 'no such model server'",
    ]
    for server in sorted(servers):
        lines += [
            f"backend {backend_of(server)}",
            # The same key meets the same server, and a share that grows only takes keys over. Without one: in turn.
            f"    balance hdr({settings.key})",
            "    hash-type consistent sdbm avalanche",
            f"    http-request replace-path /{server}(/.*) \\1",
            f"    http-request return status 404 unless {{ path {' '.join(PATHS)} }}",
            "    option httpchk GET /ping",
        ]
        for name in SLOTS:
            slot = servers[server].get(name, Slot())
            address = slot.address or "127.0.0.1:1"
            by_name = " resolvers names init-addr none" if settings.resolver else ""
            disabled = "" if slot.address else " disabled"
            lines.append(
                f"    server {name} {address} weight {slot.weight} check inter 1s fall 3 rise 1{by_name}{disabled}"
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Make a gateway's folder, so that HAProxy can start in it: ``FOLDER [--bind ...] [--resolver ...] ...``."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m airflow_mlops.core.serving.gateway", description=main.__doc__)
    parser.add_argument("folder", help="the gateway's folder; what is deployed already stays")
    parser.add_argument("--bind", default=Settings.bind, help=f"HAProxy's bind (default: {Settings.bind})")
    parser.add_argument("--timeout", type=int, default=Settings.timeout, help="seconds that a model may take")
    parser.add_argument("--resolver", default="", help="name server that knows the models, such as 127.0.0.11:53")
    parser.add_argument("--maxconn", type=int, default=0, help="most connections at once (default: the system's limit)")
    parser.add_argument(
        "--key", default=KEY_HEADER, help=f"header that says whose a request is (default: {KEY_HEADER})"
    )
    parser.add_argument(
        "--log", default="", help="where a line for each request goes, such as stdout (default: nowhere)"
    )
    given = vars(parser.parse_args(arguments))
    Gateway(given.pop("folder"), Settings(**given))


if __name__ == "__main__":
    main()
