"""Pure ML steps: spec in, report out. Nothing in this package imports Airflow."""
