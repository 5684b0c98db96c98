"""What parsing costs: ``dags/`` beyond the same number of empty DAGs, and the docs' file of models with 100 of them.

Each sample is a fresh interpreter that has already imported ``airflow.sdk``, as Airflow's DAG processor has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from figures import Figure, report

ROOT = Path(__file__).resolve().parents[1]
DAGS, EXAMPLES = ROOT / "dags", ROOT / "tests" / "examples"
LIMIT = 0.3
#: Models in one file, each with a DAG, and seconds of the processor for them.
MODELS, MODELS_LIMIT = 100, 0.3
SAMPLES = 7
EMPTY = "from airflow.sdk import DAG\nwith DAG({name!r}, schedule=None) as dag:\n    pass\n"
PROBE = """
import importlib.util, pathlib, sys, time
import airflow.sdk
from airflow.sdk import DAG, Asset, Param, TaskGroup, task
dags = 0
begun, spent = time.perf_counter(), time.process_time()
for number, path in enumerate(sorted(pathlib.Path(sys.argv[1]).glob("*.py"))):
    spec = importlib.util.spec_from_file_location(f"dag_file_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags += sum(isinstance(value, DAG) for value in vars(module).values())
print(time.perf_counter() - begun, time.process_time() - spent, dags)
"""


def sample(folder: Path, environment: dict[str, str]) -> tuple[float, float, int]:
    """Parse a folder in a fresh interpreter: seconds by the clock, those of the processor, and the number of DAGs."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    seconds, cpu, dags = done.stdout.split()[-3:]
    return float(seconds), float(cpu), int(dags)


def many_models(folder: Path) -> Path:
    """Write the docs' file of models with ``MODELS`` entries, and the one that makes their DAGs."""
    folder.mkdir()
    shutil.copy(EXAMPLES / "dag_per_model.py", folder)
    entries = list(yaml.safe_load((EXAMPLES / "models.yaml").read_text()).values())
    models = {f"model_{number}": entries[number % len(entries)] for number in range(MODELS)}
    (folder / "models.yaml").write_text(yaml.safe_dump(models))
    return folder


def main() -> int:
    """Print the times."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        *_, dags = sample(DAGS, environment)
        empty = Path(home) / "empty"
        empty.mkdir()
        for number in range(dags):
            (empty / f"dag_{number}.py").write_text(EMPTY.format(name=f"empty_{number}"))
        models = many_models(Path(home) / "models")
        ours, theirs, many = [], [], []
        for _ in range(SAMPLES):
            ours.append(sample(DAGS, environment)[:2])
            theirs.append(sample(empty, environment)[:2])
            many.append(sample(models, environment))
    # Parsing waits for nothing, so on a quiet machine both are the same; on a busy one the clock goes on for others.
    clock, cpu = (min(one[i] for one in ours) - min(one[i] for one in theirs) for i in (0, 1))
    print(f"dags/ ({dags} DAGs) takes {clock:.3f} s longer by the clock than as many empty ones")
    assert {one[2] for one in many} == {MODELS}
    return report(
        Figure("parsing dags/, beyond empty DAGs", cpu, LIMIT, "s"),
        Figure(f"parsing a file of {MODELS} models, a DAG each", min(one[1] for one in many), MODELS_LIMIT, "s"),
    )


if __name__ == "__main__":
    sys.exit(main())
