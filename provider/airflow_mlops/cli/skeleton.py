"""What ``airflow mlops init`` does: DAGs and a small project for the user's own data. Imported when it runs."""

from __future__ import annotations

import argparse
import ast
import json
import keyword
import re
import shutil
import sys
import sysconfig
from importlib import resources
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from airflow_mlops.cli.session import command, note
from airflow_mlops.cli.skeleton_data import Data, look
from airflow_mlops.cli.skeleton_repository import Place, commit, place_of
from airflow_mlops.core.errors import ConflictError, SpecError

LEVELS = (1, 2, 3, 4)
#: Characters of a list that stands in one line.
LINE = 100
#: Airflow's own schedules for the lengths of a period.
PRESETS = {"84d": "@quarterly", "28d": "@monthly", "7d": "@weekly", "1d": "@daily", "6h": "@daily", "1h": "@hourly"}


@command
def init(args: argparse.Namespace) -> None:
    """Write DAGs and a small project that run as they are."""
    if args.level not in LEVELS:
        raise SpecError(f"--level {args.level} has no skeleton; there is one of level {', '.join(map(str, LEVELS))}")
    folder = Path(args.folder).expanduser()
    check_folder(folder)
    path, target, name = args.data, args.target, args.name
    if not path or not target:
        path, target, name = known(folder, path, target, name)
    data = look(path, target)
    project = name or project_name(data.path)
    place = place_of(folder) if args.level >= 2 else Place()
    written = write(args.level, folder, data, project, place)
    for file in written:
        print(file)
    for line in data.said():
        note(line)
    if args.level >= 2:
        note(commit(place, written, project))
    note(f"Its tests: pytest {folder / project / 'tests'}")
    note(f"Try it: airflow dags test {project}_level_1, and then airflow mlops promote {project} 1")
    if args.level >= 3:
        note(f"What serves is watched by: airflow dags test {project}_level_3")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which nothing could be imported.

    :raises SpecError: for a folder inside the configured dags folder.
    """
    from airflow.configuration import conf

    top = Path(conf.get("core", "dags_folder")).expanduser().absolute()
    if top in folder.absolute().parents:
        raise SpecError(
            f"{folder} is inside the dags folder {top}, and modules are imported from the dags folder itself: give that"
        )


def known(folder: Path, path: str | None, target: str | None, name: str | None) -> tuple[str, str, str]:
    """Return data, target and name of a project that is in a folder already.

    :raises SpecError: if there is none, or which one is meant is not said.
    """
    wanted = [folder / name] if name else [one.parent for one in sorted(folder.glob("*/project.py"))]
    found = [one for one in wanted if (one / "project.py").is_file()]
    if len(found) != 1:
        names = ", ".join(one.name for one in found)
        raise SpecError(
            f"{folder} has the projects {names}; say which one by --name"
            if found
            else f"give --data and --target; {folder} has no project yet to take them from"
        )
    constants = read_constants(found[0] / "project.py")
    try:
        return path or constants["DATA"], target or constants["ROLES"]["target"], found[0].name
    except (KeyError, TypeError):
        raise SpecError(
            f"{found[0] / 'project.py'} has no DATA and ROLES['target'] that are plain text; give --data and --target"
        ) from None


def read_constants(file: Path) -> dict[str, Any]:
    """Return what a module assigns to its names as plain values; nothing is executed."""
    constants: dict[str, Any] = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                constants[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return constants


def write(level: int, folder: Path, data: Data, project: str, place: Place | None = None) -> list[Path]:
    """Write the files that are not there yet, or none; return them, the DAGs first.

    A project that is there for the same data and target stays as it is, and gets the DAGs of the levels it lacks.

    :raises ConflictError: if all are there, or the project is another one.
    :raises SpecError: for a name that no package can have.
    """
    if not project.isidentifier() or keyword.iskeyword(project):
        raise SpecError(f"{project!r} cannot be the name of a Python package; give another one by --name")
    if is_taken(project):
        raise SpecError(f"{project!r} is the name of a package of Python's or an installed one; give another by --name")
    values = _values(project, data, place or Place())
    dags = {folder / f"{project}_level_{one}.py": f"dag_level_{one}.py.jinja" for one in range(1, level + 1)}
    sources = {
        f"{project}/project.py": "project.py.jinja",
        f"{project}/trainer.py": "trainer.py.jinja",
        f"{project}/expectations.yaml": "expectations.yaml.jinja",
        f"{project}/requirements.txt": "requirements.txt.jinja",
        f"{project}/tests/test_{project}.py": "test_project.py.jinja",
    }
    plain = {
        folder / project / "__init__.py": f'"""The model {project}."""\n',
        folder / project / "tests" / "__init__.py": "",
        # No DAG is to be looked for in there.
        folder / project / ".airflowignore": "*\n",
    }
    is_there = (folder / project).exists()
    if is_there:
        _check_same(folder / project, data)
    wanted = {**dags, **({} if is_there else {folder / name: source for name, source in sources.items()})}
    missing = {path: source for path, source in wanted.items() if not path.exists()}
    stray = [path for path in dags if path not in missing] if not is_there else []
    if stray or not missing:
        there = ", ".join(map(str, stray or dags))
        raise ConflictError(f"{there} is there already; nothing was written. Give another --name, or a higher --level")
    made = {path: _render(source, values) for path, source in missing.items()}
    made |= {} if is_there else plain
    done: list[Path] = []
    try:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                done.append(path)
                file.write(text)
    except BaseException:
        for path in done:
            path.unlink(missing_ok=True)
        if not is_there:
            shutil.rmtree(folder / project, ignore_errors=True)
        raise
    return done


def _check_same(project: Path, data: Data) -> None:
    """Refuse to add DAGs to a project of other data.

    :raises ConflictError: saying what the project is of.
    """
    if not (project / "project.py").is_file():
        raise ConflictError(
            f"{project} is there already, and is no project of this command's; nothing was written. Give another --name"
        )
    constants = read_constants(project / "project.py")
    roles = constants.get("ROLES")
    of = (constants.get("DATA"), roles.get("target") if isinstance(roles, dict) else None)
    if of != (data.path, data.target):
        raise ConflictError(
            f"{project} is there already, and is of the column {of[1]!r} of {of[0]}; nothing was written. Give another "
            "--name"
        )


def _render(source: str, values: dict[str, Any]) -> str:
    import jinja2

    templates = resources.files("airflow_mlops") / "skeleton"
    # What is made is Python and YAML, and no page.
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["listed"] = _listed
    return environment.from_string((templates / source).read_text("utf-8")).render(values)


def _listed(names: list[str]) -> str:
    """Return a list as it stands in Python, with a line for each name if one does not hold them all."""
    text = json.dumps(names, ensure_ascii=False)
    if len(text) <= LINE:
        return text
    return "[\n" + "".join(f"    {json.dumps(name, ensure_ascii=False)},\n" for name in names) + "]"


def project_name(path: str) -> str:
    """Return a name for a project from its file's."""
    stem = re.sub(r"\W+", "_", Path(path.rstrip("/")).stem.replace("*", "")).strip("_").lower()
    name = stem if stem and not stem[0].isdigit() else f"model_{stem}".rstrip("_")
    return f"{name}_model" if is_taken(name) or keyword.iskeyword(name) else name


