"""What probation does to a year of retrainings on the real flights of 2013: what it takes back, and what it catches.

A model is trained for each month from March to December on all flights whose labels have come by then, a month late.
Each is released over each earlier one, and compared with it on the days of its first month, as a test of the kind
``previous`` does. Taking one back is a false alarm: by the months' averages more data made better models. The other way
round, an earlier model released over a later one is a mistake; how many of these are shown within a month is printed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from figures import Figure, report

from airflow_mlops.core.evaluation.paired import apart
from airflow_mlops.core.evaluation.parts import area
from airflow_mlops.core.evaluation.significance import jackknife

sys.path.insert(0, str(Path(__file__).parents[1] / "dags"))
MONTHS = range(3, 13)
#: Of two looks at a level of 5%.
ALPHA = 0.025


def main() -> int:
    """Train, compare each pair by days, and count."""
    from flights.features import features
    from flights.source import read_flights
    from flights.trainer import train

    flights = read_flights()
    times, late = flights["scheduled_departure"], flights["late"]
    X = features(flights.drop(columns=["flight_id", "scheduled_departure", "late"]))
    models: dict[int, Any] = {}
    back = caught = pairs = 0
    for month in MONTHS:
        start = pd.Timestamp(f"2013-{month:02}-01", tz="UTC")
        known = (times < start - pd.Timedelta(days=30)).to_numpy()
        models[month] = train(X[known], late[known])
        rows = ((times >= start) & (times < start + pd.DateOffset(months=1))).to_numpy().nonzero()[0]
        days, _ = pd.factorize(times.iloc[rows].dt.floor("D"))
        of = {
            one: area(np.asarray(late.iloc[rows] == 1), model.predict_proba(X.iloc[rows])[:, 1], None)
            for one, model in models.items()
        }
        for earlier in range(MONTHS[0], month):
            found = jackknife(apart(of[month], of[earlier]), days, unit="days", alpha=ALPHA)
            assert found is not None
            pairs, back, caught = pairs + 1, back + found.below(0), caught + found.above(0)
            print(
                f"  {month:2} over {earlier:2}: {found.ahead:+.4f} ({found.low:+.4f} to {found.high:+.4f})", flush=True
            )
    print(f"  {back} of {pairs} retrainings taken back, {caught} of {pairs} mistakes caught within a month")
    return report(Figure("retrainings taken back within a month", 100 * back / pairs, 5.0, "%"))


if __name__ == "__main__":
    sys.exit(main())
