"""Registered models, the alias, and the ledger that decides about it."""
