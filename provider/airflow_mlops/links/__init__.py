"""Links from a task to its report, MLflow run and model version."""
