"""The audit of a data set: what in it would make a model, or its scores, worse than they look."""
