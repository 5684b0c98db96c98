"""Recipes on record: the code that made a model, kept so that it can be fitted again on other rows.

What a recipe needs beside its code stands in the model's training record (hyperparameters, seed, split); the code
itself is one zip a digest, ``recipes/<digest>.zip``, of the user's own packages.
"""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models
from airflow_mlops.core.errors import NotFoundError, UnsupportedError
from airflow_mlops.core.training import fitting, packaging, provenance
from airflow_mlops.core.training.recipe import FunctionRecipe, Recipe
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.store import Store

FOLDER = "recipes"
#: Every file has the same time, so that the same code makes the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def record(
    store: Store, recipe: Recipe, nullable: Any, ref: DatasetRef, metrics: list[Any] | None = None
) -> dict[str, Any] | None:
    """Keep a recipe's code, and return what else it takes to follow it again; None where another process could not."""
    if not isinstance(recipe, FunctionRecipe) or not provenance.importable(provenance.inner(recipe.trainer.function)):
        return None
    key = _key(recipe.digest)
    if not store.exists(key):
        with store.staging() as scratch:
            packaging.copy_code(recipe.sources.own, scratch / "code")
            with zipfile.ZipFile(scratch / "code.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted((scratch / "code").rglob("*.py")):
                    name = path.relative_to(scratch / "code").as_posix()
                    archive.writestr(zipfile.ZipInfo(name, EPOCH), path.read_bytes())
            store.put_file(key, scratch / "code.zip", if_absent=True)
    return {
        "hyperparameters": recipe.hyperparameters,
        "metrics": [one if isinstance(one, str) else fitting.name_of(one) for one in metrics or []] or None,
        "nullable": nullable or None,
        "trust": recipe.trust,
        "dataset": {"format": ref.format, "window": ref.window, "roles": ref.roles},
    }


def settings_of(context: StepContext, alias: str) -> dict[str, Any]:
    """Return the hyperparameters that ``name@alias`` was trained with; none while there is no such version.

    :raises UnsupportedError: if they are not on record.
    """
    name, _, short = alias.rpartition("@")
    if models.version_by_alias(context, name, short) is None:
        context.log.info("There is no %s yet: the trainer's own defaults", alias)
        return {}
    ref = models.resolve(context, f"models:/{alias}")
    kept = (ref.training or {}).get("recipe")
    if not isinstance(kept, dict):
        raise UnsupportedError(
            f"the hyperparameters of {alias} (version {ref.version}) are not on record: only those of a model that "
            "TrainModelOperator made with an importable trainer= are; give them as a dict"
        )
    found = dict(kept.get("hyperparameters") or {})
    context.log.info("Hyperparameters of %s (version %s): %s", alias, ref.version, found)
    return found


def _key(digest: str) -> str:
    return f"{FOLDER}/{digests.hex_of(digest)}.zip"


@contextlib.contextmanager
def opened(store: Store, ref: ModelRef, folder: Path) -> Iterator[FunctionRecipe]:
    """Give the recipe that a model was made by, with its own code in the place of what is imported now.

    :param folder: where its code is unpacked.
    :raises UnsupportedError: if it is not on record, or is no function.
    :raises SpecError: if its code cannot be imported here.
    """
    code, training = ref.code or {}, ref.training or {}
    kept, trainer, digest = training.get("recipe"), code.get("trainer"), code.get("digest")
    if not isinstance(kept, dict) or not trainer or not digest:
        raise UnsupportedError(
            "its recipe is not on record: only what TrainModelOperator made with an importable trainer= can be refitted"
        )
    try:
        with store.open_input(_key(digest)) as file, zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    except NotFoundError:
        raise UnsupportedError(f"the code of its recipe ({digest[:19]}) is not in the store") from None
    with _instead(folder):
        recipe = FunctionRecipe(
            trainer, code.get("features"), kept.get("hyperparameters"), training.get("seed") or 0, kept.get("trust")
        )
        if recipe.digest != digest:
            raise UnsupportedError(
                f"the code that is imported as {trainer} has another digest than the one that made it ({digest[:19]})"
            )
        yield recipe


@contextlib.contextmanager
def _instead(folder: Path) -> Iterator[None]:
    """Have the modules of a folder imported instead of those of the same names that are there."""
    names = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(aside)
        sys.path[:] = before
