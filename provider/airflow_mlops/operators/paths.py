"""Where a relative path in a DAG points to."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context


def resolve_path(context: Context, value: Any) -> Any:
    """Return a path argument as the step needs it: a relative path or glob against the DAG bundle.

    The bundle's root comes first, then the folder of the DAG's own file, if there is something only there. Absolute
    paths, ``~``, URIs and what is no text (a ref) stay as they are; of a list, such as
    the results of a mapped task, each item is resolved.
    """
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [resolve_path(context, one) for one in value]
    if not isinstance(value, str) or not value.strip() or "://" in value or value.startswith(("/", "~")):
        return value
    found = [os.path.join(root, value) for root in roots(context)]
    there = (path for path in found if os.path.exists(path) or (glob.has_magic(path) and glob.glob(path)))
    return next(there, found[0] if found else value)


def roots(context: Context) -> list[str]:
    """Return the folders that relative paths are looked up in: the DAG bundle's, then the DAG file's."""
    bundle = getattr(getattr(context["ti"], "bundle_instance", None), "path", None)
    file = getattr(context.get("dag"), "fileloc", None)
    folders = [os.fspath(bundle) if bundle else None, os.path.dirname(os.path.abspath(file)) if file else None]
    return [folder for folder in folders if folder]
