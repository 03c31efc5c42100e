"""The verb `push`."""

from absl import flags

from bloodcell_jax.cli.model_flags import define_checkpoint, load_checkpoint
from bloodcell_jax.cli.verb import Verb, required, say


def _define_push(values: flags.FlagValues) -> None:
    define_checkpoint(values)
    flags.DEFINE_string(
        "repo",
        None,
        "OWNER/NAME on the Hugging Face hub; a repository that is not there is made, and is private until you change "
        "that in its settings",
        flag_values=values,
    )


def _push(values: flags.FlagValues) -> None:
    from bloodcell_jax.export.hub_repository import check_push, push_model
    from bloodcell_jax.export.trained_model import trained_model

    repo = required(values, "repo")
    check_push(repo)
    model = trained_model(load_checkpoint(values))
    pushed = push_model(model, repo)
    say(
        f"{pushed.address}: {model.config.model.variant} of step {model.record.step:,}, commit {pushed.commit[:12]}; "
        f"bloodcell predict --model=hf:{repo} takes it"
    )


PUSH = Verb(
    "put a trained model and its card on the Hugging Face hub",
    """
  push --workdir=runs/first --repo=ann/cells
  push --model=model.safetensors --repo=my-lab/cells""",
    _define_push,
    _push,
)
