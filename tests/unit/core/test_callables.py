"""Callables on their way to another process: by import, or by the source of a decorated function."""

from __future__ import annotations

import functools
import inspect
import json
import linecache
from typing import Any

import pytest

from airflow_mlops.core.callables import portable, revive
from airflow_mlops.core.errors import SpecError

LIMIT = 3


def decorate(**_: Any) -> Any:
    def wrap(function: Any) -> Any:
        @functools.wraps(function)
        def called(*args: Any) -> Any:
            return function(*args)

        return called

    return wrap


@decorate(
    retries=3,
    limit=LIMIT,
)
def alone(X: pandas.DataFrame, y: Any = 4) -> Any:  # type: ignore[name-defined] # noqa: F821
    """A self-contained function."""
    import math

    class Inner:
        factor = 2

        def times(self, value: int) -> int:
            return value * self.factor

    def more(value: int) -> int:
        return Inner().times(value) + len(str(value))

    return [more(one) + math.floor(y) for one in X]


def uses_the_module(X: Any) -> Any:
    return X + LIMIT


def default_of_the_module(X: Any, limit: int = LIMIT) -> Any:
    return X + limit


def calls_itself(n: int) -> int:
    return n and n + calls_itself(n - 1)


def sent(value: Any, *ship: Any) -> Any:
    """Return what arrives of a value in another process."""
    return revive(json.loads(json.dumps(portable(value, ship))))


def test_an_importable_function_arrives_as_itself() -> None:
    assert sent({"a": [{"b": json.dumps}]}) == {"a": [{"b": json.dumps}]}


def test_a_partial_arrives_with_what_it_has_bound() -> None:
    found = sent({"test": functools.partial(json.dumps, indent=2)})["test"]
    assert found({"a": 1}) == json.dumps({"a": 1}, indent=2)


def test_a_decorated_function_arrives_by_its_source_with_its_name_and_lines() -> None:
    found = sent({"trainer": alone}, alone)["trainer"]
    inner = inspect.unwrap(alone)
    assert found([1, 22]) == inner([1, 22]) == [7, 50]
    assert (found.__qualname__, found.__module__, found.__doc__) == (inner.__qualname__, __name__, inner.__doc__)
    assert inspect.getsource(found).startswith("def alone(")
    # A traceback points to the line in the user's file.
    assert found.__code__.co_filename == __file__
    line = found.__code__.co_firstlineno
    assert inspect.getsourcelines(inner)[0][line - inner.__code__.co_firstlineno].startswith("def alone(")


def test_the_sources_of_two_functions_whose_file_is_not_here() -> None:
    parts = [portable(one, [one]) | {"file": "/not/here.py"} for one in (alone, calls_itself)]
    for part, made in [(part, revive(part)) for part in parts]:
        assert made.__code__.co_filename == "/not/here.py"
        assert inspect.getsource(made) == part["source"]


def test_a_function_that_arrives_leaves_the_lines_of_a_file_that_is_here() -> None:
    before = linecache.getlines(__file__)
    sent([alone, calls_itself], alone, calls_itself)
    assert linecache.getlines(__file__) == before


def test_a_bound_decorated_function_keeps_its_name() -> None:
    partial = functools.update_wrapper(functools.partial(alone, y=1), alone)
    found = sent({"f": partial}, alone)["f"]
    assert found([1]) == [4]
    assert found.__name__ == "alone"


def test_a_function_that_calls_itself_may_be_shipped() -> None:
    assert sent(calls_itself, calls_itself)(3) == 6


@pytest.mark.parametrize("function", [uses_the_module, default_of_the_module])
def test_one_that_needs_its_file_is_refused_with_what_it_needs(function: Any) -> None:
    with pytest.raises(SpecError, match=r"uses LIMIT from outside itself.*import and define inside the function"):
        portable(function, [function])


def test_one_that_needs_the_function_around_it_is_refused() -> None:
    factor = 2

    def closed(X: Any) -> Any:
        return X * factor

    with pytest.raises(SpecError, match=r"uses factor from outside"):
        portable(closed, [closed])


def test_what_is_not_shipped_must_be_importable() -> None:
    class Scorer:
        def __call__(self) -> int:
            return 1

    def local() -> int:
        return 1

    for one in (local, Scorer(), lambda: 1):
        with pytest.raises(SpecError, match="cannot be imported by another process"):
            portable({"metric": one})


def test_a_function_that_is_not_there_is_named_with_its_argument() -> None:
    with pytest.raises(SpecError, match=r"trainer 'nowhere_at_all:train': there is no module 'nowhere_at_all'"):
        revive({"trainer": {"callable": "nowhere_at_all:train"}})
