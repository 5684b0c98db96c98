"""The store: snapshots, reports, the ledger and every record, as named objects.

An object has a key (``reports/etl/3f2a/page.html``) and bytes. Readers see all of an object or none of it, a
conditional create lets exactly one of several writers win, and nothing is ever changed in place where two writers
could meet. :class:`LocalStore` keeps objects as files; another back end is one more subclass of :class:`Store`.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.core import digests, local_files
from airflow_mlops.core.errors import CannotReachError, IntegrityError, NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.local_files import FULL, STAGING, cure
from airflow_mlops.core.plain import clean

if TYPE_CHECKING:
    from airflow_mlops.core.s3 import S3Access

__all__ = ["LocalStore", "ObjectStat", "Store", "open_store", "safe_name"]


def safe_name(text: str) -> str:
    """Return a name that is safe as one part of a key: readable, and unequal for unequal texts.

    Letters, digits, ``.``, ``_``, ``-`` stay; if anything was replaced, sixteen digits of the text's digest follow.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip(".") or "_"
    # A text that looks as if it had a digest gets one too, or it could meet the text that the digest is of.
    if plain == text and len(text) <= 100 and not re.search(r"-[0-9a-f]{16}$", text):
        return plain
    digest = digests.hex_of(digests.of_bytes(text.encode("utf-8", "surrogatepass")))
    return f"{plain[:80]}-{digest[:16]}"


@dataclass(frozen=True)
class ObjectStat:
    """What a store knows of an object without reading it.

    :param size: in bytes.
    :param modified: when it was last published, in UTC, by the store's own clock.
    """

    size: int
    modified: dt.datetime


