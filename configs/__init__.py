"""Experiments: one file each, with `get_config(arg="") -> Config`; its docstring says what to expect of it."""
