"""The Docker runtime: the step runs in a container of a Docker Engine.

The container outlives the worker: a retry after a crash finds it by its name, waits for it, and takes its result. It
does not outlive the task: it is removed when the step has ended, failed, was cancelled, or took too long.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.core.errors import CannotReachError, ConflictError, MlopsError, StoppedError, from_dict
from airflow_mlops.core.faults import crash_point
from airflow_mlops.runtimes import docker_archive, docker_container, docker_folders
from airflow_mlops.runtimes.base import Job, Runtime
from airflow_mlops.runtimes.bundle import core_bundle
from airflow_mlops.runtimes.child import Relay, portable_spec, secrets_of
from airflow_mlops.runtimes.docker_container import Container, Outcome, State
from airflow_mlops.runtimes.docker_engine import ContainerLostError, engine_of
from airflow_mlops.runtimes.docker_image import image_id
from airflow_mlops.runtimes.docker_outcome import result_of
from airflow_mlops.runtimes.docker_settings import ContainerSettings, settings_of
from airflow_mlops.runtimes.settings import secret_variables

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

T = TypeVar("T")

#: Seconds that an engine may be away while a container runs.
AWAY_SECONDS = 120.0
#: Seconds between two looks: the first, and the longest.
FIRST_LOOK, LAST_LOOK = 0.05, 1.0
#: How often a container is made that other tries of the same task keep making or removing.
MAKINGS = 5
#: Seconds between a container's making and its start, at most: what is younger may be starting in another try's hands.
STARTING_SECONDS = 15.0


class DockerRuntime(Runtime):
    """Run a step in a container.

    :param runtime: see :class:`~airflow_mlops.runtimes.docker_settings.ContainerSettings`.
    :raises SpecError: for a setting that no container could have.
    """

    can_defer = True

    def __init__(self, runtime: dict[str, Any]) -> None:
        self.settings = settings_of(runtime)
        self._container: Container | None = None
        self._cancelled = False

    def run(self, job: Job, log: logging.Logger) -> dict[str, Any]:
        """Run the step in a container, or wait for the one that an earlier try started."""
        relay = self._relay(job, log)
        with self._watched():
            container = self._obtain(job, log)
            outcome = self._follow(container, relay)
        return self._conclude(container, outcome, relay)

    def begin(self, job: Job, log: logging.Logger) -> BaseTrigger:
        """Start the container, or find that of an earlier try, and return the trigger that waits for it."""
        from airflow_mlops.triggers.docker import ContainerTrigger

        with self._watched():
            container = self._obtain(job, log)
        container.client.close()
        return ContainerTrigger(container=container.name, docker_conn_id=self.settings.docker_conn_id)

    def complete(self, job: Job, event: dict[str, Any], log: logging.Logger) -> dict[str, Any]:
        """Return the result of the container that the trigger has seen end."""
        engine = engine_of(self.settings.docker_conn_id)
        if "error" in event:
            raise from_dict(event["error"])
        relay = self._relay(job, log)
        with self._watched():
            container = Container(engine, engine.client(), str(event["container"]))
            container.seen = str(event.get("seen") or "")
            self._container = container
            outcome = self._follow(container, relay)
        return self._conclude(container, outcome, relay)

    def cancel(self) -> None:
        """Kill and remove the container."""
        self._cancelled = True
        if self._container is not None:
            docker_container.end_quickly(self._container.engine, self._container.name)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Leave no container behind if the body fails, unless it is the engine that does not answer."""
        try:
            yield
        except BaseException as error:
            if self._cancelled:
                raise StoppedError("the container was removed before its step had ended: the task was cancelled") from (
                    None if isinstance(error, MlopsError) else error
                )
            lost = isinstance(error, CannotReachError) and not isinstance(error, ContainerLostError)
            if self._container is not None and not lost:
                docker_container.end_quickly(self._container.engine, self._container.name)
            raise

    def _relay(self, job: Job, log: logging.Logger) -> Relay:
        """Return what passes the step's lines on. The container hides their secrets itself; errors may hold some."""
        variables, _ = _parted(job, self.settings)
        return Relay(log, secrets_of(variables, self.settings.private_environment))

    def _obtain(self, job: Job, log: logging.Logger) -> Container:
        """Return the task's container, which runs, or has ended with a result."""
        settings = self.settings
        engine = engine_of(settings.docker_conn_id)
        variables, visible = _parted(job, settings)
        spec = portable_spec(job.spec, job.ship)
        docker_folders.check_addresses(spec, variables, settings)
        folders = list(job.code if settings.code is None else settings.code)
        mounts = docker_folders.mounts_of(spec, variables, settings, engine, folders)
        if settings.user is None and any(not one.read_only for one in mounts[len(settings.mounts) :]):
            # What the step writes into the worker's folders must belong to the worker's user.
            settings = replace(settings, user=f"{os.getuid()}:{os.getgid()}")
        code = docker_archive.code_files(folders, [one.target for one in mounts])
        core = core_bundle()
        client = engine.client()
        facts = {
            "image": image_id(engine, client, settings, log),
            "settings": settings.identity(),
            "code": docker_archive.digest_of(code),
            "core": hashlib.sha256(core).hexdigest(),
        }
        identity = docker_container.identity_of(spec, facts)
        container = Container(engine, client, identity.name)
        for other in docker_container.others(engine, client, identity):
            log.info("Removing the container %s: an earlier try's, which was to do something else", other.name)
            other.remove()
        for _ in range(MAKINGS):
            if self._usable(container, log):
                self._container = container
                return container
            owner = int(uid) if (uid := (settings.user or "0").partition(":")[0]).isdigit() else 0
            with docker_archive.pack(spec, core, code, folders, owner) as archive:
                self._container = container
                try:
                    docker_container.create(engine, client, identity, settings, mounts, visible, archive)
                except (ConflictError, ContainerLostError):
                    # Another try of the task was quicker; what it has made is this task's as well.
                    self._container = None
                    time.sleep(LAST_LOOK)
                    continue
            crash_point("docker.created")
            private = [*settings.private_environment]
            limits = [limit for limit in (settings.timeout, job.limit) if limit is not None]
            try:
                container.start({"variables": variables, "private": private, "timeout": min(limits, default=None)})
            except ContainerLostError:
                # Another try took it for one that nobody would start any more.
                self._container = None
                continue
            crash_point("docker.started")
            log.info("Container %s of the image %s runs on %s", container.name, settings.image, engine.name)
            return container
        raise ConflictError(f"other tries of this task keep making and removing the container {identity.name}")

    def _usable(self, container: Container, log: logging.Logger) -> bool:
        """Say whether the task's container is there and runs, or has a result; one that is of no use is removed."""
        state = self._settled(container)
        if state is None or state.status == "removing":
            return False
        if state.alive:
            log.info(
                "Found the container %s of an earlier try, which runs since %s: waiting for it, starting none",
                container.name,
                state.started[:19],
            )
            return True
        if state.status == "created":
            why: Any = "it was never started"
        else:
            try:
                result_of(container.outcome(state), self.settings, container)
            except MlopsError as error:
                why = error
            else:
                why = None
        if why is None:
            log.info("Found the container %s of an earlier try, which has ended: taking its result", container.name)
            return True
        log.info("Removing the container %s of an earlier try; %s", container.name, why)
        container.remove()
        return False

    def _settled(self, container: Container) -> State | None:
        """Return the container's state once no other try can be about to start it."""
        state = container.state()
        end = time.monotonic() + STARTING_SECONDS
        while state is not None and state.status == "created" and time.monotonic() < end:
            made = docker_container.instant(state.created)
            if (dt.datetime.now(dt.timezone.utc) - made).total_seconds() > STARTING_SECONDS:
                break
            time.sleep(LAST_LOOK / 4)
            state = container.state()
        return state

    def _follow(self, container: Container, relay: Relay) -> Outcome:
        """Pass the container's lines on to the log until it has ended, and return how it did."""
        pause = FIRST_LOOK
        while True:
            lines, state = self._patiently(container.poll, container, relay.log)
            for line in lines:
                relay.line(line)
            if not state.alive:
                crash_point("docker.ended")
                return self._patiently(partial(container.outcome, state), container, relay.log)
            time.sleep(pause)
            pause = min(pause * 1.3, LAST_LOOK)

    def _patiently(self, call: Callable[[], T], container: Container, log: logging.Logger) -> T:
        """Ask the engine, for some time also one that is away: a restart takes seconds."""
        end = 0.0
        while True:
            try:
                return call()
            except ContainerLostError:
                raise
            except CannotReachError as error:
                now = time.monotonic()
                if not end:
                    end = now + AWAY_SECONDS
                    log.warning("%s; looking again for %.0f seconds", error.message, AWAY_SECONDS)
                if now > end or self._cancelled:
                    raise CannotReachError(
                        f"{error.message}. The container {container.name} ran there; a retry waits for it if it still "
                        "runs, takes its result if it has ended with one, and else starts it again"
                    ) from None
                time.sleep(LAST_LOOK)

    def _conclude(self, container: Container, outcome: Outcome, relay: Relay) -> dict[str, Any]:
        """Return the result of a container that has ended, and remove it as the settings say."""
        failed = True
        try:
            ended = outcome.ended
            if ended.get("seconds") is not None:
                peak = ended.get("peak_bytes", 0) >> 20
                relay.log.info(
                    "The step took %.1f s in its container; its largest process %d MB", ended["seconds"], peak
                )
            found = result_of(outcome, self.settings, container, relay)
            failed = False
            return found
        finally:
            self._part(container, failed, relay.log)
            crash_point("docker.removed")

    def _part(self, container: Container, failed: bool, log: logging.Logger) -> None:
        """Remove the container, or keep it for people to look at."""
        keep = self.settings.auto_remove == "never" or (failed and self.settings.auto_remove == "success")
        try:
            if keep and not self._cancelled:
                log.info("The container is kept (runtime['auto_remove']): docker logs %s", container.keep())
            else:
                container.remove()
        except MlopsError as error:
            log.warning("The container %s was left: %s. airflow mlops reap removes it", container.name, error.message)
        finally:
            container.client.close()


def _parted(job: Job, settings: ContainerSettings) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables that no configuration may show, and the others."""
    given = {"environment": settings.environment, "private_environment": settings.private_environment}
    secret = secret_variables(given)
    visible = {name: value for name, value in settings.environment.items() if name not in secret}
    return {**secret, **job.variables}, visible
