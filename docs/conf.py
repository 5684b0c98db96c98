from airflow_mlops import __version__

project = "airflow-provider-mlops"
author = "the airflow-provider-mlops authors"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "airflow-provider-mlops"
exclude_patterns = ["_build"]
nitpicky = True
