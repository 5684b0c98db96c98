"""One MLflow run and one logged model for one training, whatever happens on the way.

The run is found again by the tag ``mlops.key``. Before a model's files go to MLflow its ref and manifest are written to
the store as a draft, so that a try which finds the model ready in MLflow can finish without fitting once more.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.tracking import client, experiment_id, mlflow_errors, strip_credentials
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

KEY_TAG = "mlops.key"
#: Tag of what MLflow makes in a process of the user's: the run that the process belongs to.
LOGGED_FOR = "mlops.logged_for"
#: MLflow's limits: characters of a parameter and of a tag, and how many go in one call.
PARAM_LIMIT, TAG_LIMIT, BATCH = 6000, 8000, 100
#: MLflow's variable for the run that its fluent functions log to.
RUN_VARIABLE = "MLFLOW_RUN_ID"
DATASET_DIGEST_LIMIT, SOURCE_LIMIT = 36, 65535


class TrainingRun:
    """The MLflow run of one training.

    :param context: the step's.
    :param experiment: the experiment's name; made if it is missing.
    :param key: what identifies the training: the task instance and the digest of its resolved spec.
    """

    def __init__(self, context: StepContext, experiment: str, key: str) -> None:
        self.context = context
        self.key = key
        self.client = client(context, "train_model")
        self.experiment_id = experiment_id(self.client, context, experiment)
        self.run_id = ""
        self.model_id = ""

    def find(self, *, reuse: bool) -> dict[str, Any] | None:
        """Look for earlier tries: return the result of one that ended, or remember the run to resume.

        :param reuse: whether a finished run counts; an unfinished one is resumed in any case.
        """
        with self.errors():
            runs = self.client.search_runs(
                [self.experiment_id],
                filter_string=f"tags.`{KEY_TAG}` = '{self.key}'",
                order_by=["attributes.start_time DESC"],
                max_results=50,
            )
        drafts = {run.info.run_id: self.context.store.find_json(draft_key(run.info.run_id)) for run in runs}
        # A trainer that logs to MLflow itself may have ended the run before us.
        unfinished = [r for r in runs if r.info.status != "FINISHED" or drafts[r.info.run_id] is None]
        if unfinished:
            self.run_id = unfinished[0].info.run_id
            return self._finish_draft()
        for draft in drafts.values() if reuse else []:
            if draft is not None and self._is_there(draft):
                models.record(self.context, ModelRef.from_dict(draft["ref"]), draft["manifest"])
                return {**draft["ref"], "experiment_id": self.experiment_id, "reused": True}
        return None

    def _finish_draft(self) -> dict[str, Any] | None:
        """Return the result of a try that died when its model was already ready in MLflow."""
        draft = self.context.store.find_json(draft_key(self.run_id))
        if draft is None or not self._is_there(draft):
            return None
        self.context.log.info("Resuming MLflow run %s: its model is complete, only the record is missing", self.run_id)
        self.close(ModelRef.from_dict(draft["ref"]), draft["manifest"])
        return {**draft["ref"], "experiment_id": self.experiment_id, "reused": False}

    def _is_there(self, draft: dict[str, Any]) -> bool:
        model_id = draft["ref"].get("model_id")
        try:
            with self.errors():
                model = self.client.get_logged_model(model_id)
                files = self.client.list_logged_model_artifacts(model_id) if ready(model) else []
        except NotFoundError:
            return False
        return any(file.path.rpartition("/")[2] == "MLmodel" for file in files)

    @contextmanager
    def opened(self, name: str | None, tags: dict[str, Any], *, anew: bool = False) -> Iterator[None]:
        """Create the run, or go on with the one that an earlier try left; mark it failed if the body raises.

        :param anew: delete what an earlier try left and begin with a new run: code that logs what it likes would log
            it twice.
        """
        with self.errors():
            if self.run_id and anew:
                self._discard()
            if self.run_id:
                self.client.update_run(self.run_id, status="RUNNING")
                self.context.log.info("Resuming MLflow run %s", self.run_id)
            else:
                run = self.client.create_run(
                    self.experiment_id, tags={KEY_TAG: self.key, **_tags(tags)}, run_name=name or None
                )
                self.run_id = run.info.run_id
                self.context.log.info("MLflow run %s in experiment %s", self.run_id, self.experiment_id)
        crash_point("train.run_created")
        try:
            yield
        except BaseException:
            self._mark_failed()
            raise

    def _discard(self) -> None:
        """Delete the run of an earlier try with its models."""
        self.context.log.info("Deleting MLflow run %s, which an earlier try left unfinished", self.run_id)
        for model in self.models():
            self.client.delete_logged_model(model.model_id)
        self.client.delete_run(self.run_id)
        self.run_id = ""

    def models(self) -> list[Any]:
        """Return the run's models, and those that were logged in its process while no run was active."""
        found: dict[str, Any] = {}
        for where in (f"source_run_id = '{self.run_id}'", f"tags.`{LOGGED_FOR}` = '{self.run_id}'"):
            for model in self.client.search_logged_models([self.experiment_id], filter_string=where, max_results=50):
                found[model.model_id] = model
        return list(found.values())

    def reopen(self) -> None:
        """Go on with the run after the user's process, which may have ended it."""
        with self.errors():
            self.client.update_run(self.run_id, status="RUNNING")

    def artifacts(self, folder: Path, path: str) -> None:
        """Keep the files of a folder with the run."""
        with self.errors():
            self.client.log_artifacts(self.run_id, str(folder), path)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the run that ``mlflow.log_metric`` and the like log to, for a trainer that calls them itself."""
        import mlflow

        before = os.environ.get(RUN_VARIABLE)
        os.environ[RUN_VARIABLE] = self.run_id
        try:
            yield
        finally:
            os.environ.pop(RUN_VARIABLE, None)
            if before is not None:
                os.environ[RUN_VARIABLE] = before
            active = mlflow.active_run()
            if active is not None and active.info.run_id == self.run_id:
                with self.errors():
                    mlflow.end_run("RUNNING")

    def _mark_failed(self) -> None:
        try:
            self.client.set_terminated(self.run_id, "FAILED")
        except Exception as error:
            # The error that ended the training is the one to raise.
            self.context.log.warning("The MLflow run could not be marked as failed: %s", type(error).__name__)

    def log_setup(self, hyperparameters: dict[str, Any], dataset: DatasetRef) -> None:
        """Log parameters, cut to MLflow's limit, and the dataset as the run's input; what is there stays."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        with self.errors():
            known = self.client.get_run(self.run_id).data.params
        params = [Param(_name(k), str(v)[:PARAM_LIMIT]) for k, v in hyperparameters.items() if _name(k) not in known]
        source = Dataset(
            name=dataset.name[:500],
            digest=_short(dataset.digest),
            source_type="mlops",
            source=_json({"uri": strip_credentials(dataset.uri), "digest": dataset.digest})[:SOURCE_LIMIT],
            profile=_json({"num_rows": dataset.rows}),
        )
        with self.errors():
            for start in range(0, len(params), BATCH):
                self.client.log_batch(self.run_id, params=params[start : start + BATCH])
            self.client.log_inputs(
                self.run_id, [DatasetInput(dataset=source, tags=[InputTag("mlflow.data.context", "training")])]
            )

    def model(
        self, name: str, tags: dict[str, Any], params: dict[str, Any], kind: str, logged: str | None = None
    ) -> str:
        """Return the id of the run's logged model: the pending one of an earlier try, or a new one.

        :param kind: MLflow's ``model_type``.
        :param logged: the id of the one that the user's code logged, which is given the tags.
        """
        from mlflow.entities import LoggedModelOutput

        with self.errors():
            pending = [m for m in self.models() if str(m.status).rpartition(".")[2].upper() == "PENDING"]
            if logged:
                self.model_id = logged
                self.client.set_logged_model_tags(logged, _tags(tags))
            elif pending:
                self.model_id = pending[0].model_id
            else:
                made = self.client.create_logged_model(
                    self.experiment_id,
                    name=re.sub(r"[/:.%\"']", "_", name) or "model",
                    source_run_id=self.run_id,
                    tags=_tags(tags),
                    params={_name(k): str(v)[:PARAM_LIMIT] for k, v in params.items()},
                    model_type=kind,
                )
                self.model_id = made.model_id
            outputs = self.client.get_run(self.run_id).outputs
            if self.model_id not in [m.model_id for m in (outputs.model_outputs if outputs else [])]:
                self.client.log_outputs(self.run_id, [LoggedModelOutput(self.model_id, step=0)])
        return self.model_id

    def log_metrics(self, metrics: dict[str, float | None], counts: dict[str, int], dataset: DatasetRef) -> None:
        """Log what has a value, on the run and on its model; what an earlier try has logged is not logged again."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self.errors():
            known = self.client.get_run(self.run_id).data.metrics
            rows = [
                Metric(
                    _name(name),
                    float(value),
                    now,
                    0,
                    model_id=self.model_id if name in metrics else None,
                    dataset_name=dataset.name[:500] if name in metrics else None,
                    dataset_digest=_short(dataset.digest) if name in metrics else None,
                    run_id=self.run_id,
                )
                for name, value in {**metrics, **counts}.items()
                if value is not None and known.get(_name(name)) != value
            ]
            for start in range(0, len(rows), BATCH):
                self.client.log_batch(self.run_id, metrics=rows[start : start + BATCH])
        crash_point("train.metrics_logged")

    def upload(self, folder: Path, ref: ModelRef, manifest: dict[str, str], *, there: bool = False) -> None:
        """Write the draft, upload the model's files and make the model ready.

        :param there: whether MLflow has the files already, because the user's code logged them.
        """
        tags = {"mlops.digest": str(ref.digest)}
        self.context.store.put_json(draft_key(self.run_id), {"ref": ref.to_dict(), "manifest": manifest})
        with self.errors():
            self.client.set_logged_model_tags(self.model_id, tags)
            self.client.log_batch(self.run_id, tags=_tag_entities(tags))
            if not there:
                self.client.log_model_artifacts(self.model_id, str(folder))
        crash_point("train.model_uploaded")
        with self.errors():
            if not there:
                self.client.finalize_logged_model(self.model_id, "READY")
        crash_point("train.model_finalised")

    def close(self, ref: ModelRef, manifest: dict[str, str]) -> None:
        """Put the model on record and end the run."""
        models.record(self.context, ref, manifest)
        crash_point("train.recorded")
        with self.errors():
            self.client.set_terminated(self.run_id, "FINISHED")
        crash_point("train.run_ended")

    def errors(self) -> Any:
        """Turn MLflow's errors into ours."""
        return mlflow_errors(self.context.tracking_uri)


def draft_key(run_id: str) -> str:
    """Return the store key of the draft of a run's model."""
    return f"training/{safe_name(run_id)}.json"


def ready(model: Any) -> bool:
    """Return whether a logged model is complete."""
    return str(model.status).rpartition(".")[2].upper() == "READY"


def _tags(tags: dict[str, Any]) -> dict[str, str]:
    return {_name(k): str(v)[:TAG_LIMIT] for k, v in tags.items() if v is not None}


def _tag_entities(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _name(text: Any) -> str:
    """Return a name as MLflow takes it: letters, digits and ``_-. :/``, at most 250 characters."""
    return re.sub(r"[^/\w.\- :]", "_", str(text))[:250]


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:DATASET_DIGEST_LIMIT]


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
