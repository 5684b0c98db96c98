"""From the ``runtime`` argument to the runtime: what is taken, what is refused and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.runtimes.docker import DockerRuntime
from airflow_mlops.runtimes.in_process import InProcessRuntime
from airflow_mlops.runtimes.python import PythonRuntime
from airflow_mlops.runtimes.select import check_runtime, kind_of, runtime_of


def train(runtime: Any, **kwargs: Any) -> TrainModelOperator:
    return TrainModelOperator(task_id="train", dataset="rows.csv", trainer="m:f", runtime=runtime, **kwargs)


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_without_one_a_step_runs_in_the_tasks_process(nothing: Any) -> None:
    assert kind_of(nothing) is None
    assert isinstance(runtime_of(nothing), InProcessRuntime)


def test_the_key_says_which_runtime_it_is() -> None:
    assert isinstance(runtime_of({"python": "/opt/venv"}), PythonRuntime)
    assert isinstance(runtime_of({"image": "team/ml:1"}), DockerRuntime)


def test_an_image_may_name_the_python_inside_it() -> None:
    assert isinstance(runtime_of({"python": "python3.12", "image": "team/ml:1"}), DockerRuntime)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"pyton": "/x"}, r"neither 'python' nor 'image', but 'pyton'; did you mean 'python'\?"),
        ({"memory": "1g"}, "neither 'python' nor 'image', but 'memory'"),
        ({"python": "/x", "environmet": {}}, r"no key 'environmet'; did you mean 'environment'\?"),
        ({"python": "/x", "memory": "1g"}, r"no key 'memory'.*Keys: python, environment"),
        ({"image": "x", "memmory": "1g"}, r"no key 'memmory'; did you mean 'memory'\?"),
        (["python"], r"must be None .*or \{'image'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(runtime: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_runtime(runtime)


def test_an_operator_refuses_it_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="did you mean 'python'"):
        train({"pyton": "/x"})
    with pytest.raises(ValueError, match="did you mean 'environment'"):
        train({"python": "/x", "environmet": {}})


def test_a_template_is_looked_at_when_the_task_runs() -> None:
    assert train("{{ params.runtime }}").runtime == "{{ params.runtime }}"
    assert train({"python": "{{ params.python }}"}).runtime == {"python": "{{ params.python }}"}


@pytest.mark.parametrize("runtime", [None, {"python": "/x"}])
def test_only_a_container_can_be_waited_for_in_the_triggerer(runtime: Any) -> None:
    with pytest.raises(ValueError, match=r"deferrable=True needs runtime=\{'image'"):
        train(runtime, deferrable=True)
