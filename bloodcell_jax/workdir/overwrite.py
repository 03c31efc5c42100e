"""What `--overwrite` deletes: the files that a run wrote, and nothing that others put into its workdir."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from bloodcell_jax.workdir.files import temporaries_of
from bloodcell_jax.workdir.layout import EvaluationFolder, Workdir


def delete_run(workdir: Workdir) -> None:
    """Delete what a run wrote; a folder goes if nothing else is in it."""
    for path in _own_files(workdir):
        path.unlink(missing_ok=True)
    for path in workdir.checkpoints.glob("[0-9]*/"):
        shutil.rmtree(path)
    for folder in _own_folders(workdir):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _own_files(workdir: Workdir) -> Iterator[Path]:
    written_whole = [
        workdir.config,
        workdir.environment,
        workdir.splits,
        workdir.metrics,
        workdir.model,
        workdir.report,
        workdir.preview,
    ]
    for folder in workdir.eval.glob("*"):
        written_whole += EvaluationFolder(folder).files
    for path in written_whole:
        yield path
        yield from temporaries_of(path)
    yield from workdir.path.glob(f"{workdir.events.name}.out.tfevents.*")
    for suffix in ("*.xplane.pb", "*.trace.json.gz"):
        yield from workdir.profile.glob(f"plugins/profile/*/{suffix}")


def _own_folders(workdir: Workdir) -> Iterator[Path]:
    """Yield the folders that a run makes, those inside others first."""
    yield from workdir.profile.glob("plugins/profile/*")
    yield from (workdir.profile / "plugins" / "profile", workdir.profile / "plugins", workdir.profile)
    yield from workdir.eval.glob("*")
    yield from (workdir.eval, workdir.checkpoints, workdir.report.parent)
