"""The command line: a file for each verb or family of verbs, and the frame they share."""

from bloodcell_jax.cli.command_line import console, main

__all__ = ["console", "main"]
