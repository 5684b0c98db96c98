"""What the user's process logs to MLflow: the variables that lead it to the run, and the model that it left there."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.training.mlflow_run import LOGGED_FOR, RUN_VARIABLE, TrainingRun, ready


def variables(run: TrainingRun) -> dict[str, str]:
    """Return the variables by which MLflow in another process logs to this run."""
    return {
        "MLFLOW_TRACKING_URI": str(run.context.tracking_uri),
        "MLFLOW_REGISTRY_URI": str(run.context.registry_uri or run.context.tracking_uri),
        "MLFLOW_EXPERIMENT_ID": run.experiment_id,
        RUN_VARIABLE: run.run_id,
        # Tags for all that MLflow makes there: a model that is logged without a run knows of none.
        "MLFLOW_RUN_CONTEXT": json.dumps({LOGGED_FOR: run.run_id}),
    }


def model_id_of(run: TrainingRun, name: str | None = None) -> str | None:
    """Return the id of the model that the user's code logged to the run, or None.

    :param name: which, if there are several.
    :raises SpecError: if there are several and the name does not say which.
    """
    with run.errors():
        found = [model for model in run.models() if ready(model)]
    if len(found) > 1:
        named = [model for model in found if model.name == name]
        if len(named) != 1:
            names = ", ".join(sorted(str(model.name) for model in found))
            raise SpecError(
                f"{len(found)} models were logged to the run ({names}): log one, or name it: name='{found[0].name}'"
            )
        found = named
    return str(found[0].model_id) if found else None


def left_among_artifacts(run: TrainingRun, folder: Path) -> Path | None:
    """Download the MLflow model that stands among the run's artifacts, where clients before MLflow 3 put it.

    :raises SpecError: if there are several.
    """
    from mlflow.artifacts import download_artifacts

    with run.errors():
        tops = [one.path for one in run.client.list_artifacts(run.run_id) if one.is_dir]
        found = [
            top for top in tops if any(f.path == f"{top}/MLmodel" for f in run.client.list_artifacts(run.run_id, top))
        ]
        if len(found) > 1:
            raise SpecError(f"{len(found)} models are among the run's artifacts ({', '.join(found)}): log one")
        if not found:
            return None
        folder.mkdir()
        uri = f"runs:/{run.run_id}/{found[0]}"
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def download(run: TrainingRun, model_id: str, folder: Path) -> Path:
    """Download a logged model's files to a new folder."""
    from mlflow.artifacts import download_artifacts

    folder.mkdir()
    with run.errors():
        return Path(download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=str(folder)))
