"""The core as one zip, which is brought along to another interpreter or into a container."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

#: The oldest Python that runs the core.
OLDEST_PYTHON = (3, 10)
#: Zip files know no time before this one; a real one would make each bundle another.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@functools.cache
def core_bundle() -> bytes:
    """Return a zip for ``PYTHONPATH`` that holds ``airflow_mlops/__init__.py`` and ``airflow_mlops/core``.

    Equal code makes equal bytes. Templates are in it; the core reads them through its loader.
    """
    package = resources.files("airflow_mlops")
    files = [("airflow_mlops/__init__.py", package / "__init__.py"), *_files(package / "core", "airflow_mlops/core")]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, file.read_bytes())
    return made.getvalue()


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for one in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if one.is_dir():
            if one.name != "__pycache__":
                yield from _files(one, f"{path}/{one.name}")
        elif not one.name.endswith((".pyc", ".pyo", "~")):
            yield f"{path}/{one.name}", one
