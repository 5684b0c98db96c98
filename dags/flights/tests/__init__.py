"""The project's own tests, which each commit has to pass: ``python -m unittest discover -s flights/tests -t .``."""
