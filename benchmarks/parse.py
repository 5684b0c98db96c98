"""What parsing ``dags/`` costs beyond the same number of empty DAGs: under 0.3 s.

Each sample is a fresh interpreter that has already imported ``airflow.sdk``, as Airflow's DAG processor has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, report

DAGS = Path(__file__).resolve().parents[1] / "dags"
LIMIT = 0.3
SAMPLES = 7
EMPTY = "from airflow.sdk import DAG\nwith DAG({name!r}, schedule=None) as dag:\n    pass\n"
PROBE = """
import importlib.util, pathlib, sys, time
import airflow.sdk
from airflow.sdk import DAG, Asset, Param, TaskGroup, task
dags = 0
begun = time.perf_counter()
for number, path in enumerate(sorted(pathlib.Path(sys.argv[1]).glob("*.py"))):
    spec = importlib.util.spec_from_file_location(f"dag_file_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags += sum(isinstance(value, DAG) for value in vars(module).values())
print(time.perf_counter() - begun, dags)
"""


def sample(folder: Path, environment: dict[str, str]) -> tuple[float, int]:
    """Return the seconds and the number of DAGs of parsing a folder in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    seconds, dags = done.stdout.split()[-2:]
    return float(seconds), int(dags)


def main() -> int:
    """Print both times and their difference."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        _, dags = sample(DAGS, environment)
        empty = Path(home) / "empty"
        empty.mkdir()
        for number in range(dags):
            (empty / f"dag_{number}.py").write_text(EMPTY.format(name=f"empty_{number}"))
        ours, theirs = [], []
        for _ in range(SAMPLES):
            ours.append(sample(DAGS, environment)[0])
            theirs.append(sample(empty, environment)[0])
    # The fastest is the one that other programs disturbed least.
    print(f"parsing dags/ ({dags} DAGs) {min(ours):.3f} s, as many empty ones {min(theirs):.3f} s")
    return report(Figure("parsing dags/, beyond empty DAGs", min(ours) - min(theirs), LIMIT, "s"))


if __name__ == "__main__":
    sys.exit(main())
