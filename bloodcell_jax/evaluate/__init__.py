"""Evaluation: forward passes in which every example counts once, metrics, and prediction on new images."""
