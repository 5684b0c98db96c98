"""A check-up of store, registry and MLflow's database: what is wrong, and how to mend it."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.errors import ConflictError, IntegrityError, MlopsError, NotFoundError
from airflow_mlops.core.lifecycle import erase, lock, sweep, uses
from airflow_mlops.core.registry.ledger import Entry, Ledger, last_done
from airflow_mlops.core.registry.overview import models_with_ledger
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.store import Store
from airflow_mlops.core.tracking import sqlite_file, strip_credentials

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

State = Literal["ok", "warn", "fail"]
#: Difference between this machine's clock and the store's, in seconds.
CLOCK_WARN, CLOCK_FAIL = 30, 600
#: Free bytes of the disk.
DISK_WARN, DISK_FAIL = 5 << 30, 500 << 20


@dataclass(frozen=True)
class Finding:
    """One line of a check-up.

    :param cure: what to do about it; None where all is well.
    """

    check: str
    state: State
    message: str
    cure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict, without credentials."""
        return {
            "check": self.check,
            "state": self.state,
            "message": strip_credentials(self.message),
            "cure": self.cure and strip_credentials(self.cure),
        }


def guarded(check: str, function: Callable[..., Iterable[Finding]], *args: Any) -> Iterator[Finding]:
    """Yield a check's findings; if it fails itself, that is one."""
    try:
        yield from function(*args)
    except MlopsError as error:
        yield Finding(check, "fail", error.message, "see the message")
    except Exception as error:
        yield Finding(
            check, "fail", f"the check itself failed: {type(error).__name__}: {str(error)[:300]}", "report it"
        )


def store(one: Store) -> Iterator[Finding]:
    """Write, read, create twice and delete a probe, and compare the clocks."""
    key = f"{lock.FOLDER}/probes/{uuid.uuid4().hex}"
    try:
        before = time.time()
        first = one.put_bytes(key, b"probe", if_absent=True)
        second = one.put_bytes(key, b"other", if_absent=True)
        after = time.time()
        if not first or second or one.get_bytes(key) != b"probe":
            yield Finding(
                "store",
                "fail",
                f"{one.uri} lets two writers create the same object",
                "use a server that honours If-None-Match on PUT, or a file system with hard links: without it the "
                "ledger cannot decide between two promotions",
            )
        else:
            yield Finding("store", "ok", f"{one.uri} can be written, read and created in conditionally")
        written = one.stat(key).modified.timestamp()
        yield _clock(max(before - written, written - after, 0.0))
    finally:
        one.delete(key)


def _clock(off: float) -> Finding:
    cure = "set the clocks by NTP: leases of promotions and the grace period of gc go by them"
    # Some stores give whole seconds only.
    state: State = "fail" if off > CLOCK_FAIL else "warn" if off > CLOCK_WARN else "ok"
    message = f"the store's clock and this machine's differ by {off:.0f} s"
    return Finding("clock", state, message, None if state == "ok" else cure)


def leftovers(one: Store) -> Iterator[Finding]:
    """Look for what killed processes left in the store."""
    left = list(one.leftovers(uses.now() - dt.timedelta(days=1)))
    begun = [key for folder in (sweep.RECORDS, erase.RECORDS) for key in one.keys(folder)][-200:]
    died = [key for key in begun if one.get_json(key)["state"] == "begun"]
    held = list(one.keys(f"{lock.FOLDER}/locks"))
    running = bool(held) and float(one.get_json(held[-1])["until"]) > time.time()
    if died and not running:
        what = "an erasure" if died[0].startswith(erase.RECORDS) else "a collection"
        cure = "run it again with the same keys" if what == "an erasure" else "run `airflow mlops gc --delete` again"
        yield Finding("store leftovers", "warn", f"{what} was begun and never ended ({died[0]})", cure)
    if left:
        size = sum(stat.size for _, stat in left)
        yield Finding(
            "store leftovers",
            "warn",
            f"{len(left)} staged files or uploads of dead writers, {size:,} bytes",
            "they go with the next `airflow mlops gc --delete`",
        )
    if not left and (running or not died):
        yield Finding("store leftovers", "ok", "nothing is left of dead writers")


