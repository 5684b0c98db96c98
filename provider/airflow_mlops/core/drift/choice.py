"""The scores by name, and Evidently's choice between them.

The definitions, the default of each column and the thresholds are those of Evidently 0.7.23, except for total
variation, where Evidently reports the p-value of a permutation test and this engine the distance itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from airflow_mlops.core.errors import SpecError, did_you_mean

#: Up to so many rows of the reference Evidently tests hypotheses; beyond, it measures distances.
FEW_ROWS = 1000
#: Up to so many distinct values a numeric column is treated as a categorical one.
FEW_VALUES = 5

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class DriftTest:
    """A score and when it means drift.

    :param kinds: of columns that it is defined for.
    :param threshold: Evidently's default.
    :param drifts: ``from`` the threshold on (a distance), ``to`` it or ``below`` it (a p-value).
    :param binned: whether a numeric column is counted in bins for it.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    threshold: float
    drifts: Literal["from", "to", "below"]
    binned: bool = False

    def drifted(self, score: float, threshold: float) -> bool:
        """Return whether a score means drift; one that is not a number does not."""
        if self.drifts == "from":
            return score >= threshold
        return score <= threshold if self.drifts == "to" else score < threshold

    def severity(self, score: float, threshold: float) -> float:
        """Return how far beyond the threshold a score is, for the order of columns: 1 is at the threshold."""
        if score != score:
            return 0.0
        if self.drifts == "from":
            return score / threshold if threshold > 0 else score
        return (1 - score) / (1 - threshold) if threshold < 1 else 1 - score


_BOTH = ("numeric", "categorical")
TESTS = {
    test.name: test
    for test in (
        DriftTest("wasserstein", "Wasserstein distance (normed)", ("numeric",), 0.1, "from"),
        DriftTest("ks", "Kolmogorov-Smirnov p-value", ("numeric",), 0.05, "to"),
        DriftTest("psi", "Population stability index", _BOTH, 0.1, "from", binned=True),
        DriftTest("jensenshannon", "Jensen-Shannon distance", _BOTH, 0.1, "from", binned=True),
        DriftTest("kl_div", "Kullback-Leibler divergence", _BOTH, 0.1, "from", binned=True),
        DriftTest("hellinger", "Hellinger distance", _BOTH, 0.1, "from", binned=True),
        DriftTest("chisquare", "Chi-square p-value", ("categorical",), 0.05, "below"),
        DriftTest("z", "Z-test p-value", ("categorical",), 0.05, "below"),
        DriftTest("tvd", "Total variation distance", ("categorical",), 0.1, "from"),
    )
}
_ALIASES = {"TVD": "tvd", "total_variation": "tvd", "kl": "kl_div", "js": "jensenshannon", "chi2": "chisquare"}


def drift_test(name: Any) -> DriftTest:
    """Return a test by its name, which is Evidently's.

    :raises SpecError: if there is none, with the nearest one.
    """
    found = TESTS.get(_ALIASES.get(str(name), str(name)))
    if found is None:
        raise SpecError(
            f"there is no drift test {name!r}{did_you_mean(str(name), TESTS) or '.'} Tests: {', '.join(TESTS)}"
        )
    return found


def evidently_choice(kind: str, reference_rows: int, values: int | None) -> DriftTest:
    """Return the test that Evidently takes where none is asked for.

    :param kind: ``numeric`` or ``categorical``.
    :param reference_rows: rows of the reference with a finite value.
    :param values: distinct values of both sides together; None: many.
    """
    many = values is None or values > FEW_VALUES
    if reference_rows > FEW_ROWS:
        return TESTS["wasserstein" if kind == "numeric" and many else "jensenshannon"]
    if kind == "numeric" and many:
        return TESTS["ks"]
    return TESTS["chisquare" if values is None or values > 2 else "z"]
