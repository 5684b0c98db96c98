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


def setup(app):
    """Have alerts lead to their entries: what the first cell of a row of the runbook names is an anchor."""
    app.connect("doctree-read", _name_entries)


def _name_entries(app, doctree):
    from docutils import nodes

    if app.env.docname.rpartition("/")[2] != "runbook":
        return
    for row in doctree.findall(nodes.row):
        for name in row[0].findall(nodes.literal):
            name["ids"].append(name.astext())
