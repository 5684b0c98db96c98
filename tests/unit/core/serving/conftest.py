"""A gateway in front of model servers that are threads."""

from __future__ import annotations

from servers.serving import kill_at as kill_at
from servers.serving import world as world
