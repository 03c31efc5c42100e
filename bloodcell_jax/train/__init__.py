"""Training: the pure step, the loop around it, what is saved and how runs resume."""
