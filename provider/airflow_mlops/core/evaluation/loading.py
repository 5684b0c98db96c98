"""A model's verified copy: what its files say about it, and the model loaded from it with the code it brought along."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import UnsupportedError
from airflow_mlops.core.evaluation.outcome import without_values
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext


@dataclass
class ModelCopy:
    """One model's files, downloaded and verified once.

    :param ref: the model; its digest is filled in from the files where it was not known.
    :param folder: the folder with ``MLmodel``.
    :param verified: whether the files were compared with a digest on record or in the ref.
    """

    ref: ModelRef
    folder: Path
    verified: bool
    _modules: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def metadata(self) -> Any:
        """The ``MLmodel`` file as MLflow reads it."""
        from mlflow.models import Model

        return Model.load(str(self.folder / "MLmodel"))

    @property
    def flavors(self) -> list[str]:
        """MLflow's names of how it can be loaded."""
        return sorted(self.metadata.flavors)

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def inputs(self) -> list[str] | None:
        """The names of the columns that the signature asks for; None without a signature or with an unnamed one."""
        schema = self.metadata.get_input_schema()
        if schema is None or not schema.has_input_names():
            return None
        return [str(name) for name in schema.input_names()]

    def load(self) -> Any:
        """Return the model: the library's own object where it knows probabilities, else MLflow's pyfunc.

        :raises UnsupportedError: if it cannot be loaded here, with the reason.
        """
        import mlflow.pyfunc

        try:
            with models.quietly():
                loaded = mlflow.pyfunc.load_model(str(self.folder))
            native = {"sklearn", "xgboost", "lightgbm"} & set(self.metadata.flavors)
            raw = loaded.get_raw_model() if native else None
        except Exception as error:
            raise UnsupportedError(
                f"{self.ref.uri} cannot be loaded here: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}",
                uri=self.ref.uri,
            ) from error
        return loaded if raw is None else raw

    @contextlib.contextmanager
    def code(self) -> Iterator[None]:
        """Give the model the modules that were logged with it, and nobody else's of the same name.

        Two versions of one project bring two modules of one name. Python would give both the first one that was
        imported, and the champion would be judged with the challenger's features.
        """
        roots = self._code_roots()
        names = {path.stem for root in roots for path in root.iterdir() if path.suffix == ".py" or path.is_dir()}
        aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}
        path_before = list(sys.path)
        sys.modules.update(self._modules)
        sys.path[:0] = [str(root) for root in roots]
        try:
            yield
        finally:
            self._modules = {
                name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names
            }
            sys.modules.update(aside)
            sys.path[:] = path_before

    def _code_roots(self) -> list[Path]:
        folders = {flavor.get("code") for flavor in self.metadata.flavors.values()}
        return [self.folder / str(name) for name in sorted(filter(None, folders)) if (self.folder / str(name)).is_dir()]


class NoModel(ModelCopy):
    """What stands in a model's place where there is only a log of its predictions.

    :param subject: what it is a log of, for the report.
    """

    def __init__(self, subject: str, digest: str) -> None:
        super().__init__(ref=ModelRef(uri=subject, digest=digest), folder=Path(), verified=True)

    @property
    def bytes(self) -> int:
        """None."""
        return 0

    @property
    def flavors(self) -> list[str]:
        """None."""
        return []

    @property
    def inputs(self) -> list[str] | None:
        """Not known."""
        return None


def fetch(context: StepContext, ref: ModelRef, folder: Path, trust: models.Trust) -> ModelCopy:
    """Download a model once and verify it.

    :raises IntegrityError: if its files are not those on record, or none are and ``trust`` asks for it.
    """
    import dataclasses

    folder.mkdir()
    known = models.recorded(context, ref)
    verified = known is not None or ref.digest is not None
    local = models.download(context, ref, folder, trust)
    digest = models.digest_of(models.manifest_of(local))
    return ModelCopy(ref=dataclasses.replace(ref, digest=digest), folder=local, verified=verified)


def features(copy: ModelCopy, frame: pandas.DataFrame, not_features: list[str]) -> pandas.DataFrame:
    """Return the columns that a model takes, in its order: its signature's, else all but the role columns.

    Columns of its signature that the frame lacks are left out if they are optional.

    :raises UnsupportedError: if a column that it needs is missing.
    """
    names = copy.inputs
    if names is None:
        taken: pandas.DataFrame = frame.drop(columns=[name for name in frame.columns if name in not_features])
        return taken
    needed = set(copy.metadata.get_input_schema().required_input_names())
    missing = [name for name in names if name not in frame.columns and name in needed]
    if missing:
        raise UnsupportedError(
            f"the dataset lacks {len(missing)} of the model's {len(names)} columns: {', '.join(missing[:10])}",
            missing=missing[:50],
        )
    ordered: pandas.DataFrame = frame[[name for name in names if name in frame.columns]]
    return ordered


def said(error: Exception, frame: pandas.DataFrame) -> str:
    """Return why a model could not predict, without data values."""
    from airflow_mlops.core.errors import MlopsError

    return error.message if isinstance(error, MlopsError) else without_values(error, map(str, frame.columns))
