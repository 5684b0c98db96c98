"""Real models and rows, small."""

from __future__ import annotations

from evaluating import _database as _database
from evaluating import frame as frame
from evaluating import log_model as log_model
from evaluating import make_rows_fixture as make_rows_fixture
from evaluating import migrated as migrated
from evaluating import save as save