class Store(ABC):
    """Named objects with atomic publish and conditional create.

    Keys are relative POSIX paths without ``.`` and ``..`` parts. An object's URI is ``<store URI>/<key>``.

    :param uri: where the store is, without credentials.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    @abstractmethod
    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Publish an object whole.

        :param if_absent: create only: if the object exists, leave it and return False.
        :return: whether the object was written.
        """

    @abstractmethod
    def put_file(self, key: str, path: str | os.PathLike[str], *, if_absent: bool = False) -> bool:
        """Publish a local file as an object, in bounded memory; the file may be moved away or stay.

        :return: whether the object was written.
        """

    def put_all(self, objects: Mapping[str, bytes], after: Callable[[str], None] = lambda _: None) -> None:
        """Publish several objects that belong together, in their order, once all of them are staged.

        A disk that is full, or a process that is killed before, leaves what was there of all of them.

        :param after: called with each key that was published.
        """
        with self.staging() as folder:
            for number, data in enumerate(objects.values()):
                (folder / str(number)).write_bytes(data)
            for number, key in enumerate(objects):
                self.put_file(key, folder / str(number))
                after(key)

    @abstractmethod
    def get_bytes(self, key: str) -> bytes:
        """Return an object's bytes.

        :raises NotFoundError: if there is none.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Return whether the object exists."""

    @abstractmethod
    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` (whole parts, so ``"a/b"`` has no ``"a/bc"``), sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; it is no error if there is none."""

    @abstractmethod
    def stat(self, key: str) -> ObjectStat:
        """Return an object's size and age.

        :raises NotFoundError: if there is none.
        """

    @abstractmethod
    def leftovers(self, before: dt.datetime, *, delete: bool = False) -> Iterator[tuple[str, ObjectStat]]:
        """Yield what writers that died left unpublished: staged files, and uploads that were begun and never ended.

        :param before: only what was last written to before this instant; the caller allows for the longest upload.
        :param delete: remove each before it is yielded.
        :return: a name for people, and size (0 where the store does not tell) and age.
        """

    def stats(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """Yield the keys that :meth:`keys` yields with their size and age; one that goes meanwhile is left out."""
        for key in self.keys(prefix):
            with suppress(NotFoundError):
                yield key, self.stat(key)

    def copy(self, source: str, target: str) -> None:
        """Publish an object's bytes under another key as well, replacing what is there.

        :raises NotFoundError: if there is no such object.
        """
        with self.open_input(source) as file, self.staging() as folder:
            with open(folder / "object", "xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
            self.put_file(target, folder / "object")

    @abstractmethod
    def open_input(self, key: str) -> IO[bytes]:
        """Open an object for reading, seekable.

        :raises NotFoundError: if there is none.
        """

    @abstractmethod
    def staging_folder(self) -> str:
        """Return a new local folder for a writer's temporary files; see :meth:`staging`."""

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a temporary local folder, removed at the end; on a local store a publish from it is a link."""
        folder = Path(self.staging_folder())
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put_json(self, key: str, value: Any, *, if_absent: bool = False) -> bool:
        """Publish a JSON value, cleaned as :func:`airflow_mlops.core.vocabulary.clean` does."""
        data = json.dumps(clean(value), ensure_ascii=False, sort_keys=True, indent=1).encode()
        return self.put_bytes(key, data, if_absent=if_absent)

    def get_json(self, key: str) -> Any:
        """Return a JSON object's value.

        :raises NotFoundError: if there is none.
        :raises IntegrityError: if it is not JSON.
        """
        data = self.get_bytes(key)
        try:
            return json.loads(data)
        except ValueError as error:
            raise IntegrityError(f"{self.uri_of(key)} is not JSON; it was altered outside the provider") from error

    def find_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object's dict, or None if there is no such object."""
        with suppress(NotFoundError):
            return dict(self.get_json(key))
        return None

    def uri_of(self, key: str) -> str:
        """Return the URI of an object."""
        return f"{self.uri}/{check_key(key)}"

    def key_of(self, uri: str) -> str | None:
        """Return the key of an object of this store, or None for a URI that is elsewhere."""
        prefix = self.uri + "/"
        try:
            return check_key(uri[len(prefix) :]) if uri.startswith(prefix) else None
        except SpecError:
            return None


def check_key(key: str) -> str:
    """Return the key if it is a plain relative path.

    :raises SpecError: for an absolute path, a backslash, a NUL, or an empty, ``.`` or ``..`` part.
    """
    parts = key.split("/")
    if not key or "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise SpecError(f"{key!r} is not a store key: it must be a relative path without '.' and '..'")
    return key


class LocalStore(Store):
    """A store in a local folder.

    A publish writes a temporary file on the same file system, flushes it to disk, and links (create) or renames
    (replace) it into place; then the folder is flushed. Temporary files live in ``.staging``, which has no keys.

    :param root: the folder; made on first write.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))
        super().__init__(self.root.as_uri())

    def key_of(self, uri: str) -> str | None:
        """Return the key of a ``file://`` URI below the root, whatever its escapes, or None."""
        path = Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)
        try:
            return check_key(path.relative_to(self.root).as_posix())
        except (ValueError, SpecError):
            return None

    def uri_of(self, key: str) -> str:
        """Return the ``file://`` URI of an object."""
        return self.path_of(key).as_uri()

    def path_of(self, key: str) -> Path:
        """Return the file of an object."""
        if check_key(key).partition("/")[0] == STAGING:
            raise SpecError(f"{key!r} is not a store key: {STAGING} holds what is not yet published")
        return self.root / key

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:  # noqa: D102
        with self._errors(), self.staging() as folder:
            path = folder / "object"
            path.write_bytes(data)
            return self.put_file(key, path, if_absent=if_absent)

    def put_all(self, objects: Mapping[str, bytes], after: Callable[[str], None] = lambda _: None) -> None:  # noqa: D102
        with self._errors():
            super().put_all(objects, after)

    def put_file(self, key: str, path: str | os.PathLike[str], *, if_absent: bool = False) -> bool:  # noqa: D102
        target, source = self.path_of(key), Path(os.path.abspath(path))
        with self._errors():
            if if_absent and target.exists():
                local_files.flush(target.parent)  # the winner may have died before it did
                return False
            if self.root / STAGING not in source.parents:
                with self.staging() as folder:
                    copy = folder / "object"
                    shutil.copyfile(source, copy)
                    return self.put_file(key, copy, if_absent=if_absent)
            local_files.make_folder(target.parent)
            local_files.flush(source)
            return local_files.create(source, target) if if_absent else local_files.replace(source, target)

    def get_bytes(self, key: str) -> bytes:  # noqa: D102
        with self.open_input(key) as file:
            return file.read()

    def exists(self, key: str) -> bool:  # noqa: D102
        return self.path_of(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:  # noqa: D102
        start = self.path_of(prefix) if prefix else self.root
        if prefix and start.is_file():
            yield prefix
            return
        yield from sorted(local_files.files(str(start), f"{prefix}/" if prefix else ""))

    def delete(self, key: str) -> None:  # noqa: D102
        with self._errors():
            self.path_of(key).unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:  # noqa: D102
        path, copy = self.path_of(source), self.path_of(target)
        if not path.is_file():
            raise NotFoundError(f"there is no object {source!r} in the store at {self.uri}", key=source)
        with self._errors():
            local_files.make_folder(copy.parent)
            try:
                # An object is never altered in place, so a second name is as good as a copy.
                os.link(path, copy)
            except FileNotFoundError as error:
                raise NotFoundError(f"there is no object {source!r} in the store at {self.uri}", key=source) from error
            except FileExistsError:
                with self.staging() as folder:
                    os.link(path, folder / "object")
                    local_files.replace(folder / "object", copy)
            local_files.flush(copy.parent)

    def stat(self, key: str) -> ObjectStat:  # noqa: D102
        try:
            with self._errors():
                found = self.path_of(key).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"there is no object {key!r} in the store at {self.uri}", key=key) from error
        return _object_stat(found)

    def leftovers(self, before: dt.datetime, *, delete: bool = False) -> Iterator[tuple[str, ObjectStat]]:  # noqa: D102
        staging = self.root / STAGING
        with self._errors():
            folders = sorted(staging.iterdir()) if staging.is_dir() else []
        for folder in folders:
            with suppress(FileNotFoundError, NotADirectoryError):
                stats = [_object_stat(path.stat()) for path in (folder, *folder.rglob("*"))]
                touched = max(stat.modified for stat in stats)
                if not (local_files.writer_is_dead(folder.name) or touched < before):
                    continue
                if delete:
                    shutil.rmtree(folder, ignore_errors=True)
                yield f"{STAGING}/{folder.name}", ObjectStat(sum(stat.size for stat in stats[1:]), touched)

    def open_input(self, key: str) -> IO[bytes]:  # noqa: D102
        try:
            with self._errors():
                return open(self.path_of(key), "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"there is no object {key!r} in the store at {self.uri}", key=key) from error

    def staging_folder(self) -> str:  # noqa: D102
        staging = self.root / STAGING
        with self._errors():
            staging.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(dir=staging, prefix=f"w-{local_files.process_space()}-{os.getpid()}-")
            local_files.sweep(staging, now=os.stat(folder).st_mtime)
        return folder

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what an operator of the machine must mend into an error that says so."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise SpecError(
                    f"the store at {self.uri} cannot be used: {error.strerror} ({error.filename}); "
                    "give the user that runs this the right to read and write there, or name another folder",
                    uri=self.uri,
                ) from error
            if error.errno in (*FULL, errno.EIO, errno.ESTALE):
                raise CannotReachError(
                    f"the store at {self.uri} cannot be written now: {error.strerror}{cure(error)}", uri=self.uri
                ) from error
            if error.errno in (errno.EXDEV, errno.ENOTSUP, errno.ENOSYS):
                raise UnsupportedError(
                    f"the store at {self.uri} must be one file system with hard links: a conditional create needs them",
                    uri=self.uri,
                ) from error
            raise


def _object_stat(found: os.stat_result) -> ObjectStat:
    return ObjectStat(found.st_size, dt.datetime.fromtimestamp(found.st_mtime, dt.timezone.utc))


def open_store(uri: str, access: S3Access | None = None) -> Store:
    """Return the store at a URI: an absolute path or ``file://`` for a local folder, or ``s3://bucket/prefix``.

    Nothing is reached or written yet.

    :param access: to the server of an ``s3://`` store; default: what the environment says, see
        :mod:`airflow_mlops.core.s3`.
    :raises SpecError: for a relative path, or one on another machine.
    :raises UnsupportedError: for a scheme without a back end.
    """
    parts = urlsplit(uri) if "://" in uri or uri.startswith("file:") else None
    if parts is not None and parts.scheme == "s3":
        from airflow_mlops.core.store_s3 import S3Store

        return S3Store(uri, access)
    if parts is not None and parts.scheme != "file":
        raise UnsupportedError(
            f"there is no store back end for {parts.scheme}://; use a folder or s3://bucket/prefix", scheme=parts.scheme
        )
    path = unquote(parts.path) if parts else uri
    if not os.path.isabs(path) or (parts and parts.netloc not in ("", "localhost")):
        raise SpecError(f"a store is an absolute path, file:///... or s3://bucket/prefix, got {uri!r}")
    return LocalStore(path)
