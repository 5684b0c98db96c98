"""A script that knows nothing of Airflow: two paths in its arguments, a model at the second."""

# START script
import sys

import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression

customers = pd.read_parquet(sys.argv[1])
model = LogisticRegression().fit(customers[["calls", "months"]], customers["churned"])
print("fitted on", len(customers), "customers")
skops.io.dump(model, sys.argv[2])
# END script
