"""ConvNeXt-Atto from random weights on real cells of any source.

bloodcell train --config=pbc_scratch --workdir=runs/pbc --config.data.source=zip:pbc96.zip

The val accuracy was 0.947 (95 % interval 0.936 to 0.957), the balanced accuracy 0.941 and the macro F1 0.941, in one
trial with seed 0 on 11,959 training and 1,704 val images of the PBC dataset (Acevedo et al. 2020) at 96 px. Another
trial with other draws of the augmentation reached 0.946. The dataset has no patient identifiers, so images of one
patient may be in both splits, and scores on new patients will be lower.

On corrupted val images (docs/robustness.md) the balanced accuracy was 0.878 under blood96-c and 0.555 under chains, the
means over all corruptions and severities. The worst corruptions were deposits of stain (0.710) and saturation (0.817).
The same run on one core of another machine, where sums are rounded in another order, reached 0.948 on val, 0.885,
0.545, and 0.810 under imagenet-c, whose low contrast is the worst of all (0.302).

The speed was 183 images/s on 2 x86-64 cores without other work (jax 0.10.2, float32, ten steps of one trial). At this
speed, the 10 epochs take 11 minutes. The trial above shared the cores with other programs, so its time says nothing.
"""

from bloodcell_jax.config import Config, ModelConfig, TrainConfig, recipes


def get_config(arg: str = "") -> Config:
    """Return the configuration; `arg` is not used."""
    return Config(
        model=ModelConfig(variant="convnext_atto", dtype="float32", drop_path=0.1, layer_scale=0.1),
        stages=recipes.from_scratch(),
        train=TrainConfig(batch_size=64, label_smoothing=0.1),
    )
