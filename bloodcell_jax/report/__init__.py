"""HTML pages of a run and of an audit, and text tables."""

from bloodcell_jax.report.run_page import write_report

__all__ = ["write_report"]
