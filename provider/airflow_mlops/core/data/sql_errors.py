"""What a database says went wrong, as an error of ours: without credentials, without values of the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    MissingColumnError,
    MlopsError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)

#: Beginnings of SQLSTATE -> the error; the longest that fits counts.
_STATES: dict[str, type[MlopsError]] = {
    "08": CannotReachError,  # connection
    "28": CredentialsError,  # authorisation
    "42501": CredentialsError,  # insufficient privilege
    "3D": NotFoundError,  # no such database
    "40": CannotReachError,  # serialisation failure, deadlock, conflict with recovery
    "53": CannotReachError,  # out of connections, memory, disk
    "55P03": CannotReachError,  # lock not available
    "57": CannotReachError,  # shut down, cancelled
    "58": CannotReachError,  # I/O error of the server
    "42P01": NotFoundError,  # no such table
    "3F": NotFoundError,  # no such schema
    "42703": MissingColumnError,
}
#: What the messages of drivers without a SQLSTATE begin or go with, in lower case.
_WORDS: tuple[tuple[str, type[MlopsError]], ...] = (
    ("password authentication failed", CredentialsError),
    ("no password supplied", CredentialsError),
    ("pg_hba.conf", CredentialsError),
    ("access denied", CredentialsError),
    ("does not exist", NotFoundError),
    ("no such table", NotFoundError),
    ("no such column", MissingColumnError),
    ("unable to open database", NotFoundError),
    ("readonly database", SpecError),
    ("locked", CannotReachError),
    ("server closed the connection", CannotReachError),
    ("terminating connection", CannotReachError),
    ("connection", CannotReachError),
    ("timeout", CannotReachError),
    ("timed out", CannotReachError),
    ("disk i/o error", CannotReachError),
)
_CURES: dict[type[MlopsError], str] = {
    CredentialsError: "check the connection's login and password, and that this user may read what the query names",
    NotFoundError: "check the name, its schema, and that the connection is to the right database",
    CannotReachError: "nothing was published; the task is retried",
    SpecError: "the statement must be one query (select, with, values) that this database takes",
    MissingColumnError: "check the query against the table as it is now",
    UnsupportedError: "convert the value in the query",
}


def translated(error: BaseException, where: str, secrets: tuple[str, ...] = ()) -> MlopsError:
    """Return the error of ours for an exception of SQLAlchemy or a driver.

    :param where: the database, without credentials.
    :param secrets: texts that must not show.
    """
    original = getattr(error, "orig", None) or error
    lost = bool(getattr(error, "connection_invalidated", False))
    kind = CannotReachError if lost else _kind(error, original)
    message = first_line(original, secrets)
    verb = "cannot be reached" if kind is CannotReachError else "refuses"
    return kind(f"{where} {verb}: {message}; {_CURES.get(kind, _CURES[SpecError])}", database=where)


def _kind(error: BaseException, original: BaseException) -> type[MlopsError]:
    state = sqlstate(original)
    for length in (5, 2):
        if state[:length] in _STATES:
            return _STATES[state[:length]]
    if state[:2] == "22":  # a value that does not fit
        return UnsupportedError
    if not state:
        text = str(original).lower()
        for words, kind in _WORDS:
            if words in text:
                return kind
        name = type(error).__name__
        if name in ("OperationalError", "InterfaceError") and "sqlite3" not in type(original).__module__:
            return CannotReachError
    return SpecError


def sqlstate(error: BaseException) -> str:
    """Return a driver exception's SQLSTATE, or an empty text."""
    for name in ("sqlstate", "pgcode"):
        value = getattr(error, name, None)
        if isinstance(value, str):
            return value
    return ""


def first_line(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """Return the first line of a driver's message, without secrets; of a data exception without the value."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".;") if lines else type(error).__name__
    # 22 is a value that does not fit, 23 a constraint; both quote it.
    if sqlstate(error)[:2] in ("22", "23"):
        text = re.sub(r""":? *["'].*["']""", "", text)
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


@contextmanager
def database_errors(where: str, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise into errors of ours."""
    import sqlalchemy.exc

    try:
        yield
    except MlopsError:
        raise
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise translated(error, where, secrets) from None
    except Exception as error:
        if is_of_driver(error):
            # While rows are fetched some drivers' errors come as they are.
            raise translated(error, where, secrets) from None
        raise


def is_of_driver(error: BaseException) -> bool:
    """Return whether an exception is one that PEP 249 has a driver raise."""
    return not {"DatabaseError", "InterfaceError"}.isdisjoint(cls.__name__ for cls in type(error).__mro__)
