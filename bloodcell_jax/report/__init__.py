"""The HTML pages of a run and of an audit, and tables as text."""

from bloodcell_jax.report.page import write_report

__all__ = ["write_report"]
