"""NewDataSensor: wait for new files."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import s3
from airflow_mlops.core.data import arrivals
from airflow_mlops.core.data.arrivals import Watermark
from airflow_mlops.core.data.places import is_s3
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_duration
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.sensors.base import LookingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

log = logging.getLogger("airflow_mlops.task")


class NewDataSensor(LookingSensor):
    """Wait until new files have come to a path, folder, glob or ``s3://`` URI, and have come whole.

    Returns what came: ``id`` (of all the files that are there now; the same whenever the same files are seen),
    ``source``, ``files``, ``bytes``, ``latest`` (when the latest was changed) and ``new``: ``files``, ``bytes`` and
    the first 20 ``paths``. It can be given as ``since`` to the next run.

    A file has settled when its size, time and version have not changed for ``settle``. A file that is still being
    written does not count, and neither does one whose name begins with ``.`` or, below a folder, ``_``.

    :param source: path, folder, glob, ``file://`` or ``s3://`` URI, or a list of these. A relative path is looked up
        as for ``SnapshotDataOperator``. (templated)
    :param since: a file is new if it was changed after this instant (ISO 8601), such as
        ``"{{ prev_start_date_success }}"``; or what a former run of this sensor returned. Default: each file is new.
        (templated)
    :param settle: how long a file must not have changed, such as ``"60s"``, ``"5m"``. (templated)
    :param min_files: so many new files it takes.
    :param aws_conn_id: connection of type ``aws`` for ``s3://``; None: what boto3 finds where this runs. (templated)
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    """

    finds = "arrival"
    template_fields: Sequence[str] = ("source", "since", "settle", "aws_conn_id")

    def __init__(
        self,
        *,
        source: str | list[str],
        since: str | dict[str, Any] | None = None,
        settle: str = "60s",
        min_files: int = 1,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if "{" not in settle:
            try:
                parse_duration(settle)
            except SpecError as error:
                raise ValueError(f"settle: {error}") from error
        if min_files < 1:
            raise ValueError(f"min_files must be 1 or more, got {min_files}")
        self.source = source
        self.since = since
        self.settle = settle
        self.min_files = min_files
        self.aws_conn_id = aws_conn_id

    def look(self, context: Context) -> dict[str, Any] | None:
        """Look once; in a worker again after the time that it takes a file to settle."""
        source = resolve_path(context, self.source)
        patterns, since, settle = arrivals.patterns_of(source), Watermark.of(self.since), parse_duration(self.settle)
        access = None
        if self.aws_conn_id and any(map(is_s3, patterns)):
            from airflow_mlops.hooks.s3 import S3AccessHook

            access = S3AccessHook(self.aws_conn_id).access
        with s3.using(access):
            files = arrivals.files_of(patterns)
            if len(arrivals.old(files, settle)) < len(files):
                if self.deferrable:
                    return None
                time.sleep(settle.total_seconds())
                files = arrivals.settled(files, arrivals.files_of(patterns))
        log.info("%s: %s files have settled", source, len(files))
        return arrivals.arrival(source, files, since, min_files=self.min_files)

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        from airflow_mlops.triggers.data import NewDataSensorTrigger

        return NewDataSensorTrigger(
            source=resolve_path(context, self.source),
            since=self.since,
            settle=self.settle,
            min_files=self.min_files,
            poll_interval=self.poke_interval,
            aws_conn_id=self.aws_conn_id,
        )

    def tell(self, found: dict[str, Any]) -> None:
        """Log what was found."""
        log.info("%s new files of %s, %s bytes", found["new"]["files"], found["files"], found["new"]["bytes"])
