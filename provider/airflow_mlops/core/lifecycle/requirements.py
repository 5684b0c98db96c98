"""Whether what is installed is what the distribution asks for, extra by extra."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from airflow_mlops.core.extras import DISTRIBUTION
from airflow_mlops.core.lifecycle.checkup import Finding

#: Extra -> what it is for. Those for developers are left out.
EXTRAS = {
    "pyarrow": "snapshots and all reading of data",
    "great-expectations": "ValidateDataOperator",
    "mlflow": "training, testing, registering and promoting",
    "evidently": "drift report pages",
    "docker": "runtime={'image': ...}",
    "amazon": "stores and data on S3",
    "sql": "sql= and table=",
    "notebook": "TrainModelOperator(notebook=...)",
    "fairness": "fairness tests of models",
}


def installed() -> Iterator[Finding]:
    """Yield one finding for each extra: installed and in range, not installed, or what is wrong."""
    from packaging.requirements import Requirement

    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Finding("extras", "warn", f"{DISTRIBUTION} runs from a folder, not as an installed package", "install it")
        return
    parsed = [Requirement(line) for line in lines]
    for extra, purpose in EXTRAS.items():
        wanted = [
            one
            for one in parsed
            if one.marker is not None
            and one.marker.evaluate({"extra": extra})
            and not one.marker.evaluate({"extra": ""})
        ]
        yield _extra(extra, purpose, [one for one in wanted if one.name != DISTRIBUTION])


def _extra(extra: str, purpose: str, wanted: list) -> Finding:  # type: ignore[type-arg]
    missing, wrong, found = [], [], []
    for one in wanted:
        try:
            has = version(one.name)
        except PackageNotFoundError:
            missing.append(one.name)
            continue
        if one.specifier.contains(has, prereleases=True):
            found.append(f"{one.name} {has}")
        else:
            wrong.append(f"{one.name} is {has}, and must be {one.specifier}")
    command = f"pip install '{DISTRIBUTION}[{extra}]'"
    if wrong:
        return Finding(f"extra {extra}", "fail", "; ".join(wrong), command)
    if missing:
        have = f" (here: {', '.join(found)})" if found else ""
        message = f"not installed: {', '.join(missing)}{have}; needed for {purpose}"
        return Finding(f"extra {extra}", "ok", message, f"only if you need it: {command}")
    return Finding(f"extra {extra}", "ok", ", ".join(found) or "nothing of its own")
