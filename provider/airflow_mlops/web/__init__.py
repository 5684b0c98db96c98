"""Pages and report files inside Airflow's UI."""
