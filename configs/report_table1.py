"""The rows of the results table of the report, and two of ours; `bloodcell table1` trains all and compares them.

bloodcell train --config=report_table1:ROW --workdir=runs/ROW --config.data.source=npz:training_set.npz \\
    --config.model.weights=convnext_base.safetensors

ROW is one of
  cnn                       the custom CNN on the unchanged data
  under-augmix-randaugment  ConvNeXt-Base, 850 of each class, AugMix then RandAugment
  under-augmix-fourier      ConvNeXt-Base, 850 of each class, AugMix and FourierMix
  over-augmix-randaugment   ConvNeXt-Base, every class repeated to the size of the largest, AugMix then RandAugment
  over-augmix-fourier       ConvNeXt-Base, every class repeated to the size of the largest, AugMix and FourierMix
  full-unfreeze             ours: everything unfrozen after the head, a long chain of operations on each image
  hybrid                    ours: all classes equally often in an epoch of the natural length, AugMix then RandAugment

The report's layers have their faults here too. `bloodcell_jax/table1/rows.py` declares the rows.

In the report, ConvNeXt-Base was frozen while the head was trained, and mostly frozen afterwards. Here, its last stage
is fine-tuned afterwards. The report does not give the batch and the rates, so these values are ours. Without `weights`,
the backbone is random and the rows mean nothing. One step of 64 images of 96 px costs 1.0 TFLOP with the whole backward
pass, and a third of it with a frozen backbone. The accuracies have not been measured yet, because no ImageNet weights
were available.
"""

from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError
from bloodcell_jax.table1.rows import ROWS


def get_config(arg: str = "") -> Config:
    """Return the configuration of the row `arg`.

    Raises:
      UsageError: there is no such row.
    """
    if arg not in ROWS:
        raise UsageError(f"--config=report_table1:{arg}: no such row; choose one of {', '.join(ROWS)}")
    return ROWS[arg].config()
