"""HAProxy's runtime API: one command over a unix socket, one answer.

The socket lies in the gateway's folder; nothing of it is reachable over a network.
"""

from __future__ import annotations

import csv
import io
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.core.errors import CannotReachError

#: Seconds that the gateway may take to answer.
TIMEOUT = 5.0
#: Seconds for which it may refuse.
MOMENT = 1.0


@dataclass(frozen=True)
class SlotStats:
    """What the gateway knows of one slot. Counters begin at zero when the gateway starts.

    :param status: ``UP``, ``DOWN``, ``MAINT``, ``DRAIN``...
    :param address: where it sends requests to.
    :param sessions: requests that are under way or queued.
    :param requests: answered ones.
    :param errors: answers 5xx, connections that failed and answers that broke off.
    """

    status: str
    weight: int
    address: str
    sessions: int
    requests: int
    errors: int


def call(folder: Path, command: str, name: str = "admin.sock") -> str:
    """Send one command to a socket in the gateway's folder and return the answer.

    :raises CannotReachError: if no gateway answers.
    """
    descriptor = None
    end = time.monotonic() + MOMENT
    try:
        # By the folder's descriptor: the path of a unix socket may have 107 bytes at most.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        while True:
            try:
                return _asked(f"/proc/self/fd/{descriptor}/{name}", command)
            except (ConnectionResetError, BrokenPipeError):
                # The process that took the connection ended, as one does whose successor has a new configuration. All
                # commands may be given twice.
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
    except OSError as error:
        raise CannotReachError(
            f"the gateway in {folder} does not answer ({error.strerror or error}); start it: airflow mlops serve, or "
            "the gateway's container, and make sure that this user may open its admin.sock",
            gateway=str(folder),
        ) from None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _asked(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        _connect(connection, path)
        connection.sendall(command.encode() + b"\n")
        answer = b""
        while block := connection.recv(1 << 16):
            answer += block
    return answer.decode("utf-8", "replace").strip()


def _connect(connection: socket.socket, path: str) -> None:
    """Connect; a gateway that is taking a new configuration refuses for a moment."""
    end = time.monotonic() + MOMENT
    while True:
        try:
            return connection.connect(path)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def stats(folder: Path) -> dict[str, dict[str, SlotStats]]:
    """Return ``{backend: {slot: stats}}``.

    :raises CannotReachError: if no gateway answers.
    """
    # 6: backends (2) and servers (4).
    text = call(folder, "show stat -1 6 -1").removeprefix("# ")
    found: dict[str, dict[str, SlotStats]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        backend = found.setdefault(row["pxname"], {})
        if row["svname"] != "BACKEND":
            number = {
                key: int(row.get(key) or 0) for key in ("weight", "scur", "qcur", "stot", "hrsp_5xx", "econ", "eresp")
            }
            backend[row["svname"]] = SlotStats(
                status=row["status"],
                weight=number["weight"],
                address=row.get("addr") or "",
                sessions=number["scur"] + number["qcur"],
                requests=number["stot"],
                errors=number["hrsp_5xx"] + number["econ"] + number["eresp"],
            )
    return found


def totals(folder: Path, backend: str) -> tuple[int, int, float]:
    """Return what a backend's clients got: answers since the gateway began, those that were 5xx, and when it began.

    Retries are one answer, and one that no server could give is one too.

    :raises CannotReachError: if no gateway answers, or it has no such backend.
    """
    text = call(folder, "show stat -1 2 -1").removeprefix("# ")
    row = next((one for one in csv.DictReader(io.StringIO(text)) if one["pxname"] == backend), None)
    if row is None:
        raise CannotReachError(f"the gateway in {folder} has not taken {backend} into its configuration")
    codes = [int(row.get(f"hrsp_{one}") or 0) for one in ("1xx", "2xx", "3xx", "4xx", "5xx", "other")]
    lines = dict(line.partition(":")[::2] for line in call(folder, "show info").splitlines())
    return sum(codes), codes[4], time.time() - float(lines.get("Uptime_sec") or 0)


def process(folder: Path) -> str:
    """Return the id of the process that answers; it is another one once a new configuration was taken.

    :raises CannotReachError: if no gateway answers.
    """
    lines = call(folder, "show info").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Pid:")), "")
