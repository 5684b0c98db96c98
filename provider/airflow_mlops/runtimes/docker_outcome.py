"""What a container's end means: the step's result, or the error that says what happened and what to do."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

from airflow_mlops.core.errors import CrashedError, MissingExtraError, MlopsError, StoppedError
from airflow_mlops.runtimes import child
from airflow_mlops.runtimes.docker_container import Container, Outcome
from airflow_mlops.runtimes.docker_engine import ContainerLostError, Engine, OutOfMemoryError
from airflow_mlops.runtimes.docker_settings import ContainerSettings


def result_of(
    outcome: Outcome, settings: ContainerSettings, container: Container, relay: child.Relay | None = None
) -> dict[str, Any]:
    """Return the result that a step left in its container, or raise its error.

    :param relay: what its lines went through: errors repeat the last of them, without secrets.
    :raises MlopsError: the step's own error.
    :raises StoppedError: if it took too long.
    :raises OutOfMemoryError: if its memory was too small.
    :raises CrashedError: if its interpreter ended as none should.
    :raises ContainerLostError: if it was ended from outside.
    """
    state, ended, image = outcome.state, outcome.ended, settings.image
    tail = relay.tail if relay else ()
    if outcome.report is not None and "error" not in outcome.report:
        return outcome.report
    if ended.get("timed_out"):
        raise StoppedError(
            f"the step took longer than {ended['timeout']:g} s, and its container was ended; raise runtime['timeout'] "
            "or the task's execution_timeout, whichever is less, or make the step quicker",
            timeout=ended["timeout"],
        )
    if outcome.report is not None:
        try:
            return child.result_of(
                outcome.report,
                state.code,
                tail,
                subject=f"the container {container.name}",
                secrets=relay.secrets if relay else None,
            )
        except MissingExtraError as error:
            raise MissingExtraError(
                f"the image {image!r} lacks a library: {error.message.replace('installed here', 'installed there')}. "
                "In the image's Dockerfile that is a line 'RUN pip install ...'",
                **{**error.fields, "image": image},
            ) from None
        except CrashedError:
            # A library may have raised because the kernel had killed a process that it started.
            if not ended.get("oom_kills"):
                raise
    if state.oom or ended.get("oom_kills"):
        raise _out_of_memory(settings, container.engine)
    code = ended.get("returncode", state.code)
    if ended.get("stopped") or (not ended and state.code in (0, 75, 137, 143, 255)):
        raise ContainerLostError(
            f"the container {container.name} was ended from outside before its step was done (exit code {state.code}): "
            "the engine or the worker was stopped, or somebody stopped the container; a retry starts it again"
        )
    said = ("; it last said: " + " / ".join(tail[-3:])) if tail else ""
    if code < 0:
        name = str(-code)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
        raise CrashedError(
            f"the step was killed by {name} in a container of the image {image!r}; a library in it may be broken "
            f"or built for another processor{said}",
            signal=name,
        )
    raise CrashedError(
        f"the step left no report in a container of the image {image!r} and ended with exit code {code}"
        f"{f' ({state.error})' if state.error else ''}{said}",
        exit_code=code,
    )


def _out_of_memory(settings: ContainerSettings, engine: Engine) -> MlopsError:
    if settings.memory is None:
        return ContainerLostError(
            f"the machine of {engine.name} ran out of memory, and the kernel killed the step; let fewer steps run "
            "there at once, or give it more memory, and give each a runtime['memory']"
        )
    return OutOfMemoryError(
        f"the step needed more memory than runtime['memory'] allows ({settings.memory / (1 << 20):.0f} MB), and the "
        "kernel killed it; raise it, or give the step less data at once",
        memory=settings.memory,
    )
