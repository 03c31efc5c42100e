"""Data: sources, the Dataset they make, splits and the order in which examples are seen."""
