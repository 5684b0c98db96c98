"""What users write as expectations, checked before any data is read.

Great Expectations' own JSON, as a list, a suite, a file or a function that makes one. A typo in it is found here, and
the message names the expectation, what is wrong with it, and the nearest thing that would be right.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.imports import load
from airflow_mlops.core.validation.column_types import check_name
from airflow_mlops.core.validation.library import great_expectations, quiet

Grade = Literal["error", "warning", "info"]

#: Great Expectations' severity -> what a failure counts as.
GRADES: dict[str, Grade] = {"critical": "error", "warning": "warning", "info": "info"}
#: Keys of an expectation; all but the first four are read past.
_KEYS = ["type", "kwargs", "severity", "meta", "expectation_type", "id", "notes", "description"]
_KEYS += ["rendered_content", "expectation_context", "success_on_last_run"]
#: Fields of Great Expectations' classes that are no arguments of the expectation.
_INTERNAL = {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content"}
_INTERNAL |= {"severity", "windows", "batch_id", "library_metadata"}
TYPE_EXPECTATIONS = {
    "expect_column_values_to_be_of_type": "type_",
    "expect_column_values_to_be_in_type_list": "type_list",
    "expect_column_type_to_be": "type_",
}
_FORMS = (
    "a list of {'type', 'kwargs'}, the path of a .json, .yaml or .yml file with such a list, or a function that "
    "returns one (or its 'package.module:function')"
)


@dataclass(frozen=True)
class Expectation:
    """One expectation that is known to be well formed.

    :param type: Great Expectations' name of it: ``expect_column_values_to_not_be_null``.
    :param kwargs: its arguments.
    :param grade: what a failure counts as.
    """

    type: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    grade: Grade = "error"

    @property
    def columns(self) -> list[str]:
        """The columns that it cannot do without."""
        if self.type == "expect_column_to_exist" or self.type.startswith("expect_table_"):
            return []
        named = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        listed = self.kwargs.get("column_list")
        return [str(c) for c in [*named, *(listed if isinstance(listed, (list, tuple)) else [])] if c is not None]

    @property
    def subject(self) -> str | None:
        """What it speaks of, for reports: a column, several, or None for the whole table."""
        if self.type == "expect_column_to_exist":
            return str(self.kwargs.get("column"))
        return ", ".join(self.columns) or None

    def built(self, kwargs: dict[str, Any] | None = None, number: int = 0) -> Any:
        """Return a new object of Great Expectations' class; one may not be used in two suites.

        :param kwargs: other arguments than its own.
        :param number: kept in its ``meta``, to tell its result from others'.
        """
        with quiet():
            return _class_of(self.type)(**(self.kwargs if kwargs is None else kwargs), meta={"number": number})


def read_expectations(value: Any) -> list[Expectation]:
    """Return the expectations in any of the forms that users write.

    :param value: see :data:`_FORMS`; also a suite as a dict with ``expectations``, and Great Expectations' objects.
    :raises SpecError: for a file that is not there or cannot be read, an empty list, an unknown type, argument or
        severity, with the nearest that is known.
    """
    great_expectations()
    where = ""
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        if _is_path(text):
            where = f" in {os.path.basename(text)}"
            value = _read_file(text)
        else:
            value = _call(load(text, "expectations"), text)
    elif callable(value):
        value = _call(value, getattr(value, "__qualname__", "the function"))
    if isinstance(value, dict):
        if "expectations" not in value:
            raise SpecError(f"expectations{where}: a dict must be a suite with a key 'expectations'", got=sorted(value))
        value = value["expectations"]
    elif hasattr(value, "expectation_configurations"):
        value = value.expectation_configurations
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"expectations{where} must be {_FORMS}; got a {type(value).__name__}")
    if not value:
        raise SpecError(f"there is no expectation{where}: a validation that checks nothing passes everything")
    return [_checked(entry, f"expectation {number}{where}") for number, entry in enumerate(value, 1)]


def _call(function: Callable[..., Any], name: str) -> Any:
    try:
        return function()
    except TypeError as error:
        raise SpecError(f"expectations: {name} must be callable without arguments ({error})") from error


def _is_path(text: str) -> bool:
    if text.startswith("file://") or text.lower().endswith((".json", ".yaml", ".yml")):
        return True
    if ":" in text and not os.path.exists(text):
        return False
    raise SpecError(f"expectations must be {_FORMS}; got {text!r}")


def _read_file(text: str) -> Any:
    path = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(
            f"there is no file of expectations at {path}{did_you_mean(path.name, _names_beside(path))}", path=str(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the file of expectations {path} cannot be read: {error}", path=str(path)) from error
    try:
        if path.suffix.lower() == ".json":
            return json.loads(content)
        return require("yaml", "a YAML file of expectations").safe_load(content)
    except SpecError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__module__.partition(".")[0] == "yaml":
            what = " ".join(str(error).split())
            raise SpecError(f"the file of expectations {path} is not valid: {what}", path=str(path)) from error
        raise


def _names_beside(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []


def _checked(entry: Any, where: str) -> Expectation:
    """Return one expectation, or say what is wrong with it."""
    if hasattr(entry, "configuration"):
        entry = entry.configuration
    if hasattr(entry, "to_json_dict"):
        entry = entry.to_json_dict()
    if not isinstance(entry, dict):
        raise SpecError(f"{where} must be a dict with 'type' and 'kwargs', got a {type(entry).__name__}")
    for key in entry:
        if key not in _KEYS:
            raise SpecError(f"{where} has an unknown key {key!r}{did_you_mean(str(key), _KEYS)}")
    name = entry.get("type") or entry.get("expectation_type")
    if not isinstance(name, str):
        raise SpecError(f"{where} has no 'type', like 'expect_column_values_to_not_be_null'")
    cls = _class_of(name, where)
    where = f"{where}, {name}"
    kwargs = entry.get("kwargs")
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, dict):
        raise SpecError(f"{where}: 'kwargs' must be a dict, got a {type(kwargs).__name__}")
    kwargs = {key: value for key, value in kwargs.items() if key not in ("batch_id", "result_format")}
    _check_kwargs(cls, kwargs, where)
    _check_values(name, kwargs, where)
    expectation = Expectation(name, kwargs, _grade_of(entry.get("severity"), where))
    try:
        expectation.built()
    except Exception as error:
        raise SpecError(f"{where}: {_explained(error)}") from error
    return expectation


def _class_of(name: str, where: str = "an expectation") -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        return get_expectation_impl(name)
    except ExpectationNotFoundError as error:
        near = did_you_mean(name, list_registered_expectation_implementations())
        raise SpecError(f"{where}: Great Expectations has no {name!r}{near}", expectation=name) from error


def _grade_of(value: Any, where: str) -> Grade:
    text = str(getattr(value, "value", value) or "critical").lower()
    if text not in GRADES:
        raise SpecError(f"{where}: severity {value!r} is none of {', '.join(GRADES)}{did_you_mean(text, GRADES)}")
    return GRADES[text]


def _check_kwargs(cls: Any, kwargs: dict[str, Any], where: str) -> None:
    known = [name for name in cls.__fields__ if name not in _INTERNAL]
    for key in kwargs:
        if key not in known:
            raise SpecError(
                f"{where} has no argument {key!r}{did_you_mean(str(key), known)}; it takes {', '.join(known)}"
            )
    missing = [name for name in known if cls.__fields__[name].required and name not in kwargs]
    if missing:
        raise SpecError(f"{where} lacks {', '.join(repr(name) for name in missing)}")


def _check_values(name: str, kwargs: dict[str, Any], where: str) -> None:
    """Find what Great Expectations would only stumble over when it has the data."""
    for key, value in kwargs.items():
        if isinstance(value, dict) and any(str(k).startswith("$PARAMETER") for k in value):
            raise SpecError(f"{where}: {key} is a $PARAMETER, which has no value here; template the argument instead")
        if key in ("regex", "regex_list"):
            for pattern in [value] if isinstance(value, str) else value or []:
                try:
                    re.compile(pattern)
                except (re.error, TypeError) as error:
                    raise SpecError(f"{where}: {pattern!r} is not a regular expression: {error}") from error
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    try:
        crossed = low is not None and high is not None and low > high
    except TypeError:
        crossed = False
    if crossed:
        raise SpecError(f"{where}: min_value {low!r} is above max_value {high!r}: nothing could pass")
    if name in TYPE_EXPECTATIONS and (wanted := kwargs.get(TYPE_EXPECTATIONS[name])) is not None:
        for one in [wanted] if isinstance(wanted, str) else wanted:
            try:
                check_name(one)
            except SpecError as error:
                raise SpecError(f"{where}: {error.message}") from error


def _explained(error: Exception) -> str:
    """Return what is wrong with the arguments, one clause for each, without the validator's own jargon."""
    if not hasattr(error, "errors"):
        return str(error)
    found: dict[str, str] = {}
    for each in error.errors():
        found.setdefault(str(each["loc"][0]), each["msg"])
    return "; ".join(message if key == "__root__" else f"{key}: {message}" for key, message in found.items())
