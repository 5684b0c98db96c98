"""``airflow mlops``: what is promoted, by whom and why, and promotion by hand."""
