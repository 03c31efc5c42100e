"""A split under the run's own augmentation, `val_aug`: how hard training images are, scored beside the split itself."""

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.pixels import to_levels
from bloodcell_jax.augment.policies import Augmentation, apply_policy
from bloodcell_jax.augment.policy_strings import parse_policy
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.devices.parallel import ROWS
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.models.input import to_unit

# Of the draws, so that each evaluation sees the same images.
_SEED = 0


def answer_augmented(classifier: Classifier, dataset: Dataset, indices: np.ndarray) -> Answers:
    """Return a classifier's answers to examples, each changed once by the policy of its run; mixes are left out.

    Raises:
      DataError: a probability is not finite.
    """
    augment, parallel = classifier.config.augment, classifier.parallel
    augmentation = Augmentation(parse_policy(augment.policy), block=augment.block)
    key = jax.random.key(_SEED)

    def change(images: jax.Array, places: jax.Array) -> jax.Array:
        changed = apply_policy(augmentation.policy, key, places, to_unit(images), block=augmentation.block)
        return to_levels(changed).astype(jnp.uint8)

    each = jax.jit(parallel.on_each_device(change, (ROWS, ROWS), ROWS), out_shardings=parallel.split_rows)
    unit = parallel.mesh.size * (augmentation.block if augmentation.needs_blocks else 1)
    return classifier.answer_changed(dataset.images, indices, each, batch_unit=unit)
