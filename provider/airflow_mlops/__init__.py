"""MLOps for Apache Airflow: data validation, training, model testing, registry promotion and drift checks."""

from __future__ import annotations

__version__ = "0.1.0"
