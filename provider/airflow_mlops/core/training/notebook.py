"""Training by a notebook: papermill runs it in a process of its own, and what it looked like then is kept."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import MissingSourceError, SpecError
from airflow_mlops.core.extras import require
from airflow_mlops.core.training import process, scripts
from airflow_mlops.core.training.command import CommandRecipe
from airflow_mlops.core.training.recipe import Task

#: The run's folder of artifacts that the executed notebook is kept in.
ARTIFACTS = "notebook"
#: Characters of an exception's text that an error repeats.
TEXT = 500


class NotebookRecipe(CommandRecipe):
    """A notebook that trains on a file and leaves a model.

    Its parameters are ``dataset``, ``test_dataset``, ``model_out`` (paths), ``seed`` and each hyperparameter by name;
    papermill puts them after the cell with the tag ``parameters``, else at the top.

    :param notebook: path of an ``.ipynb`` file.
    :raises MissingSourceError: if there is none.
    :raises MissingExtraError: if papermill is not installed.
    """

    def __init__(self, notebook: Any, **options: Any) -> None:
        require("papermill", "training by a notebook", extra="notebook")
        self.notebook = Path(str(notebook)).absolute()
        if self.notebook.suffix != ".ipynb" or not self.notebook.is_file():
            raise MissingSourceError(f"there is no notebook at {notebook}: give the path of an .ipynb file")
        options["cwd"] = options.get("cwd") or str(self.notebook.parent)
        super().__init__(["python", "-m", "papermill", "{dataset}"], **options)
        for name in self.hyperparameters:
            if name in ("dataset", "test_dataset", "model_out", "seed"):
                raise SpecError(f"{name!r} is no hyperparameter: the notebook is given it by the step")
        self.name = f"notebook {self.notebook.name}"

    @property
    def subject(self) -> str:
        """The notebook, for messages."""
        return f"the notebook {self.notebook.name}"

    def scripts(self) -> scripts.Found:
        """Return the notebook and what it imports of its project."""
        return scripts.of_files([self.notebook], self.cwd)

    def execute(self, task: Task, given: dict[str, str]) -> None:
        """Run all cells and keep the notebook as it is then, also when a cell fails.

        :raises SpecError: naming the cell and its exception.
        """
        parameters = self._parameters(given)
        settings = task.scratch / "parameters.yaml"
        # JSON is YAML.
        settings.write_text(json.dumps(parameters), encoding="utf-8")
        executed = task.scratch / self.notebook.name
        command = ["python", "-m", "papermill", str(self.notebook), str(executed), "-f", str(settings)]
        command += ["--cwd", str(self.cwd), "--no-progress-bar", "--log-output", *self._kernel()]
        task.context.log.info("Running %s on %s rows", self.notebook.name, f"{len(task.data.train):,}")
        if defaults(self.notebook) is None:
            task.context.log.warning(
                "%s has no cell with the tag 'parameters': its parameters stand at the top, and cells below that set "
                "the same names win",
                self.notebook.name,
            )
        try:
            ended = self.run(task, command)
        finally:
            self._keep(task, executed)
        if ended.code:
            failed = failed_cell(executed)
            if failed is None:
                raise self.failure(ended)
            raise SpecError(
                f"{self.subject} failed in {failed}. The run keeps it as it was then, as the artifact "
                f"{ARTIFACTS}/{self.notebook.name}"
            )

    def _parameters(self, given: dict[str, str]) -> dict[str, Any]:
        """Return what papermill sets: what the notebook does not name is left out, but for what it cannot do without.

        Text that a template has rendered becomes a number where the notebook's own value is one.
        """
        known = defaults(self.notebook)
        found = dict(self.hyperparameters)
        for name, value in found.items():
            if isinstance(value, str) and isinstance((known or {}).get(name), (bool, int, float)):
                try:
                    found[name] = ast.literal_eval(value.strip())
                except (ValueError, SyntaxError) as error:
                    raise SpecError(f"the hyperparameter {name!r} must be a number, got the text {value!r}") from error
        found |= {"dataset": given["dataset"], "model_out": given["model_out"]}
        for name, more in (("test_dataset", given["test_dataset"]), ("seed", self.seed)):
            if known is None or name in known:
                found[name] = more
        return found

    def _kernel(self) -> list[str]:
        """Return papermill's option: a Python notebook runs in the interpreter of the step, whatever made it."""
        metadata = _read(self.notebook).get("metadata", {})
        language = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language")
        return ["-k", "python3", "-l", "python"] if language in (None, "python") else []

    def _keep(self, task: Task, executed: Path) -> None:
        if not executed.is_file():
            return
        secrets = process.Secrets(process.environment({}))
        text = executed.read_text(encoding="utf-8")
        folder = task.scratch / "kept"
        folder.mkdir()
        (folder / executed.name).write_text(secrets.hidden(text), encoding="utf-8")
        page = _as_html(folder / executed.name, task.context.log)
        if page is not None:
            (folder / executed.name).with_suffix(".html").write_text(page, encoding="utf-8")
        task.run.artifacts(folder, ARTIFACTS)


def failed_cell(path: Path) -> str | None:
    """Return ``"cell 3 (model.fit(X, y)): ValueError: ..."`` for the cell that ended a notebook, or None."""
    number = 0
    for cell in _read(path).get("cells", []) if path.is_file() else []:
        if cell.get("cell_type") != "code" or "papermill-error-cell-tag" in cell.get("metadata", {}).get("tags", []):
            continue
        if "injected-parameters" not in cell.get("metadata", {}).get("tags", []):
            number += 1
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                line = next((one for one in _text(cell.get("source", "")).splitlines() if one.strip()), "")
                what = " ".join(str(output.get("evalue", "")).split())[:TEXT]
                return f"code cell {number} (it begins {line.strip()[:80]!r}): {output.get('ename')}: {what}"
    return None


def defaults(path: Path) -> dict[str, Any] | None:
    """Return the names that a notebook's parameters cell sets, with their values (None where it computes them).

    None: there is no such cell.
    """
    cells = [one for one in _read(path).get("cells", []) if "parameters" in one.get("metadata", {}).get("tags", [])]
    if not cells:
        return None
    try:
        statements = ast.parse(_text(cells[0].get("source", ""))).body
    except SyntaxError:
        return {}
    found: dict[str, Any] = {}
    for one in statements:
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        value = one.value if isinstance(one, (ast.Assign, ast.AnnAssign)) else None
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = value.value if isinstance(value, ast.Constant) else None
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpecError(f"{path.name} is no notebook: it cannot be read as JSON") from error
    if not isinstance(found, dict):
        raise SpecError(f"{path.name} is no notebook: it holds no JSON object")
    return found


def _text(source: Any) -> str:
    return source if isinstance(source, str) else "".join(source)


def _as_html(path: Path, log: logging.Logger) -> str | None:
    """Return the notebook as a page if nbconvert is installed and can make one, else None."""
    if importlib.util.find_spec("nbconvert") is None:
        return None
    try:
        nbconvert = importlib.import_module("nbconvert")
        page, _ = nbconvert.HTMLExporter().from_filename(str(path))
    except Exception as error:
        # The page is a convenience; the notebook itself is kept.
        log.warning("No page was made of %s: %s", path.name, " ".join(f"{type(error).__name__}: {error}".split())[:200])
        return None
    return str(page)
