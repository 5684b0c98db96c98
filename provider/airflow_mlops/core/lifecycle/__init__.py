"""What becomes of stored objects later: garbage collection, erasure of a person's rows, and a check-up."""
