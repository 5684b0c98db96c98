"""What ``airflow mlops init`` does: a DAG and a small project for the user's own data. Imported when it runs."""

from __future__ import annotations

import argparse
import json
import keyword
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from airflow_mlops.cli.session import command, note
from airflow_mlops.core.errors import ConflictError, EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.extras import require

LEVELS = (1,)
#: Rows that are looked at to tell what the target is.
SAMPLE = 100_000
#: A target of whole numbers with so many values or fewer is one of classes.
MAX_CLASSES = 20


@dataclass(frozen=True)
class Data:
    """What a file says of itself.

    :param kinds: of each column: ``number``, ``word``, ``time``, or ``other``.
    :param classes: how many values the target has; None for a quantity.
    """

    path: str
    target: str
    kinds: dict[str, str]
    classes: int | None


@command
def init(args: argparse.Namespace) -> None:
    """Write a DAG and a small project that run as they are."""
    if args.level not in LEVELS:
        raise SpecError(
            f"--level {args.level} has no skeleton yet; there is one of level {', '.join(map(str, LEVELS))}"
        )
    written = write(args.level, Path(args.folder), look(args.data, args.target), args.name)
    for path in written:
        print(path)
    name = written[0].stem.removesuffix(f"_level_{args.level}")
    note(f"Try it: airflow dags test {name}_level_{args.level}, with {args.folder} as (or in) the dags folder")


def look(data: str, target: str) -> Data:
    """Read what kind each column is.

    :raises MissingSourceError: if there is no such file.
    :raises MissingColumnError: if the target is none of its columns.
    :raises EmptyDataError: if it has no rows, or the target no two values.
    """
    require("pyarrow", "init")
    import pyarrow as pa

    from airflow_mlops.core.data.reading import open_source

    path = data if "://" in data else str(Path(data).expanduser().absolute())
    source = open_source(path)
    names = list(source.schema.names)
    if target not in names:
        raise MissingColumnError(f"{data} has no column {target!r}{did_you_mean(target, names)}", column=target)
    values: set[Any] = set()
    seen = 0
    for batch in source.batches([target]):
        values |= {value for value in batch.column(0).to_pylist() if value is not None}
        seen += batch.num_rows
        if seen >= SAMPLE:
            break
    if len(values) < 2:
        raise EmptyDataError(f"the target {target!r} of {data} has {len(values)} value(s); a model needs two or more")
    kinds = {field.name: _kind(pa, field.type) for field in source.schema}
    classes = len(values) if _is_class(pa, source.schema.field(target).type, values) else None
    return Data(path, target, kinds, classes)


def _kind(pa: Any, kind: Any) -> str:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return "number"
    return "word" if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind) else "other"


def _is_class(pa: Any, kind: Any, values: set[Any]) -> bool:
    if _kind(pa, kind) == "number" and not pa.types.is_boolean(kind):
        return len(values) <= MAX_CLASSES and all(float(value).is_integer() for value in values)
    return True


def write(level: int, folder: Path, data: Data, name: str | None = None) -> list[Path]:
    """Write the files, or none if one is there already; return them, the DAG first.

    :raises ConflictError: naming what is there.
    :raises SpecError: for a name that no package can have.
    """
    import jinja2

    project = name or _project_name(data.path)
    if not project.isidentifier() or keyword.iskeyword(project):
        raise SpecError(f"{project!r} cannot be the name of a Python package; give another one by --name")
    templates = resources.files("airflow_mlops") / "skeleton"
    # What is made is Python and YAML, and no page.
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    made = {
        folder / target: environment.from_string((templates / source).read_text("utf-8")).render(
            _values(level, project, data)
        )
        for target, source in (
            (f"{project}_level_{level}.py", f"dag_level_{level}.py.jinja"),
            (f"{project}/trainer.py", "trainer.py.jinja"),
            (f"{project}/expectations.yaml", "expectations.yaml.jinja"),
            (f"{project}/tests/test_{project}.py", "test_project.py.jinja"),
        )
    }
    made[folder / project / "__init__.py"] = f'"""The model {project}."""\n'
    # No DAG is to be looked for in there.
    made[folder / project / ".airflowignore"] = "*\n"
    there = [path for path in made if path.exists()] or [one for one in (folder / project,) if one.exists()]
    if there:
        raise ConflictError(f"{', '.join(map(str, there))} is there already; nothing was written. Give another --name")
    try:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except BaseException:
        shutil.rmtree(folder / project, ignore_errors=True)
        (folder / f"{project}_level_{level}.py").unlink(missing_ok=True)
        raise
    return list(made)


def _project_name(path: str) -> str:
    stem = re.sub(r"\W+", "_", Path(path.rstrip("/")).stem.replace("*", "")).strip("_").lower()
    return stem if stem and not stem[0].isdigit() else f"model_{stem}".rstrip("_")


def _values(level: int, project: str, data: Data) -> dict[str, Any]:
    features = {name: kind for name, kind in data.kinds.items() if name != data.target}
    times = [name for name, kind in features.items() if kind == "time"]
    # Two times could mean anything; one says when the row is of.
    time = times[0] if len(times) == 1 else None
    metric, least, labels = "r2", 0.0, "rng.normal(size=count)"
    if data.classes is not None:
        metric, least = ("roc_auc", 0.5) if data.classes == 2 else ("accuracy", 0.0)
        labels = f"np.arange(count) % {min(data.classes, 5)}"
    return {
        "level": level,
        "name": project,
        "data": data.path,
        "target": data.target,
        "columns": list(data.kinds)[:100],
        "numbers": [name for name, kind in features.items() if kind == "number"],
        "words": [name for name, kind in features.items() if kind == "word"],
        "roles": {"target": data.target, **({"time": time} if time else {})},
        "split": {"by": "time", "test": 0.2} if time else {"by": "random", "test": 0.2},
        "metric": metric,
        "least": least,
        "labels": labels,
        "estimator": "HistGradientBoostingClassifier" if data.classes else "HistGradientBoostingRegressor",
    }
