"""Compile a run for accelerators that are not here, and say what the finished programs need."""
