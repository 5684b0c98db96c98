"""The prediction log: what a model said of which rows, by batch scoring, by a model server, or by anybody else."""
