"""The reference DAG of level 2 as it is parsed: what it watches, and where it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import json, runpy, sys
from airflow.serialization.serialized_objects import DagSerialization
found = runpy.run_path(sys.argv[1])
dag = found["level_2"]
again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
watchers = [one.trigger.serialize()[1] for one in found["CODE"].watchers]
runtime = sorted(dag.get_task("model.train").runtime)
before = sorted(again.get_task("release.champion").get_flat_relative_ids(upstream=True))
print(json.dumps({"tasks": sorted(again.task_dict), "before": before, "watchers": watchers, "runtime": runtime}))
"""


def parsed(tmp_path: Path, **variables: str) -> dict[str, Any]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(ROOT / "dags" / "mlops_level_2.py")],
        env={**inherited, "AIRFLOW_HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_file_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "dags" / "mlops_level_2.py").read_text().splitlines()) < 150


def test_it_parses_with_nothing_set_and_with_everything(tmp_path: Path) -> None:
    bare = parsed(tmp_path)
    assert bare["watchers"] == []
    assert bare["runtime"] == ["code", "python"]
    assert (
        bare["tasks"].index("ci.tests") < bare["tasks"].index("model.train") < bare["tasks"].index("release.champion")
    )
    full = parsed(
        tmp_path, MLOPS_GIT_CONN_ID="code", MLOPS_REF="release", MLOPS_BASE_IMAGE="python:3.11-slim", MLOPS_SERVER="s"
    )
    assert full["watchers"] == [{"repository": None, "ref": "release", "git_conn_id": "code", "poll_interval": 60.0}]
    assert full["runtime"] == ["code", "image"]
    assert set(full["tasks"]) - set(bare["tasks"]) == {"ci.image", "release.deploy", "release.smoke"}
