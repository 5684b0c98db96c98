"""Files that are published whole, as a local store does it: links, flushes, and what dead writers left behind."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from airflow_mlops.core import digests

#: Left-over temporary files older than this many seconds belong to no living writer.
STALE_SECONDS = 24 * 3600
#: Folder of a local store for what is not yet published.
STAGING = ".staging"
#: What the system says of a disk, or of a user's share of it, that is full.
FULL = (errno.ENOSPC, errno.EDQUOT)


def cure(error: OSError) -> str:
    """Return what helps against a full disk, as the end of a message; nothing against anything else."""
    if error.errno not in FULL:
        return ""
    return (
        ". Free some space there (airflow mlops gc shows what nothing needs) and try again; what was there is as it was"
    )


def create(source: Path, target: Path) -> bool:
    """Give a file a second name, which must be new, for good; return whether it was."""
    try:
        os.link(source, target)
        created = True
    except FileExistsError:
        # Over NFS the answer to a link that was made may get lost, and the second try finds it made.
        created = os.path.samefile(source, target)
    flush(target.parent)
    return created


def replace(source: Path, target: Path) -> bool:
    """Give a file a second name in the place of whatever has it, for good."""
    # A second name keeps the caller's file where it is.
    second = source.with_name(f"{source.name}.{uuid.uuid4().hex}")
    os.link(source, second)
    os.replace(second, target)
    flush(target.parent)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, and flush the names of those that are new."""
    new = []
    while not folder.is_dir():
        new.append(folder)
        folder = folder.parent
    for one in reversed(new):
        one.mkdir(exist_ok=True)
        flush(one.parent)


def files(folder: str, prefix: str) -> Iterator[str]:
    """Yield the files below a folder as keys; what is not yet published has none."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if prefix or entry.name != STAGING:
                yield from files(entry.path, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name


def sweep(staging: Path, now: float) -> None:
    """Remove what writers that were killed left behind.

    :param now: the file system's own time, which another machine's clock need not share.
    """
    for folder in staging.iterdir():
        with suppress(FileNotFoundError, NotADirectoryError):
            touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if writer_is_dead(folder.name) or now - touched > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache(maxsize=1)
def process_space() -> str:
    """Return a name for this boot of this machine, container by container: where a process id means something."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digests.hex_of(digests.of_json(parts))[:12]


def writer_is_dead(folder: str) -> bool:
    """Return whether a staging folder's writer was a process of this machine that is no more."""
    match = re.match(r"w-([0-9a-f]{12})-(\d+)-", folder)
    if not match or match[1] != process_space():
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def flush(path: Path) -> None:
    """Have the disk keep what a file or folder holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
