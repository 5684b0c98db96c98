"""What holds for every operator of the package, found by walking it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator

import airflow_mlops
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator

#: Where one of several arguments must be given: one of them.
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "SnapshotDataOperator": {"source": "x"},
    "ValidateDataOperator": {"dataset": "x"},
    "TrainModelOperator": {"trainer": "x"},
    "EvaluateModelOperator": {"model": "x"},
}
#: Arguments that Airflow fills in by itself, or that are no values but things: never templated.
NOT_TEMPLATED = {"outlet", "python_callable", "op_args", "op_kwargs"}


def _operators() -> list[type[MlopsOperator]]:
    for module in pkgutil.walk_packages(airflow_mlops.__path__, "airflow_mlops."):
        if module.name.startswith(("airflow_mlops.operators", "airflow_mlops.decorators", "airflow_mlops.sensors")):
            importlib.import_module(module.name)
    found: list[type[MlopsOperator]] = []
    todo = [MlopsOperator]
    while todo:
        one = todo.pop()
        todo += one.__subclasses__()
        if hasattr(one, "step") and one.__module__.startswith("airflow_mlops."):
            found.append(one)
    return sorted(set(found), key=lambda one: one.__name__)


OPERATORS = _operators()
PLAIN = [one for one in OPERATORS if not one.__module__.startswith("airflow_mlops.decorators")]


def own_arguments(operator: type[MlopsOperator]) -> dict[str, inspect.Parameter]:
    """Return the arguments that this package's classes take."""
    found: dict[str, inspect.Parameter] = {}
    for one in operator.__mro__:
        if one.__module__.startswith("airflow_mlops.") and "__init__" in vars(one):
            signature = inspect.signature(inspect.unwrap(vars(one)["__init__"]))
            found = {**{k: v for k, v in signature.parameters.items() if k not in ("self", "kwargs")}, **found}
    return found


def make(operator: type[MlopsOperator], **more: Any) -> MlopsOperator:
    """Make one with something for each argument that it must have."""
    needed = {name: "x" for name, one in own_arguments(operator).items() if one.default is one.empty}
    needed |= ALTERNATIVES.get(operator.__name__, {})
    return operator(task_id="t", **{**needed, **more})


def test_the_operators_of_level_1_are_found() -> None:
    assert {one.__name__ for one in PLAIN} >= {
        "SnapshotDataOperator",
        "ValidateDataOperator",
        "TrainModelOperator",
        "EvaluateModelOperator",
        "RegisterModelOperator",
        "PromoteModelOperator",
    }


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_what_a_user_may_want_to_template_is_templated(operator: type[MlopsOperator]) -> None:
    assert isinstance(operator.template_fields, tuple)
    assert len(set(operator.template_fields)) == len(operator.template_fields)
    assert set(BACKEND_FIELDS) <= set(operator.template_fields)
    for name, argument in own_arguments(operator).items():
        kinds = str(argument.annotation)
        holds_text = any(kind in kinds for kind in ("str", "dict", "list", "Any", "Mapping", "Sequence"))
        if holds_text and name not in NOT_TEMPLATED and "Callable[" not in kinds.replace("Callable[..., Any] |", ""):
            assert name in operator.template_fields, f"{name}: {kinds} is not templated"


@pytest.mark.parametrize("operator", PLAIN, ids=lambda one: one.__name__)
def test_every_templated_field_is_an_attribute_and_renders(operator: type[MlopsOperator]) -> None:
    task = make(operator)
    for name in operator.template_fields:
        assert hasattr(task, name), name
    task.mlflow_conn_id = "{{ one }}"
    task.render_template_fields({"one": "rendered"}, task.get_template_env())  # type: ignore[arg-type]
    assert task.mlflow_conn_id == "rendered"


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_arguments_are_keyword_only(operator: type[MlopsOperator]) -> None:
    for name, argument in own_arguments(operator).items():
        assert argument.kind is argument.KEYWORD_ONLY, name


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_no_argument_takes_the_place_of_an_attribute_of_airflows(operator: type[MlopsOperator]) -> None:
    with DAG("d", schedule=None):
        theirs = set(dir(BaseOperator(task_id="t"))) | set(inspect.signature(BaseOperator.__init__).parameters)
    assert not set(own_arguments(operator)) & theirs


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_every_argument_is_documented(operator: type[MlopsOperator]) -> None:
    documented = "\n".join(one.__doc__ or "" for one in operator.__mro__ if one.__module__.startswith("airflow_mlops"))
    for name in own_arguments(operator):
        assert f":param {name}:" in documented, name


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_a_constructor_calls_nothing_that_its_user_gave_it(operator: type[MlopsOperator]) -> None:
    for one in operator.__mro__:
        if not one.__module__.startswith("airflow_mlops.") or "__init__" not in vars(one):
            continue
        init = inspect.unwrap(vars(one)["__init__"])
        arguments = set(inspect.signature(init).parameters)
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & arguments


@pytest.mark.parametrize("operator", PLAIN, ids=lambda one: one.__name__)
def test_a_constructor_opens_nothing(operator: type[MlopsOperator], monkeypatch: Any) -> None:
    make(operator)

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"the constructor opened {arguments}")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        patch.setattr("sqlite3.connect", refuse)
        patch.setattr("socket.socket.connect", refuse)
        make(operator)


@pytest.mark.parametrize("operator", PLAIN, ids=lambda one: one.__name__)
def test_it_serialises_with_its_links_and_maps(operator: type[MlopsOperator]) -> None:
    from versions import DagSerialization

    needed = {name: "x" for name, one in own_arguments(operator).items() if one.default is one.empty}
    needed |= ALTERNATIVES.get(operator.__name__, {})
    first = next(iter(needed), "store_conn_id")
    rest = {name: value for name, value in needed.items() if name != first}
    with DAG("d", schedule=None) as dag:
        upstream = make(operator, inlets=[Asset("a")])
        operator(task_id="after", **{**needed, first: upstream.output})
        operator.partial(task_id="mapped", **rest).expand(**{first: ["one", "two"]})
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    names = [link.name for link in operator.operator_extra_links]  # type: ignore[attr-defined]
    for task_id in ("t", "after", "mapped"):
        task = again.get_task(task_id)
        assert set(task.extra_links) == set(names), "links are registered in the provider's metadata"
    assert again.get_task("after").upstream_task_ids == {"t"}, "an upstream output makes a dependency"


@pytest.mark.parametrize("operator", PLAIN, ids=lambda one: one.__name__)
def test_links_are_those_of_what_it_makes(operator: type[MlopsOperator]) -> None:
    from airflow_mlops.operators.base import GateOperator

    names = {link.name for link in operator.operator_extra_links}  # type: ignore[attr-defined]
    if issubclass(operator, GateOperator):
        assert "Report" in names
    if operator.__name__ == "TrainModelOperator":
        assert "MLflow run" in names
    if operator.__name__ in ("RegisterModelOperator", "PromoteModelOperator"):
        assert "Model version" in names
