"""Experiments. Each file has a `get_config(arg="") -> Config`, and its docstring says which results to expect."""
