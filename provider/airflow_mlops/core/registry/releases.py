"""What an alias was moved on to, one release after another, read from the ledger. Pure."""

from __future__ import annotations

from airflow_mlops.core.registry.ledger import Entry


def releases(entries: list[Entry], alias: str) -> list[int | None]:
    """Return the versions that an alias was moved on to, the present one last.

    What was rolled back is not among them: a rollback takes away what came after the version that it went to.
    """
    stack: list[int | None] = []
    for entry in entries:
        if not entry.done or entry.alias != alias:
            continue
        if entry.intent["action"] == "rollback" and entry.version in stack:
            while stack[-1] != entry.version:
                stack.pop()
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    return stack
