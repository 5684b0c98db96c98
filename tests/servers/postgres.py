"""A Postgres of the tests' own: made, started and stopped here, on a free port of this machine."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "warehouse", "s3cr:t/p@ss"


@dataclass
class Postgres:
    """One server with the database ``warehouse``.

    :param folder: its data, socket and log.
    """

    folder: Path
    binaries: Path
    port: int
    process: Any = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, with the password."""
        import sqlalchemy as sa

        return sa.URL.create(
            "postgresql+psycopg2", USER, PASSWORD, "127.0.0.1", self.port, "warehouse"
        ).render_as_string(hide_password=False)

    @property
    def airflow_uri(self) -> str:
        """What stands in ``AIRFLOW_CONN_WAREHOUSE``."""
        return self.url.replace("postgresql+psycopg2", "postgres")

    def execute(self, *statements: str) -> list[Any]:
        """Run statements and commit; the rows of the last one."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="warehouse"
        )
        rows: list[Any] = []
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                **_as_postgres(),
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Postgres did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an administrator does who does not wait for clients (``pg_ctl stop -m fast``)."""
        import signal

        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def restart(self) -> None:
        """Stop and start; every connection is cut."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        ready = subprocess.run(
            [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        )
        return ready.returncode == 0


def _as_postgres() -> dict[str, Any]:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}


def start_postgres() -> Postgres:
    """Make a cluster in a temporary folder and start it.

    :raises FileNotFoundError: if Postgres is not installed.
    """
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    on_path = shutil.which("postgres")
    if not found and not on_path:
        raise FileNotFoundError("Postgres is not installed: apt-get install postgresql")
    binaries = Path(found[-1]) if found else Path(str(on_path)).parent
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    subprocess.run(
        [
            *(binaries / "initdb", "-D", folder / "data", "-U", USER, "-E", "UTF8", "--locale=C"),
            *("--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        **_as_postgres(),
    )
    settings = {
        "listen_addresses": "'127.0.0.1'",
        "unix_socket_directories": f"'{folder}'",
        "fsync": "off",
        "max_connections": "30",
        "shared_buffers": "64MB",
        "timezone": "'UTC'",
    }
    with open(folder / "data" / "postgresql.conf", "a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Postgres(folder, binaries, port)
    server.start()
    import sqlalchemy as sa

    engine = sa.create_engine(sa.make_url(server.url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("create database warehouse")
    engine.dispose()
    return server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running Postgres; tests make their tables in schemas of their own."""
    try:
        server = start_postgres()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        with suppress(Exception):
            server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
