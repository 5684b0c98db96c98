"""Hooks: one for each outside system, from a connection to a client."""
