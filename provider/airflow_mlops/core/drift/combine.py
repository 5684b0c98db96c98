"""Several references as one verdict: an alarm only if the data is unlike each of them, or any."""

from __future__ import annotations

import dataclasses

from airflow_mlops.core.drift.compare import Verdict
from airflow_mlops.core.drift.findings import Finding


def combined(verdicts: list[list[Verdict]], labels: list[str], how: str) -> list[Verdict]:
    """Return one verdict for each column.

    :param verdicts: of each reference.
    :param how: ``all``: a column has drifted if it is unlike each reference, and its score is that against the one
        it is most like; ``any``: against the one that it is least like.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    found: dict[str, list[tuple[Verdict, str]]] = {}
    for one, label in zip(verdicts, labels, strict=True):
        for verdict in one:
            found.setdefault(verdict.name, []).append((verdict, label))
    result = []
    for several in found.values():
        scored = [pair for pair in several if pair[0].skipped is None]
        if not scored:
            result.append(next((one for one, _ in several if one.broken), several[0][0]))
            continue
        pick = min if how == "all" else max
        chosen, label = pick(scored, key=lambda pair: (pair[0].drifted, pair[0].beyond))
        decide = all if how == "all" else any
        drifted = decide(one.drifted for one, _ in scored)
        result.append(
            dataclasses.replace(
                chosen, drifted=drifted, figures={**chosen.figures, "against": label, "references": len(scored)}
            )
        )
    return result


def combined_findings(findings: list[list[Finding]], how: str) -> list[Finding]:
    """Return the findings of each reference, or of any."""
    if len(findings) == 1:
        return findings[0]
    result = []
    seen = set()
    for several in findings:
        for one in several:
            key = (one.kind, one.column)
            everywhere = all(key in {(other.kind, other.column) for other in each} for each in findings)
            if key not in seen and (everywhere or how == "any"):
                seen.add(key)
                result.append(one)
    return result
