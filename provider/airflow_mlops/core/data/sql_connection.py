"""Databases: an engine from ``MLOPS_SQL_URL``, and reading in one read-only transaction that sees one instant."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from airflow_mlops.core.data.sql_errors import database_errors
from airflow_mlops.core.errors import MissingExtraError, MissingSourceError, SpecError
from airflow_mlops.core.extras import require

if TYPE_CHECKING:
    import sqlalchemy

#: Environment variable with the SQLAlchemy URL of the database, password included.
VARIABLE = "MLOPS_SQL_URL"
_POSTGRES_DRIVERS = ("psycopg2", "psycopg")
#: Seconds that a server may take to answer a connection.
CONNECT_SECONDS = 15


@dataclass(frozen=True)
class Database:
    """A database that can be read.

    :param where: its URL without user, password and options, for messages and refs.
    :param secrets: what must not show anywhere.
    """

    engine: sqlalchemy.Engine
    where: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of it: ``postgresql``, ``sqlite``, ..."""
        return self.engine.dialect.name

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the database says into errors of ours."""
        with database_errors(self.where, self.secrets):
            yield

    @contextmanager
    def reading(self) -> Iterator[sqlalchemy.Connection]:
        """Give a connection in one transaction, rolled back at the end.

        On Postgres it is read only and sees the data as they were at one instant; SQLite and MySQL likewise see one
        instant. Elsewhere it is what the database does by default.
        """
        options: dict[str, Any] = {}
        if self.dialect in ("postgresql", "mysql"):
            options["isolation_level"] = "REPEATABLE READ"
        if self.dialect == "postgresql":
            options["postgresql_readonly"] = True
        with self.errors():
            connection = self.engine.connect().execution_options(**options)
        try:
            if self.dialect == "sqlite":
                with self.errors():
                    connection.exec_driver_sql("BEGIN")
            with self.errors():
                yield connection
        finally:
            # A connection that is lost cannot be rolled back, and need not be.
            try:
                connection.close()
            except Exception:
                connection.invalidate()


def open_database(conn_id: str | None = None, url: str | None = None) -> Database:
    """Return the database that ``MLOPS_SQL_URL`` names. No connection is made yet.

    :param conn_id: what the user calls it, for the message.
    :param url: the URL, where one process reads several databases and no variable can hold them all.
    :raises SpecError: if the variable is not set, or holds no URL.
    :raises MissingExtraError: if SQLAlchemy or the database's driver is not installed.
    """
    sa = require("sqlalchemy", "reading from a database")
    text = (url or os.environ.get(VARIABLE, "")).strip()
    if not text:
        raise SpecError(
            f"no database is known{f' for the connection {conn_id!r}' if conn_id else ''}: give conn_id, or outside "
            f"Airflow set the environment variable {VARIABLE} to a SQLAlchemy URL"
        )
    try:
        address = _with_driver(sa.engine.make_url(text))
        engine = sa.create_engine(
            address, poolclass=sa.pool.NullPool, hide_parameters=True, connect_args=_connect_args(address)
        )
    except sa.exc.NoSuchModuleError as error:
        scheme = text.partition(":")[0]
        raise MissingExtraError(
            f"SQLAlchemy has no dialect for {scheme!r} here; install the package that brings it", library=scheme
        ) from error
    except sa.exc.ArgumentError as error:
        raise SpecError(f"{VARIABLE} is no SQLAlchemy URL, like postgresql://user:password@host/database") from error
    except ImportError as error:
        driver = str(error.name or "").partition(".")[0] or "the driver"
        package = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"}.get(driver, driver)
        raise MissingExtraError(
            f"reading from {address.get_backend_name()} needs the driver {driver!r}, which is not installed here; run: "
            f"pip install '{package}'",
            library=driver,
        ) from error
    if address.get_backend_name() == "sqlite":
        _check_sqlite(address)
        sa.event.listen(engine, "connect", _sqlite_read_only)
    return Database(engine, safe_url(address), _secrets_of(address))


def safe_url(url: Any) -> str:
    """Return a URL as ``postgresql://host:5432/database``: no user, no password, no options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database or ''}"
    host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.get_backend_name()}://{host}/{quote(url.database or '')}"


def _secrets_of(url: Any) -> tuple[str, ...]:
    known = [str(url.password)] if url.password else []
    known += [str(v) for k, v in url.query.items() if "pass" in k.lower() or "token" in k.lower()]
    return tuple({form for one in known for form in (one, quote_plus(one), quote(one, safe=""))})


def _with_driver(url: Any) -> Any:
    """Return the URL with a Postgres driver that is there.

    The one that it names is the worker's, and another interpreter or an image may have the other one.
    """
    scheme, _, named = url.drivername.partition("+")
    if scheme not in ("postgres", "postgresql") or named not in ("", *_POSTGRES_DRIVERS):
        return url
    wanted = [named, *_POSTGRES_DRIVERS] if named else list(_POSTGRES_DRIVERS)
    driver = next((one for one in wanted if importlib.util.find_spec(one)), wanted[0])
    return url.set(drivername=f"postgresql+{driver}")


def _connect_args(url: Any) -> dict[str, Any]:
    if url.drivername not in ("postgresql+psycopg2", "postgresql+psycopg"):
        return {}
    # A server that is gone without a word is noticed after two minutes, not two hours.
    args = {"connect_timeout": CONNECT_SECONDS, "keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}
    return {key: value for key, value in args.items() if key not in url.query}


def _check_sqlite(url: Any) -> None:
    """SQLite makes a database that is not there, empty."""
    if not url.database or url.database == ":memory:" or not os.path.isfile(url.database):
        raise MissingSourceError(f"there is no SQLite database at {url.database!r}: give an absolute path to its file")


def _sqlite_read_only(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA query_only = ON")
