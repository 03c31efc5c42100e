"""The flags of the verbs that use a trained model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from bloodcell_jax.cli.data_flags import define_scale, with_scale
from bloodcell_jax.cli.verb import value_of
from bloodcell_jax.config.data import SCALE
from bloodcell_jax.errors import UsageError
from bloodcell_jax.pretrained import SHIPPED

if TYPE_CHECKING:
    from bloodcell_jax.evaluate.classifier import Classifier


def define_checkpoint(values: flags.FlagValues) -> None:
    """Define the flags that `load_checkpoint` takes."""
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string(
        "model",
        None,
        f"in place of a workdir: a run's model.safetensors; what comes with the library, {', '.join(SHIPPED)}; or "
        "hf:OWNER/NAME[@REVISION], what `push` put on the Hugging Face hub",
        flag_values=values,
    )
    flags.DEFINE_string("checkpoint", None, "best, last or a step of the workdir; unset: best", flag_values=values)


def define_model(values: flags.FlagValues) -> None:
    """Define the flags that `load_classifier` takes."""
    define_checkpoint(values)
    flags.DEFINE_bool(
        "tta",
        False,
        "test-time augmentation: the mean answer to an image in its 8 orientations (flips, quarter turns), at 8 times "
        "the cost",
        flag_values=values,
    )
    define_scale(values)


def model_words(values: flags.FlagValues) -> dict[str, str]:
    """Return the flags of `define_model` that are set, and their values: what another command repeats."""
    names = ("workdir", "model", "checkpoint", "tta", *SCALE)
    return {name: str(value) for name in names if (value := value_of(values, name))}


def model_files(values: flags.FlagValues) -> list[Path]:
    """Return the files that `load_classifier` reads."""
    from bloodcell_jax.workdir import Workdir

    workdir, model = value_of(values, "workdir"), given_model(values)
    run = Workdir(Path(os.path.expanduser(workdir))) if workdir else None
    own = [run.config, run.environment, run.splits, run.metrics, run.model] if run else []
    return [*own, model] if model else own


def given_model(values: flags.FlagValues) -> Path | None:
    """Return the file that `--model` names; None: it is unset; the errors are those of `find_model`."""
    from bloodcell_jax.weights.named_models import find_model

    name = value_of(values, "model")
    return find_model(name) if name else None


def load_classifier(values: flags.FlagValues) -> "Classifier":
    """Return the model that the flags name, on the devices, as the flags want it used.

    Raises:
      UsageError: they name none, or two.
    """
    classifier = load_checkpoint(values, tta=value_of(values, "tta"))
    classifier.config.data = with_scale(values, classifier.config.data)
    return classifier


def load_checkpoint(values: flags.FlagValues, *, tta: bool = False) -> "Classifier":
    """Return the model that the flags of `define_checkpoint` name, on the devices.

    Raises:
      UsageError: they name none, or two.
    """
    workdir, model, checkpoint = (value_of(values, name) for name in ("workdir", "model", "checkpoint"))
    if bool(workdir) == bool(model):
        raise UsageError(
            "--workdir, --model: give one of them"
            if model
            else "--workdir: missing; give the folder of a trained run, or by --model its model.safetensors or "
            + " or ".join(SHIPPED)
        )
    if model and checkpoint:
        raise UsageError(
            f"--checkpoint={checkpoint}: the file of --model holds one checkpoint; leave it unset, or give --workdir"
        )
    from bloodcell_jax.devices.settings import configure_jax
    from bloodcell_jax.evaluate.classifier import Classifier

    configure_jax()
    if file := given_model(values):
        return Classifier.from_file(file, tta=tta)
    path = Path(os.path.expanduser(workdir))
    return Classifier.from_workdir(path, checkpoint=checkpoint or "best", tta=tta)
