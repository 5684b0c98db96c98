"""Training by the user's own command: a script as it is, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import MissingColumnError, SpecError, StoppedError, UnsupportedError, did_you_mean
from airflow_mlops.core.training import (
    fitting,
    flavours,
    logged,
    modelfile,
    packaging,
    process,
    provenance,
    rows,
    scripts,
)
from airflow_mlops.core.training.recipe import Made, Recipe, Task
from airflow_mlops.core.vocabulary import ModelRef

#: What may stand in braces in a command.
PLACEHOLDERS = ("dataset", "test_dataset", "model_out", "hyperparameters", "seed")
DATASET_FORMATS = ("parquet", "csv")
#: What MLflow says where the script asks for another experiment than the run is in.
_OTHER_EXPERIMENT = "does not match environment run ID"


def check_command(command: Any) -> list[str]:
    """Return a command as a list of texts.

    :raises SpecError: if it is one text, which would need a shell, or does not take the dataset.
    """
    if isinstance(command, str):
        words = ", ".join(f'"{word}"' for word in command.split())
        raise SpecError(f"a command is a list and runs without a shell: write command=[{words}]")
    if not isinstance(command, (list, tuple)) or not command:
        raise SpecError(
            f"a command is a list like ['python', 'train.py', '{{dataset}}', '{{model_out}}'], got {command!r}"
        )
    words_ = [str(item) for item in command]
    for word in words_:
        for name in re.findall(r"\{([A-Za-z_]+)\}", word):
            if name not in PLACEHOLDERS and did_you_mean(name, PLACEHOLDERS):
                raise SpecError(f"the command has {{{name}}}{did_you_mean(name, PLACEHOLDERS)}")
    if not any("{dataset}" in word for word in words_):
        raise SpecError(
            "the command does not take {dataset}: the path of the training rows, without the rows that the model is "
            "tested on. Give it where the script takes its input, like ['python', 'train.py', '{dataset}', "
            "'{model_out}']"
        )
    return words_


class CommandRecipe(Recipe):
    """A command that trains on a file and leaves a model.

    :param command: program and arguments, with :data:`PLACEHOLDERS` in braces.
    :param cwd: the folder that it runs in; default: the process's own.
    :param dataset_format: of the files that it is given: ``parquet`` or ``csv``.
    :param trust: ``"pickle"`` lets a pickle that it leaves be loaded.
    """

    begins_anew = True

    def __init__(
        self,
        command: Any,
        *,
        cwd: str | None,
        features: Any,
        hyperparameters: Any,
        seed: Any,
        dataset_format: str,
        trust: str | None,
        trusted_types: list[str] | None,
        model_name: str | None,
    ) -> None:
        super().__init__(features, seed, trust)
        self.command = check_command(command)
        self.cwd = Path(cwd or os.getcwd()).absolute()
        if dataset_format not in DATASET_FORMATS:
            raise SpecError(f"dataset_format must be 'parquet' or 'csv', got {dataset_format!r}")
        self.dataset_format = dataset_format
        self.trusted_types = trusted_types
        self.model_name = model_name
        self.hyperparameters = fitting.mapping(hyperparameters, "hyperparameters")
        found = self.scripts()
        self.script = next(iter(found.files.values()), None)
        feature_digest, feature_sources = provenance.code_of(self.features)
        self.sources = provenance.Sources(
            {**feature_sources.own, **found.own}, feature_sources.third_party | found.libraries
        )
        self.digest = digests.of_json(
            [self.command, dataset_format, feature_digest, {k: digests.of_file(v) for k, v in found.files.items()}]
        )
        self.environment = self._environment()
        self.name = " ".join(self.command)

    def scripts(self) -> scripts.Found:
        """Return the user's files that the command runs."""
        return scripts.of_command(self.command, self.cwd)

    @property
    def place(self) -> Path | None:
        """The script, or None for a program that is installed."""
        return self.script

    def _environment(self) -> dict[str, Any]:
        program = shutil.which(self.command[0], path=process.environment({})["PATH"])
        if program and os.path.realpath(program) == os.path.realpath(sys.executable):
            return provenance.environment_of(self.sources.third_party)
        # What another interpreter has installed is not known here.
        known: dict[str, Any] = {"python": None, "platform": None, "packages": {}, "program": program}
        return {**known, "digest": digests.of_json(known)}

    def make(self, task: Task) -> Made:
        """Run the command and take the model that it logged or left."""
        given = self.inputs(task)
        out = task.scratch / "out"
        out.mkdir()
        given["model_out"] = str(out / "model")
        started = time.monotonic()
        self.execute(task, given)
        task.context.log.info("%s ended after %.1f s", self.subject, time.monotonic() - started)
        task.run.reopen()
        task.run.log_setup(self.effective, task.ref)
        model_id = logged.model_id_of(task.run, self.model_name)
        left = modelfile.found_in(out)
        if model_id is not None:
            if left is not None:
                task.context.log.warning("It logged a model to MLflow and left %s: the logged one counts", left.name)
            return self._of_mlflow(task, logged.download(task.run, model_id, task.scratch / "logged"), model_id)
        if left is None:
            left = logged.left_among_artifacts(task.run, task.scratch / "artifacts")
        if left is None:
            raise SpecError(
                f"{self.subject} ended well but left no model: it must write one to the path that it is given as "
                "{model_out} (a file, a file with an ending of its own, or a folder of MLflow), or log one to MLflow"
            )
        task.context.log.info("It left %s, %.2f MB", left.name, _size(left) / 1e6)
        if modelfile.format_of(left) == "mlflow":
            return self._of_mlflow(task, left, None)
        return self._of_file(task, left)

    @property
    def subject(self) -> str:
        """The command, for messages."""
        return f"the command {' '.join(self.command[:2])}"

    def inputs(self, task: Task) -> dict[str, str]:
        """Write the files that the command is given and return what stands for each placeholder."""
        folder = task.scratch / "in"
        folder.mkdir()
        given = {"seed": str(self.seed), "hyperparameters": str(folder / "hyperparameters.json")}
        Path(given["hyperparameters"]).write_text(json.dumps(self.hyperparameters), encoding="utf-8")
        for name, part in (("dataset", task.data.train), ("test_dataset", task.data.test)):
            path = folder / f"{'train' if name == 'dataset' else 'test'}.{self.dataset_format}"
            if self.dataset_format == "csv":
                part.frame.to_csv(path, index=False)
            else:
                part.frame.to_parquet(path, index=False)
            given[name] = str(path)
        return given

    def execute(self, task: Task, given: dict[str, str]) -> None:
        """Run the command to its end.

        :raises SpecError: if it fails.
        :raises StoppedError: if it is stopped or killed.
        """
        command = [_filled(word, given) for word in self.command]
        task.context.log.info("Running %s on %s rows", self.name, f"{len(task.data.train):,}")
        ended = self.run(task, command)
        if ended.code:
            raise self.failure(ended)

    def run(self, task: Task, command: list[str]) -> process.Ended:
        """Run a command with MLflow's variables, so that what it logs goes to this run."""
        variables = {**logged.variables(task.run), "PYTHONHASHSEED": str(self.seed % 2**32)}
        return process.run(command, cwd=self.cwd, variables=variables, log=task.context.log)

    def failure(self, ended: process.Ended) -> Exception:
        """Return the error of a command that did not end well."""
        tail = " | ".join(ended.tail)
        advice = ""
        if _OTHER_EXPERIMENT in tail:
            advice = " The script sets an experiment of its own: give the same as experiment=."
        if ended.code < 0:
            killed = "usually because the machine ran out of memory" if ended.code == -9 else "from outside"
            return StoppedError(
                f"{self.subject} was ended by signal {-ended.code}, {killed}. Its last lines: {tail}",
                signal=-ended.code,
            )
        return SpecError(
            f"{self.subject} failed with exit code {ended.code}.{advice} Its last lines: {tail[-1500:]}",
            exit_code=ended.code,
        )

    def _of_file(self, task: Task, path: Path) -> Made:
        folders = [self.cwd, self.script.parent if self.script else None]
        with modelfile.importable(*folders):
            fitted = modelfile.load(path, trust=self.trust, trusted_types=self.trusted_types, own=self.packages)
            if not callable(getattr(fitted, "predict", None)):
                raise UnsupportedError(
                    f"{path.name} holds a {type(fitted).__name__}, which has no predict(): save the fitted model itself"
                )
            model = packaging.assemble(self.features, fitted)
            called = flavours.callable_model(model)
        data = task.data if self.features else with_columns(task.data, flavours.feature_names(fitted), task.target)
        return Made(model, fitted, data, called=called, code=lambda: modelfile.importable(*folders))

    def _of_mlflow(self, task: Task, folder: Path, model_id: str | None) -> Made:
        from airflow_mlops.core.evaluation.loading import ModelCopy

        if self.features is not None:
            raise SpecError(
                f"{self.subject} made an MLflow model, which is taken as it is: features= cannot go inside it"
            )
        pickles = modelfile.pickles_in(folder)
        if pickles:
            modelfile.refuse_pickle(f"{pickles[0]} in the MLflow model", self.trust)
        uri = f"models:/{model_id}" if model_id else str(folder)
        copy = ModelCopy(ref=ModelRef(uri=uri, model_id=model_id), folder=folder, verified=True)
        with copy.code():
            model = copy.load()
        names = copy.inputs or flavours.feature_names(model)
        data = with_columns(task.data, names, task.target)
        return Made(model, model, data, folder=folder, model_id=model_id, code=copy.code)


def with_columns(data: rows.Rows, names: list[str] | None, target: str) -> rows.Rows:
    """Return the rows with the columns that a model asks for; those of roles too, but not the target.

    :raises MissingColumnError: if the data has not got them.
    """
    if names is None:
        return data
    known = [str(name) for name in data.train.frame.columns if name != target]
    missing = [name for name in names if name not in known]
    if missing:
        raise MissingColumnError(
            f"the model takes {len(missing)} columns that the dataset does not have: {', '.join(missing[:10])}. What "
            "the script makes of the data must be part of the model (a scikit-learn Pipeline), or be given as "
            "features='package.module:function'",
            columns=missing[:50],
        )
    train, test = (dataclasses.replace(part, raw=part.frame[names]) for part in (data.train, data.test))
    return dataclasses.replace(data, train=train, test=test)


def _filled(word: str, given: dict[str, str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda match: given.get(match[1], match[0]), word)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
