"""Monitoring: predictions, performance once labels come, and the history of every figure."""
