"""The audit of a dataset: it finds what makes a model, or its scores, worse than they look."""
