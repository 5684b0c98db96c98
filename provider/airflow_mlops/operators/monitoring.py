"""Watch data and models in production, and tell people of it."""

from __future__ import annotations

from airflow_mlops.operators.alerting import AlertOperator
from airflow_mlops.operators.drift import DetectDriftOperator
from airflow_mlops.operators.performance import MonitorPerformanceOperator
from airflow_mlops.operators.service import MonitorServiceOperator

__all__ = ["AlertOperator", "DetectDriftOperator", "MonitorPerformanceOperator", "MonitorServiceOperator"]
