"""Training: splits, fitting, logging."""
