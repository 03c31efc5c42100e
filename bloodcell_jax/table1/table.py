"""The table: its runs are trained one after the other, tested on the same images, and set side by side."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.errors import DivergedError, UsageError
from bloodcell_jax.evaluate.predictions_file import read_predictions_of
from bloodcell_jax.names import spreadsheet_cell
from bloodcell_jax.report.table1_page import write_table1_page
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.run.watch.progress import show_pass
from bloodcell_jax.table1.corrupted_test import corrupted_answers
from bloodcell_jax.table1.findings import findings
from bloodcell_jax.table1.results import KEYS, comparisons_of, questions_from, scores_of
from bloodcell_jax.table1.rows import Entry
from bloodcell_jax.table1.settings import Settings, find_start
from bloodcell_jax.table1.table_data import TableData, prepare_data
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import read_json_if_present, write_json
from bloodcell_jax.workdir.output_files import check_outside
from bloodcell_jax.workdir.own_files import check_results
from bloodcell_jax.workdir.value_shapes import COUNT, TEXT, TEXT_OR_NONE, check

logger = logging.getLogger(__name__)

# A run's answers to the test images, clean and corrupted: int [n, passes].
Answers = dict[str, np.ndarray]


def train_table(
    data: DataConfig,
    workdir: str | Path,
    settings: Settings,
    entries: Sequence[Entry],
    *,
    weights: str | None = None,
    random_if_none: bool = False,
    signals: StopSignals | None = None,
) -> dict[str, Any]:
    """Train and test the runs of the table, and write it after each; a second call resumes.

    A run that diverges is said to have done so, and the next one begins.

    Args:
      data: how the source is read; `image_size` is that of the table.
      workdir: holds `data/`, `runs/NAME`, `corrupted/NAME.json`, `table1.json` and `index.html`.
      settings: how large the table is.
      entries: its runs, in its order.
      weights, random_if_none: those of `find_start`.
      signals: as of `train_and_evaluate`.

    Returns:
      The content of `table1.json`.

    Raises:
      UserError: as `train_and_evaluate` and `prepare_data`.
      UsageError: the workdir holds a table of another size or source.
    """
    folder = Workdir(workdir)
    folder.check_usable()
    check_results(folder.path, ("table1.json", "index.html"), begun=["settings.json"])
    if data.source is not None:
        check_outside("workdir", folder.path, data.source)
    with folder.locked(), StopSignals() if signals is None else contextlib.nullcontext(signals) as signals:
        start = _start_of(folder.path, settings, weights, random_if_none=random_if_none)
        prepared = prepare_data(replace(data, image_size=settings.image_size), folder.path / "data")
        table = _Table(folder.path, settings, start, prepared, list(entries))
        for number, entry in enumerate(table.entries, start=1):
            if signals.agreed():
                raise signals.error()
            logger.info("run %d of %d: %s", number, len(table.entries), entry.name)
            table.train(entry, signals)
            table.write()
        return table.content()


def _start_of(workdir: Path, settings: Settings, weights: str | None, *, random_if_none: bool) -> str | None:
    """Return the weights of a table; those that it began with, unless the user names others, which are refused."""
    record = workdir / "settings.json"
    kept = read_json_if_present(record)
    asked = {"variant": settings.variant, "image_size": settings.image_size, "suite": settings.suite.name}
    if kept is None:
        start = find_start(settings, weights, random_if_none=random_if_none)
        write_json(record, asked | {"weights": start})
        return start
    check(kept, {"variant": TEXT, "image_size": COUNT, "suite": TEXT, "weights": TEXT_OR_NONE}, record)
    if weights is not None:
        asked["weights"] = None if weights == "none" else weights
    changed = [f"{name}: {kept[name]} -> {value}" for name, value in asked.items() if kept[name] != value]
    if changed:
        raise UsageError(
            f"--workdir={workdir}: holds another table ({'; '.join(changed)}); give the same flags, or "
            "another --workdir"
        )
    return kept["weights"]


class _Table:
    """The runs of a table, and the answers of those that are done."""

    def __init__(self, workdir: Path, settings: Settings, start: str | None, data: TableData, entries: list[Entry]):
        self.entries = entries
        self._workdir, self._settings, self._start, self._data = workdir, settings, start, data
        self._dataset = load_data(DataConfig(**data.reading(cleaned=False)))
        self._test = self._dataset.splits["test"]
        self._answers: dict[str, Answers] = {}
        self._failed: dict[str, str] = {}

    def train(self, entry: Entry, signals: StopSignals) -> None:
        """Train and test a run, unless that is done."""
        run = self._run(entry)
        try:
            train_and_evaluate(self._settings.config_of(entry, self._data, self._start), run.path, signals=signals)
        except DivergedError as error:
            logger.warning("%s: %s", entry.name, error)
            self._failed[entry.name] = str(error)
            return
        path = self._workdir / "corrupted" / f"{entry.name}.json"
        with show_pass("corrupted images") as show:
            corrupted = corrupted_answers(path, run, self._settings.suite, self._dataset, self._test, show=show)
        self._answers[entry.name] = {"clean": self._clean_answers(run), "corrupted": corrupted}

    def write(self) -> None:
        """Write the table of what is done."""
        content = self.content()
        write_json(self._workdir / "table1.json", content)
        write_table1_page(self._workdir / "index.html", content, self._workdir)

    def content(self) -> dict[str, Any]:
        """Return the content of `table1.json`."""
        settings, labels = self._settings, self._dataset.labels[self._test]
        runs = [self._result(entry, labels) for entry in self.entries]
        comparisons = comparisons_of(labels, self._answers, questions_from(self._start))
        suite = {"name": settings.suite.name, "version": settings.suite.version, "passes": settings.suite.passes}
        return {
            "variant": settings.variant,
            "weights": self._start,
            "most_epochs": settings.most_epochs,
            "suite": suite,
            "data": self._data.facts,
            "keys": list(KEYS),
            "runs": runs,
            "comparisons": comparisons,
            "findings": findings(runs, comparisons),
        }

    def _result(self, entry: Entry, labels: np.ndarray) -> dict[str, Any]:
        answers, run = self._answers.get(entry.name), self._run(entry)
        environment = run.read_environment() if run.environment.exists() else {}
        result = {
            "name": entry.name,
            "title": entry.row.title,
            "data": "cleaned" if entry.cleaned else "raw",
            "ours": entry.ours,
            "path": run.path.relative_to(self._workdir).as_posix(),
            "failed": self._failed.get(entry.name),
            "seconds_trained": environment.get("seconds_trained") if answers else None,
        }
        count = len(self._dataset.class_names)
        scores = {on: scores_of(labels, of, count) for on, of in answers.items()} if answers else {}
        return result | {"clean": scores.get("clean"), "corrupted": scores.get("corrupted")}

    def _run(self, entry: Entry) -> Workdir:
        return Workdir(self._workdir / "runs" / entry.name)

    def _clean_answers(self, run: Workdir) -> np.ndarray:
        """Return the class that a run answers to each test image as it is, int [n, 1].

        Raises:
          DataError: the run judged other images.
        """
        names = [spreadsheet_cell(name) for name in self._dataset.class_names]
        rows = read_predictions_of(run.evaluation("test"), self._dataset, self._test)
        return np.array([[names.index(row.predicted)] for row in rows])
