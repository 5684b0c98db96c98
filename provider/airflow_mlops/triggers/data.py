"""Triggers that wait for new data: one for a sensor, one for an asset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mlops.core import s3
from airflow_mlops.core.data import arrivals
from airflow_mlops.core.data.arrivals import Files, Watermark
from airflow_mlops.core.data.places import is_s3
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_duration
from airflow_mlops.triggers import polling, watermark

if TYPE_CHECKING:
    from airflow_mlops.core.s3 import S3Access

log = logging.getLogger("airflow_mlops.task")

WATERMARK = "mlops_new_data"


class _Watch:
    """Looks at a source from an event loop: a thread lists the files, connections are asked for as Airflow wants."""

    def __init__(self, source: Any, settle: str, aws_conn_id: str | None) -> None:
        self.source = source
        self.patterns = arrivals.patterns_of(source)
        self.settle = parse_duration(settle)
        self._access: polling.Renewed[S3Access] | None = None
        if aws_conn_id is not None and any(map(is_s3, self.patterns)):
            self._access = polling.Renewed(lambda: _access_of(aws_conn_id))

    async def settled(self) -> dict[str, Any]:
        """Return the files that did not change for as long as it takes to settle."""
        first = await self._look()
        if arrivals.old(first, self.settle).keys() == first.keys():
            return first
        await asyncio.sleep(self.settle.total_seconds())
        return arrivals.settled(first, await self._look())

    async def _look(self) -> dict[str, Any]:
        access = await self._access.get() if self._access else None
        return await asyncio.to_thread(self._list, access)

    def _list(self, access: S3Access | None) -> dict[str, Any]:
        with s3.using(access):
            return arrivals.files_of(self.patterns)

    def forget(self) -> None:
        """Ask for the credentials anew before the next look."""
        if self._access:
            self._access.forget()


def _access_of(aws_conn_id: str) -> S3Access:
    from airflow_mlops.hooks.s3 import S3AccessHook

    return S3AccessHook(aws_conn_id).access


class NewDataSensorTrigger(BaseTrigger):
    """Wait until new files have come and settled, then end.

    Its one event is ``{"arrival": {...}}`` or ``{"error": {...}}``.

    :param source: absolute path, folder, glob, ``file://`` or ``s3://`` URI, or a list of these.
    :param since: see :class:`airflow_mlops.sensors.data.NewDataSensor`.
    :param settle: how long a file must not have changed, such as ``"60s"``.
    :param min_files: so many new files it takes.
    :param poll_interval: seconds between two looks.
    :param aws_conn_id: connection of type ``aws`` for ``s3://``.
    """

    def __init__(
        self,
        *,
        source: str | list[str],
        since: str | dict[str, Any] | None = None,
        settle: str = "60s",
        min_files: int = 1,
        poll_interval: float = 60.0,
        aws_conn_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.since = since
        self.settle = settle
        self.min_files = min_files
        self.poll_interval = poll_interval
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("source", "since", "settle", "min_files", "poll_interval", "aws_conn_id")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until something came."""
        watch: _Watch | None = None

        async def look() -> dict[str, Any] | None:
            nonlocal watch
            watch = watch or _Watch(self.source, self.settle, self.aws_conn_id)
            since = Watermark.of(self.since)
            return arrivals.arrival(self.source, await watch.settled(), since, min_files=self.min_files)

        def forget() -> None:
            if watch:
                watch.forget()

        yield await polling.first_find("arrival", look, forget, self.poll_interval)


class NewDataEventTrigger(BaseEventTrigger):
    """Say that new data has come, each time it does, for an ``AssetWatcher``; never ends.

    The event's payload is what :class:`airflow_mlops.sensors.data.NewDataSensor` returns. Its ``id`` is the same
    whenever the same files are seen, so a consumer that knows it already has nothing to do. What was seen is
    kept with the asset on Airflow 3.3 and later, before that in the store, and a triggerer that restarts goes on from
    there; when that is lost, the data that is there is told of once more, under its old id.

    :param source: absolute path, folder, glob, ``file://`` or ``s3://`` URI, or a list of these.
    :param settle: how long a file must not have changed, such as ``"60s"``.
    :param min_files: so many new files it takes.
    :param poll_interval: seconds between two looks.
    :param aws_conn_id: connection of type ``aws`` for ``s3://``; None: what boto3 finds where the triggerer runs.
    :raises ValueError: for a relative path, or a ``settle`` that is no duration.
    """

    def __init__(
        self,
        *,
        source: str | list[str],
        settle: str = "60s",
        min_files: int = 1,
        poll_interval: float = 60.0,
        aws_conn_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for one in [source] if isinstance(source, str) else source:
            if "://" not in one and not one.startswith("/"):
                raise ValueError(f"an asset's watcher runs in no DAG bundle: {one!r} must be absolute or a URI")
        try:
            parse_duration(settle)
        except SpecError as error:
            raise ValueError(f"settle: {error}") from error
        self.source = source
        self.settle = settle
        self.min_files = min_files
        self.poll_interval = poll_interval
        self.aws_conn_id = aws_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("source", "settle", "min_files", "poll_interval", "aws_conn_id")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for ever; what goes wrong is logged, and looked for again."""
        watch = _Watch(self.source, self.settle, self.aws_conn_id)
        since: Watermark | None = None
        before: Files | None = None
        while True:
            with polling.endured(str(self.source), watch.forget):
                if since is None:
                    since = await self._load()
                files = await watch.settled()
                found = arrivals.arrival(self.source, files, since, before, self.min_files)
                if found:
                    yield TriggerEvent(found)  # type: ignore[no-untyped-call]
                    since, before = Watermark.of(found), files
                    # After the event: killed between the two, it is told of once more, under the same id.
                    await watermark.told(self, WATERMARK, self._place(), since.to_dict())
                elif before is None:
                    if arrivals.identity_of(self.source, files.values()) == since.id:
                        before = files
                else:
                    # What was deleted may come again, and is new then.
                    before = {path: file for path, file in before.items() if path in files}
            await asyncio.sleep(self.poll_interval)

    async def _load(self) -> Watermark:
        try:
            return Watermark.of(await watermark.load(self, WATERMARK, self._place()))
        except SpecError as error:
            log.warning("what was seen cannot be read (%s): what is there is told of again", error)
            return Watermark()

    def _place(self) -> str:
        """Return what the watermark is of: with another source it does not count."""
        return arrivals.identity_of(self.source, ())
