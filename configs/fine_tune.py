"""Recipes of training, from a linear probe to the whole network, for any source and any network.

bloodcell train --config=fine_tune:RECIPE --workdir=runs/RECIPE --config.data.source=zip:cells.zip \\
    --config.model.variant=convnext_tiny --config.model.weights=convnext_tiny.safetensors

RECIPE is one of
  linear-probe        a linear classifier on the features of the frozen backbone: minutes
  report              the head, then the last stage for 3 epochs at a low rate
  gradual-unfreezing  the head, then one stage of the network after another from the top down, each at its own rate
  winner              the head, then everything, with Lion at low rates and a long chain of operations on each image
  from-scratch        everything from random weights

`bloodcell_jax/config/recipes.py` says where each comes from, and its functions give the stages to a configuration of
your own. All but from-scratch need `weights`; without them the backbone is random and the results mean nothing. The
accuracies have not been measured, because no ImageNet weights were available. pbc_scratch.py states what an Atto
reaches from scratch. docs/fine_tuning.md says when to take which.
"""

from bloodcell_jax.config import AugmentConfig, Config, ModelConfig, TrainConfig, recipes
from bloodcell_jax.errors import UsageError

RECIPES = {
    "linear-probe": (recipes.linear_probe, AugmentConfig()),
    "report": (recipes.report, AugmentConfig()),
    "gradual-unfreezing": (recipes.gradual_unfreezing, AugmentConfig()),
    "winner": (recipes.winner, AugmentConfig(policy=recipes.WINNER_POLICY)),
    "from-scratch": (recipes.from_scratch, AugmentConfig()),
}


def get_config(arg: str = "") -> Config:
    """Return the configuration of the recipe `arg`.

    Raises:
      UsageError: there is no such recipe.
    """
    if arg not in RECIPES:
        raise UsageError(f"--config=fine_tune:{arg}: no such recipe; choose one of {', '.join(RECIPES)}")
    stages, augment = RECIPES[arg]
    model = ModelConfig(variant="convnext_tiny", head_init_scale=0.001)
    if arg == "from-scratch":
        model = ModelConfig(variant="convnext_atto", dtype="float32", drop_path=0.1, layer_scale=0.1)
    return Config(model=model, augment=augment, stages=stages(), train=TrainConfig(batch_size=64, label_smoothing=0.1))
