"""Stands in front of PyTorch in processes that must do without it."""

raise ImportError("PyTorch is hidden from this process")
