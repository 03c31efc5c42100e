"""A run from its configuration to its report: what it is, its inputs, the loop, the job around it."""
