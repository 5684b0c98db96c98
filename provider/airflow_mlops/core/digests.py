"""Content digests of JSON values, files and folders."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

PREFIX = "sha256:"


def of_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of the bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def of_json(value: Any) -> str:
    """Return the digest of a JSON value: keys sorted, no white space, UTF-8.

    A callable or class counts by its import name, anything else that is no JSON by its text.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_text)
    return of_bytes(text.encode("utf-8", "surrogatepass"))


def _text(value: Any) -> str:
    # The text of a function has its address in memory, which is another one in each process.
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}:{name}" if isinstance(name, str) else str(value)


def of_file(path: str | os.PathLike[str]) -> str:
    """Return the digest of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return PREFIX + digest.hexdigest()


def hex_of(digest: str) -> str:
    """Return the hexadecimal part of ``sha256:<hex>``."""
    return digest.removeprefix(PREFIX)


def manifest_of(folder: str | os.PathLike[str], ignore: tuple[str, ...] = ()) -> dict[str, str]:
    """Return ``{relative POSIX path: digest}`` for every file below a folder, sorted by path.

    :param folder: the folder to walk; a link to a file counts as that file, a link to a folder is not followed.
    :param ignore: file names that do not count, wherever they stand.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in ignore)
    return {path.relative_to(root).as_posix(): of_file(path) for path in files}
