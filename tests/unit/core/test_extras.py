"""A library that is missing is named with the command that brings it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_mlops.core.errors import MissingExtraError
from airflow_mlops.core.extras import EXTRA_OF, require, silence_telemetry

SWITCHES = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "GX_ANALYTICS_ENABLED")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without GX and docker."""

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name.partition(".")[0] in ("great_expectations", "docker"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] in ("great_expectations", "docker")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])


@pytest.mark.usefixtures("absent")
def test_the_error_has_the_pip_command() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("great_expectations.core", "validate_data")
    assert str(caught.value) == (
        "validate_data needs the library 'great_expectations', which is not installed here; "
        "run: pip install 'airflow-provider-mlops[great-expectations]'"
    )
    assert caught.value.fields == {
        "library": "great_expectations",
        "extra": "great-expectations",
        "purpose": "validate_data",
    }
    assert not caught.value.retryable


def test_a_library_in_no_extra_is_named_itself() -> None:
    with pytest.raises(MissingExtraError, match=r"run: pip install nowhere_to_be_found$"):
        require("nowhere_to_be_found.part", "x")


def test_a_library_that_is_there_but_broken_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_there.py").write_text("import a_dependency_of_it")
    with pytest.raises(MissingExtraError, match=r"does not import \(No module named 'a_dependency_of_it'\)"):
        require("half_there", "x")


def test_what_is_there_is_returned() -> None:
    assert require("json", "x").loads("1") == 1


def test_every_extra_that_is_named_exists() -> None:
    import importlib.metadata

    known = importlib.metadata.metadata("airflow-provider-mlops").get_all("Provides-Extra") or []
    assert set(EXTRA_OF.values()) <= set(known)


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is said about telemetry."""
    for name in (*SWITCHES, "CI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_telemetry_is_off_by_default(switches: pytest.MonkeyPatch) -> None:
    import os

    silence_telemetry()
    assert {name: os.environ[name] for name in SWITCHES} == {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }
    from mlflow.telemetry import utils

    switches.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)
    assert utils.is_telemetry_disabled()


def test_what_the_user_set_stays_set_and_has_its_effect(switches: pytest.MonkeyPatch) -> None:
    import os

    switches.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    switches.setenv("GX_ANALYTICS_ENABLED", "true")
    silence_telemetry()
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["GX_ANALYTICS_ENABLED"]) == ("false", "true")
    from mlflow.telemetry import utils

    switches.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)
    assert not utils.is_telemetry_disabled(), "MLflow would take DO_NOT_TRACK=true for its own switch"
    assert os.environ["DO_NOT_TRACK"] == "1"
