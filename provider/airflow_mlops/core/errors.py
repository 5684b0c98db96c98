"""Every error that the core raises on purpose, with structured fields.

The core never lets a bare library traceback reach the user: what can go wrong in a known way has a class here, a
message that names cause and cure, and fields that a caller can read. Airflow's view of the same errors (which are
retried, which are not) is in :mod:`airflow_mlops.exceptions`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

__all__ = [
    "CannotReachError",
    "ConflictError",
    "CorruptDataError",
    "CrashedError",
    "CredentialsError",
    "EmptyDataError",
    "GateFailedError",
    "IntegrityError",
    "MissingColumnError",
    "MissingExtraError",
    "MissingSourceError",
    "MixedSchemaError",
    "MlopsError",
    "NotFoundError",
    "SourceChangedError",
    "SpecError",
    "StoppedError",
    "SupersededError",
    "UnsupportedError",
    "did_you_mean",
    "from_dict",
]


class MlopsError(Exception):
    """A failure of known cause.

    :param message: what went wrong and what to do about it, in one or two sentences.
    :param fields: the facts behind the message, JSON values only; never a credential or a data value.
    """

    #: Whether the same call may succeed later with nothing changed by a person.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON: ``type``, ``message``, ``retryable`` and ``fields``."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "retryable": self.retryable,
            "fields": self.fields,
        }


def _rebuild(cls: type[MlopsError], message: str, fields: dict[str, Any]) -> MlopsError:
    return cls(message, **fields)


class SpecError(MlopsError):
    """An argument has a value that no run could use."""


class MissingExtraError(MlopsError):
    """A library that the step needs is not installed."""


class NotFoundError(MlopsError):
    """A named thing (model, version, alias, object) does not exist."""


class MissingSourceError(MlopsError):
    """No file matches a path or glob."""


class EmptyDataError(MlopsError):
    """The data has no rows, or none that can be used."""


class MissingColumnError(MlopsError):
    """A column that was asked for is not in the data."""


class MixedSchemaError(MlopsError):
    """The files of one source do not have the same columns and types."""


class CorruptDataError(MlopsError):
    """A file cannot be read as what it claims to be."""


class SourceChangedError(MlopsError):
    """The source was written to while it was being read."""

    retryable = True


class UnsupportedError(MlopsError):
    """A type, format or flavour that this version does not handle."""


class IntegrityError(MlopsError):
    """Stored bytes do not have the digest on record."""


class ConflictError(MlopsError):
    """Somebody else changed the thing first."""


class SupersededError(ConflictError):
    """A later ledger entry stands; this older one must not be applied again."""


class GateFailedError(MlopsError):
    """A gate measured, reported, and said no."""


class CannotReachError(MlopsError):
    """A server does not answer, or answers that it cannot serve now."""

    retryable = True


class StoppedError(MlopsError):
    """A process of the step was ended from outside before it was done."""

    retryable = True


class CrashedError(MlopsError):
    """A process of the step ended as no step should: by an error of an unknown kind, or without a word."""

    retryable = True


class CredentialsError(MlopsError):
    """A server refuses the credentials."""


def from_dict(error: Mapping[str, Any]) -> MlopsError:
    """Return the error that another process wrote by :meth:`MlopsError.to_dict`.

    One of a class that this process does not know, such as a crash in a library, is a :class:`CrashedError`.
    """
    name, message = str(error.get("type") or ""), str(error.get("message") or "")
    fields = {str(key): value for key, value in (error.get("fields") or {}).items() if key != "message"}
    waiting: list[type[MlopsError]] = [MlopsError]
    while waiting:
        known = waiting.pop()
        if known.__name__ == name:
            return known(message, **fields)
        waiting += known.__subclasses__()
    return CrashedError(message or f"the step failed with {name or 'an error that it did not name'}", **fields)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(one) for one in known], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
