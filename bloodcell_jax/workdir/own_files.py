"""What in a workdir belongs to its run, so that nothing of anybody else is overwritten or deleted."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bloodcell_jax.data.dataset import SPLITS
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.whole_files import temporaries_of
from bloodcell_jax.workdir.checkpoint_folders import CheckpointFolders
from bloodcell_jax.workdir.layout import AUGMENTED, EVENTS_END, STEP, TTA, EvaluationFolder, Workdir

# What `evaluate` may name a folder below eval/.
_EVALUATED = re.compile(rf"({'|'.join((*SPLITS, 'all'))})({AUGMENTED})?({TTA})?({STEP}\d+)?")


def check_own(workdir: Workdir) -> None:
    """Check that a run may write its files into a folder; other files in it are nobody's business.

    Raises:
      UsageError: it holds a file of a run's name that no run of this library wrote.
    """
    if workdir.is_marked() or _has_own_config(workdir):
        return
    names = [str(path.relative_to(workdir.path)) for path in _files(workdir) if path.exists()]
    if names:
        raise UsageError(
            f"--workdir={workdir}: no run of this library wrote its {', '.join(names[:4])}"
            f"{' ...' if len(names) > 4 else ''}; choose another folder"
        )


def check_results(folder: Path, results: Sequence[str], begun: Sequence[str]) -> None:
    """Check that a command of several runs may write its results into a folder.

    Args:
      folder: may be absent.
      results: names of what it writes.
      begun: names of which one is there as soon as it has begun.

    Raises:
      UsageError: it has not begun there, and a file has the name of a result.
    """
    there = [name for name in results if (folder / name).exists()]
    if there and not any((folder / name).exists() for name in begun):
        raise UsageError(
            f"--workdir={folder}: this command has not written its {', '.join(there)}; choose another folder"
        )


def delete_temporaries(workdir: Workdir) -> None:
    """Delete the half-written files that killed processes left."""
    for path in _files(workdir):
        for temporary in temporaries_of(path):
            temporary.unlink(missing_ok=True)


def check_start_outside(workdir: Workdir, weights: str | None) -> None:
    """Check that deleting a run does not delete what the new one starts from.

    Raises:
      UsageError: the weights are the workdir, or lie in it.
    """
    if weights is None or not os.path.exists(os.path.expanduser(weights)):
        return
    start, folder = (Path(os.path.realpath(os.path.expanduser(path))) for path in (weights, workdir.path))
    if start.is_relative_to(folder):
        raise UsageError(
            f"--overwrite: would delete {weights}, which the run starts from (config.model.weights); choose another "
            "--workdir"
        )


def delete_run(workdir: Workdir) -> None:
    """Delete what a run wrote, and nothing else; a folder goes if nothing else is in it.

    Raises:
      UsageError: a folder of the run is a link, and what it points to may be anybody's.
    """
    folders = list(_folders(workdir))
    if links := [folder for folder in folders if folder.is_symlink()]:
        raise UsageError(
            f"--overwrite: {links[0]} is a link, and links are not followed; delete it, and behind it what is the run's"
        )
    delete_temporaries(workdir)
    for path in _files(workdir):
        path.unlink(missing_ok=True)
    for path in CheckpointFolders(workdir.checkpoints).own_paths():
        shutil.rmtree(path)
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _has_own_config(workdir: Workdir) -> bool:
    """Return whether an earlier version, which set no mark, wrote the configuration."""
    try:
        workdir.read_config()
    except DataError:
        return False
    return True


def _files(workdir: Workdir) -> Iterator[Path]:
    """Yield the files that a run may write; they may be absent."""
    yield from workdir.files
    for evaluation in _evaluations(workdir):
        yield from evaluation.files
    yield from workdir.path.glob(f"{workdir.events.name}.out.tfevents.*{EVENTS_END}")
    for suffix in ("*.xplane.pb", "*.trace.json.gz"):
        yield from workdir.profile.glob(f"plugins/profile/*/{suffix}")


def _folders(workdir: Workdir) -> Iterator[Path]:
    """Yield the folders that a run makes, those inside others first."""
    yield from workdir.profile.glob("plugins/profile/*")
    yield from (workdir.profile / "plugins" / "profile", workdir.profile / "plugins", workdir.profile)
    yield from (evaluation.path for evaluation in _evaluations(workdir))
    yield from (workdir.eval, workdir.checkpoints, workdir.report.parent)


def _evaluations(workdir: Workdir) -> Iterator[EvaluationFolder]:
    """Yield the folders below eval/ that have the names of evaluated splits."""
    for path in sorted(workdir.eval.glob("*")):
        if _EVALUATED.fullmatch(path.name):
            yield workdir.evaluation(path.name)
