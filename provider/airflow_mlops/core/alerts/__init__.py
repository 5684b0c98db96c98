"""Alerts: verdicts of monitors become incidents, and each change of an incident is told once."""