def ledgers(context: StepContext) -> Iterator[Finding]:
    """Compare every ledger with the registry: bound to each other, nothing unfinished, aliases where they should be."""
    names = models_with_ledger(context)
    for name in names:
        yield _ledger(context, name)
    if not names:
        yield Finding("ledger", "ok", "no model has been registered here yet")


def _ledger(context: StepContext, name: str) -> Finding:
    ledger, registered = Ledger(context.store, name), RegisteredModel(context, name)
    try:
        ledger.bind(registered, begin=False)
        entries, aliases = ledger.entries(), registered.aliases()
    except ConflictError as error:
        return Finding("ledger", "fail", error.message, "use the store and the MLflow that belong together")
    except IntegrityError as error:
        return Finding("ledger", "fail", error.message, "restore the store from a backup")
    except NotFoundError:
        return Finding(
            "ledger",
            "warn",
            f"{name!r} has a ledger here, but MLflow has no such registered model",
            "if it was deleted on purpose there is nothing to do; else check that this is the right MLflow",
        )
    if entries and entries[-1].state == "open":
        return _unfinished(name, entries[-1])
    moved = [
        alias for alias in {e.alias for e in entries} | set(aliases) if aliases.get(alias) != _said(entries, alias)
    ]
    if moved:
        return Finding(
            "ledger",
            "warn",
            f"{name!r}: {', '.join(sorted(map(repr, moved)))} was moved outside the ledger",
            f"see `airflow mlops status {name}`; the next promotion puts it on record",
        )
    return Finding("ledger", "ok", f"{name!r}: {len(entries)} entries, and MLflow agrees")


def _said(entries: list[Entry], alias: str) -> int | None:
    tail = last_done(entries, alias)
    return tail.version if tail else None


def _unfinished(name: str, entry: Entry) -> Finding:
    left = float(entry.intent["lease_until"]) - time.time()
    if left > 0:
        return Finding("ledger", "ok", f"{name!r}: entry {entry.seq} is being made now")
    return Finding(
        "ledger",
        "warn",
        f"{name!r}: {entry} was begun at {entry.intent['at'][:19]} and never finished",
        "retry its task, or promote again: the next operation finishes or voids it",
    )


def database(tracking_uri: str) -> Iterator[Finding]:
    """Compare the schema of an SQLite back end with that of the MLflow installed; nothing for another back end."""
    file = sqlite_file(tracking_uri)
    if file is None:
        return
    if not file.is_file():
        yield Finding("MLflow database", "ok", f"{file} is made on first use")
        return
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("select version_num from alembic_version").fetchone()
        except sqlite3.DatabaseError:
            row = None
    if row is None:
        yield Finding(
            "MLflow database",
            "fail",
            f"{file} is no database of MLflow, or its first set-up was cut short",
            "if no model is in it, move it away; else restore it from a backup",
        )
        return
    yield _revision(file, str(row[0]))


def _revision(file: Path, revision: str) -> Finding:
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if revision == scripts.get_current_head():
        return Finding("MLflow database", "ok", f"{file} has the schema of MLflow {mlflow.__version__}")
    try:
        scripts.get_revision(revision)
    except CommandError:
        return Finding(
            "MLflow database",
            "fail",
            f"{file} was written by a newer MLflow than {mlflow.__version__} (schema {revision})",
            "install that MLflow wherever Airflow runs",
        )
    return Finding(
        "MLflow database",
        "warn",
        f"{file} has the schema of an older MLflow ({revision})",
        f"back it up; then run: mlflow db upgrade sqlite:///{file}",
    )


def disk(folder: Path) -> Iterator[Finding]:
    """Look at the room on the disk that a folder is or will be on."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    state: State = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
    cure = None if state == "ok" else "make room; `airflow mlops gc` says what the store could give back"
    yield Finding("disk", state, f"{free / (1 << 30):.1f} GiB free at {folder}", cure)