def is_taken(name: str) -> bool:
    """Return whether a package of that name would never be imported: Python's own and installed ones come first."""
    installed = list({sysconfig.get_path(one) for one in ("purelib", "platlib")})
    # Python's own tests are not among the names that it lists.
    return name in (*sys.stdlib_module_names, "test") or PathFinder.find_spec(name, installed) is not None


def _values(project: str, data: Data, place: Place) -> dict[str, Any]:
    features = {name: kind for name, kind in data.kinds.items() if name not in (data.target, data.key, data.time)}
    metric, least, labels, said = "r2", 0.0, "rng.normal(size=count)", "prediction"
    if data.classes is not None:
        metric, least = ("roc_auc", 0.5) if data.classes == 2 else ("accuracy", 0.0)
        labels = f"np.arange(count) % {min(data.classes, 5)}"
        said = "prediction_probability" if data.classes == 2 else "prediction"
    roles = {"key": data.key, "time": data.time, "target": data.target}
    return {
        "name": project,
        "data": data.path,
        "target": data.target,
        "columns": list(data.kinds)[:100],
        "numbers": [name for name, kind in features.items() if kind == "number"],
        "words": [name for name, kind in features.items() if kind == "word"],
        "roles": {name: column for name, column in roles.items() if column},
        "key": data.key,
        "time": data.time,
        "split": data.split,
        "compares": data.compares,
        "window": data.window,
        "probation": data.probation[0],
        "looks": data.probation[1],
        "first": data.first,
        "preset": PRESETS[data.window] if data.window else "@daily",
        "thresholds": "learn" if data.learns else "evidently",
        "metric": metric,
        "least": least,
        "labels": labels,
        "said": said,
        "estimator": "HistGradientBoostingClassifier" if data.classes else "HistGradientBoostingRegressor",
        "repository": place.repository,
        "ref": place.ref,
        "prefix": place.prefix,
    }
