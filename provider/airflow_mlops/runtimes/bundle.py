"""The core as one zip, as the runtimes know it; the core makes it itself."""

from __future__ import annotations

from airflow_mlops.core.bundle import OLDEST_PYTHON, core_bundle

__all__ = ["OLDEST_PYTHON", "core_bundle"]
