"""Crash points: named places where a test may kill the process.

A step calls :func:`crash_point` between any two effects that the outside can see. In production the call is one
dictionary look-up. The tests set ``AIRFLOW_MLOPS_CRASH_AT`` to a name and the process dies there by SIGKILL, as a
worker out of memory would; then they run the step again and compare with one clean run.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

VARIABLE = "AIRFLOW_MLOPS_CRASH_AT"
PAUSE_VARIABLE = "AIRFLOW_MLOPS_PAUSE_AT"
HOLD_VARIABLE = "AIRFLOW_MLOPS_HOLD_AT"

#: Every crash point there is, in the order of a clean run; the tests walk this list.
CRASH_POINTS: dict[str, tuple[str, ...]] = {
    "snapshot_data": (
        "snapshot.staged",
        "snapshot.published",
        "snapshot.recorded",
        "snapshot.referenced",
    ),
    "validate_data": (
        "validate.quarantined",
        "validate.cleaned",
        "validate.measured",
        "report.details_written",
        "report.page_written",
    ),
    "train_model": (
        "train.run_created",
        "train.fitted",
        "train.metrics_logged",
        "train.model_uploaded",
        "train.model_finalised",
        "train.recorded",
        "train.run_ended",
    ),
    "evaluate_model": ("evaluate.predicted", "report.details_written", "report.page_written"),
    "detect_drift": (
        "drift.measured",
        "report.details_written",
        "report.page_written",
        "drift.remembered",
        "drift.recorded",
    ),
    "bind_reference": ("profile.stored", "profile.bound"),
    "register_model": (
        "register.model_created",
        "register.intent_written",
        "register.version_created",
        "register.recorded",
    ),
    "adopt_model": ("adopt.created", "adopt.uploaded", "adopt.finalised"),
    "promote_model": (
        "promote.intent_written",
        "promote.move_claimed",
        "promote.alias_moved",
        "promote.outcome_written",
    ),
    "model_card": ("promote.card_stored",),
    # A rollback is a move as a promotion is.
    "rollback_model": (
        "promote.intent_written",
        "promote.move_claimed",
        "promote.alias_moved",
        "promote.outcome_written",
    ),
    "archive_models": (
        "promote.intent_written",
        "promote.move_claimed",
        "archive.version_done",
        "promote.alias_moved",
        "promote.outcome_written",
    ),
    "record_approval": ("approve.recorded", "report.details_written", "report.page_written"),
    "deploy_model": (
        "deploy.intent_written",
        "deploy.started",
        "deploy.checked",
        "deploy.switching",
        "deploy.switched",
        "deploy.finished",
    ),
    "roll_back_deployment": ("deploy.rolling_back",),
    "batch_predict": (
        "predict.scored",
        "snapshot.published",
        "snapshot.referenced",
        "predict.copied",
        "predict.published",
        "history.recorded",
    ),
    "monitor_performance": (
        "performance.waiting",
        "report.details_written",
        "report.page_written",
        "history.recorded",
        "performance.recorded",
    ),
    "monitor_service": (
        "service.read",
        "service.measured",
        "report.details_written",
        "report.page_written",
        "history.recorded",
        "service.recorded",
    ),
    "adopt_version": ("adopt.recorded", "profile.stored", "profile.bound", "adopt.kept"),
    "record_history": ("history.recorded", "history.bundled"),
    "decide_retraining": ("decide.decided", "decide.recorded"),
    "alert": (
        "alert.observed",
        "alert.recorded",
        "alert.claimed",
        "alert.sent",
        "alert.told",
        "alert.digest_made",
    ),
    "write_to_s3": ("s3.part_sent", "s3.uploaded", "s3.published"),
    "checkout_code": ("code.fetched", "code.installed"),
    "build_image": ("image.built",),
    "docker_runtime": ("docker.created", "docker.started", "docker.ended", "docker.removed"),
    "collect_garbage": ("gc.planned", "gc.copied", "gc.decided", "gc.deleted", "gc.rechecked", "gc.purged"),
    "erase_rows": ("erase.published", "erase.keys_rewritten", "erase.recorded", "erase.deleted"),
}


def crash_point(name: str) -> None:
    """Die here by SIGKILL if the environment says so; sleep here if it says that.

    ``AIRFLOW_MLOPS_PAUSE_AT=name:seconds`` stands for a process that is stopped and wakes up late.
    ``AIRFLOW_MLOPS_HOLD_AT=name:file`` holds it until whoever waits for the file has removed it.
    """
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
    pause = os.environ.get(PAUSE_VARIABLE)
    if pause:
        where, _, seconds = pause.rpartition(":")
        if where == name:
            time.sleep(float(seconds))
    held = os.environ.get(HOLD_VARIABLE)
    if held:
        where, _, file = held.partition(":")
        if where == name:
            os.environ.pop(HOLD_VARIABLE)  # once: who waits for the file waits once
            hold(Path(file))


def hold(file: Path) -> None:
    """Say in a file that this process is there, and wait until the file is gone."""
    # Whole at once: who sees the file reads the number of the process in it.
    file.with_suffix(".tmp").write_text(str(os.getpid()))
    file.with_suffix(".tmp").replace(file)
    while file.exists():
        time.sleep(0.05)
