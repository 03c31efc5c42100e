"""The HTML page of a run, made from the files of its workdir."""

from bloodcell_jax.report.page import PREVIEW, write_report

__all__ = ["PREVIEW", "write_report"]
