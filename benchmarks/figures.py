"""A figure, its limit and whether it was reached: said alike by every benchmark, collected by ``make bench``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

#: Names a file to which the benchmarks that run.py starts add their figures.
RESULTS = "MLOPS_BENCH_RESULTS"


@dataclass(frozen=True)
class Figure:
    """What was measured. It is reached below its limit.

    :param unit: ``s``, ``MB``, ``times``, ``%`` ...
    """

    what: str
    value: float
    limit: float
    unit: str

    @property
    def reached(self) -> bool:
        """Whether it is below the limit."""
        return self.value < self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g} {self.unit} (limit {self.limit:g} {self.unit}): {self.verdict}"

    @property
    def verdict(self) -> str:
        """``reached`` or ``MISSED``."""
        return "reached" if self.reached else "MISSED"


def report(*figures: Figure) -> int:
    """Print figures, hand them to ``make bench``, and return the exit code: 1 if one is missed."""
    for figure in figures:
        print(figure)
    if os.environ.get(RESULTS):
        with open(os.environ[RESULTS], "a") as file:
            file.writelines(json.dumps(asdict(figure)) + "\n" for figure in figures)
    return int(not all(figure.reached for figure in figures))
