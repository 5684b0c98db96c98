"""Models for servers to serve: a real one, and some that only misbehave when they are served."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from airflow_mlops.core import models
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.tracking import client, experiment_id
from airflow_mlops.core.vocabulary import ModelRef

#: A model whose behaviour as a server differs from that without one; it looks at which program runs it.
CODE = """
import os, sys, time
import mlflow
from mlflow.pyfunc import PythonModel

KIND, VALUE = {kind!r}, {value!r}


class Model(PythonModel):
    calls = 0

    def predict(self, context, model_input, params=None):
        served = sys.argv[0].endswith("serving/server.py")
        Model.calls += 1
        if served and KIND == "wrong":
            return (model_input["a"] * 2 + VALUE + 1).tolist()
        if served and KIND == "slow":
            time.sleep(0.3)
        if served and KIND == "crash":
            os._exit(9)
        if served and KIND == "late_crash" and Model.calls > 8:
            os._exit(9)
        if served and KIND == "late_wrong" and Model.calls > 8:
            return (model_input["a"] * 2 + VALUE + 1).tolist()
        return (model_input["a"] * 2 + VALUE).tolist()


mlflow.models.set_model(Model())
"""


def log_model(context: StepContext, folder: Path, value: float = 0.0, kind: str = "good") -> dict[str, Any]:
    """Log a model that predicts ``2 a + value``, put it on record and return its ref.

    :param kind: ``good``; or what it does when it is served: ``wrong`` answers, ``slow`` ones, ``crash`` at the first
        request, ``late_crash`` and ``late_wrong`` after some.
    """
    import mlflow
    import pandas as pd

    mlflow_client = client(context, "the tests")
    experiment = experiment_id(mlflow_client, context, "serving")
    folder.mkdir(parents=True, exist_ok=True)
    code = folder / f"model_{kind}_{abs(hash(value)) % 1000}.py"
    code.write_text(CODE.format(kind=kind, value=value))
    example = pd.DataFrame({"a": [1.0, 2.0]})
    with mlflow.start_run(experiment_id=experiment) as run:
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            input_example=example,
            signature=mlflow.models.infer_signature(example, [0.0]),
            pip_requirements=["mlflow"],
        )
    ref = ModelRef(uri=f"models:/{info.model_id}", model_id=info.model_id, run_id=run.info.run_id)
    copy = models.download(context, ref, _empty(folder / f"copy-{info.model_id}"), trust="unverified")
    manifest = models.manifest_of(copy)
    ref = dataclasses.replace(ref, digest=models.digest_of(manifest))
    models.record(context, ref, manifest)
    return ref.to_dict()


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder
