"""HTML pages of a run and of an audit, and text tables."""

from bloodcell_jax.report.page import write_report

__all__ = ["write_report"]
