import os
import tempfile

# Airflow writes its configuration where this points.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="docs-airflow-"))

from airflow_mlops import __version__

project = "airflow-provider-mlops"
author = "the airflow-provider-mlops authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_class_signature = "separated"
# What a constructor takes stands with its class; that of Airflow's own classes is not in our markup.
autodoc_inherit_docstrings = False
html_theme = "furo"
html_title = "airflow-provider-mlops"
exclude_patterns = ["_build"]
