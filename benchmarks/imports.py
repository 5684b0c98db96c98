"""What importing every public module of the package costs after ``airflow.sdk``: under 0.15 s and 15 MB more.

Each sample is a fresh interpreter; the same interpreter without our modules is subtracted by measuring both moments
in it. Bytecode is written first, as an installed package has it.
"""

from __future__ import annotations

import compileall
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from figures import Figure, report

import airflow_mlops

PACKAGE = Path(airflow_mlops.__file__).parent
SECONDS, MEGABYTES, SAMPLES = 0.15, 15, 7
#: Libraries that no module may import when it is imported itself.
HEAVY = (
    *("boto3", "docker", "evidently", "fastapi", "great_expectations", "jinja2", "matplotlib", "mlflow", "numpy"),
    *("pandas", "pyarrow", "scipy", "sklearn", "skops", "yaml"),
)
#: Modules that a command or a server imports, and nothing that a DAG or a task does.
NOT_PUBLIC = ("airflow_mlops.core.__main__", "airflow_mlops.cli.commands", "airflow_mlops.web.app")
PROBE = """
import gc, importlib, json, resource, sys, time
import airflow.sdk

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

# A full collection of Airflow's own objects may fall into any import of anybody's; it is not ours.
gc.collect()
gc.freeze()
heavy_before = {name for name in sys.argv[2].split(",") if name in sys.modules}
memory_before, begun, spent = memory(), time.perf_counter(), time.process_time()
for name in sys.argv[1].split(","):
    importlib.import_module(name)
seconds, cpu = time.perf_counter() - begun, time.process_time() - spent
print(json.dumps({
    "seconds": seconds,
    "cpu": cpu,
    "megabytes": (memory() - memory_before) / 2**20,
    "heavy": sorted({name for name in sys.argv[2].split(",") if name in sys.modules} - heavy_before),
}))
"""


def public_modules() -> list[str]:
    """Return every module that a DAG file, a task or Airflow itself may import."""
    found = [one.name for one in pkgutil.walk_packages([str(PACKAGE)], "airflow_mlops.")]
    return ["airflow_mlops", *(name for name in found if name not in NOT_PUBLIC)]


def sample(modules: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Return seconds, megabytes and heavy libraries of importing modules in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(modules), ",".join(HEAVY)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the figures, and fail if one is over its limit."""
    compileall.compile_dir(PACKAGE, quiet=1)
    modules = public_modules()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        samples = [sample(modules, environment) for _ in range(SAMPLES)]
    # An import waits for nothing, so on a quiet machine both are the same; on a busy one the clock goes on for others.
    seconds, cpu = (min(one[name] for one in samples) for name in ("seconds", "cpu"))
    megabytes = statistics.median(one["megabytes"] for one in samples)
    heavy = samples[0]["heavy"]
    print(f"{len(modules)} modules in {seconds:.3f} s by the clock; heavy libraries: {', '.join(heavy) or 'none'}")
    return report(
        Figure("importing every public module", cpu, SECONDS, "s"),
        Figure("its memory", megabytes, MEGABYTES, "MB"),
        Figure("heavy libraries imported", len(heavy), 1, "libraries"),
    )


if __name__ == "__main__":
    sys.exit(main())
