"""When to train again: events and a memory go in, a decision with its reason and the new memory come out."""
