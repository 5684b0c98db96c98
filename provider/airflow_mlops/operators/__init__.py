"""Operators, one module for each stage of the life of a model."""
