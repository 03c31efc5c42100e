"""The flags of the verbs that use a trained model."""

from typing import TYPE_CHECKING

from absl import flags

from bloodcell_jax.cli.data_flags import define_scale, with_scale
from bloodcell_jax.cli.verb import required_path, value_of

if TYPE_CHECKING:
    from bloodcell_jax.evaluate.classifier import Classifier


def define_model(values: flags.FlagValues) -> None:
    """Define the flags that `load_classifier` takes."""
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "best, last or a step", flag_values=values)
    define_scale(values)


def load_classifier(values: flags.FlagValues) -> "Classifier":
    """Return the model that the flags name, on the devices."""
    from bloodcell_jax.devices.settings import configure_jax
    from bloodcell_jax.evaluate.classifier import Classifier

    configure_jax()
    classifier = Classifier.from_workdir(required_path(values, "workdir"), checkpoint=value_of(values, "checkpoint"))
    classifier.config.data = with_scale(values, classifier.config.data)
    return classifier
