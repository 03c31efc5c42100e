"""The HTML page of a run, made from the files of its workdir."""

from bloodcell_jax.report.page import write_report

__all__ = ["write_report"]
