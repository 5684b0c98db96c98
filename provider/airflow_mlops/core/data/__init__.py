"""Datasets: reading, digests of content, snapshots."""
