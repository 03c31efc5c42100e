"""A frozen backbone's features, computed once for the steps that train what lies behind them.

Every training example is augmented in a few fixed ways, its views, and the backbone runs once on each. View v is what
training would show in step `start + v` of the stage, drop path included, if the example's place among the training
examples were its slot. The stage's epochs show the views in turn. So everything is a function of the seed and the
configuration, and a resumed run computes the same features again instead of keeping them in its checkpoints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.config import Config
from bloodcell_jax.devices.parallel import ROWS, WHOLE
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.image_batches import ImageBatches, Images
from bloodcell_jax.models.network import Network, Params, leaves_by_path
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage
from bloodcell_jax.train.step import make_feature_extraction


def check_cacheable(config: Config, augmentation: Augmentation) -> None:
    """Check that the stages that ask for cached features can have them, as far as the configuration tells.

    Raises:
      UsageError: one cannot; names the field, what is in the way and what to do.
    """
    for number, stage in enumerate(config.stages):
        if stage.cached_views is None:
            continue
        field = f"config.stages[{number}].cached_views={stage.cached_views}"
        if augmentation.mix.operations:
            raise UsageError(
                f"{field}: config.augment.mix={str(augmentation.mix)!r} mixes images, and such a stage sees none; "
                "unset one"
            )
        if augmentation.views:
            raise UsageError(
                f"{field}: config.train.jsd={config.train.jsd:g} compares fresh views of an image; unset one"
            )


def check_trainable(model: Network, stages: Sequence[TrainingStage]) -> None:
    """Check that stages with cached features train nothing that lies before these.

    Raises:
      UsageError: one does; names the first such parameter.
    """
    for number, stage in enumerate(stages):
        if stage.config.cached_views is None:
            continue
        behind = _paths_behind(model)
        for path, trains in leaves_by_path(stage.mask).items():
            if trains and path not in behind:
                groups = ", ".join(sorted({f"{path.partition('/')[0]}/.*" for path in behind}))
                raise UsageError(
                    f"config.stages[{number}].cached_views={stage.config.cached_views}: the stage trains {path}, "
                    f"without which the cached features cannot be computed; let its trainable name {groups} alone, "
                    "or unset it"
                )


def _paths_behind(model: Network) -> set[str]:
    """Return the paths of the parameters that `classify` uses: those that may train on what `extract` gave."""
    features = np.zeros((1, model.feature_width), np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), features, method="classify"))
    return set(leaves_by_path(shapes["params"]))


@dataclass(frozen=True)
class FeatureCache:
    """Which features a stage keeps: row `view * len(examples) + place` is that view of the example at that place.

    Attributes:
      examples: int32 [m], ascending, all that the sampler can show; an example's place is its slot.
      views: as many as were asked for, at most one for each epoch of the stage.
      start: the stage's first step.
      image_size: side in pixels of the images that the backbone sees.
      first_epoch: the sampler's epoch in which the stage begins.
      width: channels.
    """

    examples: np.ndarray
    views: int
    start: int
    image_size: int
    first_epoch: int
    width: int

    @classmethod
    def of_stage(cls, run: Run, stage: TrainingStage) -> "FeatureCache":
        """Lay out the cache of a stage; nothing is computed."""
        batch_size, epoch_size = run.config.train.batch_size, run.sampler.epoch_size
        first, last = stage.start * batch_size // epoch_size, (stage.stop * batch_size - 1) // epoch_size
        return cls(
            examples=np.sort(np.concatenate(run.sampler.members)).astype(np.int32),
            views=min(stage.config.cached_views or 1, last - first + 1),
            start=stage.start,
            image_size=stage.image_size,
            first_epoch=first,
            width=run.model.feature_width,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels of the features."""
        return self.views * len(self.examples), self.width

    def __str__(self) -> str:
        size = f"{4 * self.shape[0] * self.width / 1e6:,.1f} MB"
        return f"features of {len(self.examples):,} examples in {self.views} view{'s'[: self.views > 1]}, {size}"

    def rows(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Return the rows int32 [n] that examples at `indices` show in `epochs` of the sampler."""
        views = (epochs - self.first_epoch) % self.views
        return (views * len(self.examples) + np.searchsorted(self.examples, indices)).astype(np.int32)

    def compute(
        self,
        run: Run,
        params: Params,
        images: Images,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> np.ndarray:
        """Run the backbone over all views of all examples; returns float32 [rows, channels].

        Args:
          params: of the whole network, replicated global arrays.
          images: those of `ImageBatches.open`.
          on_progress: is told after each batch how many of how many rows are done; what it raises ends the pass.
        """
        parallel, count = run.parallel, len(self.examples)
        # Every device holds whole blocks, as in training.
        unit = parallel.mesh.size * (run.augmentation.block if run.augmentation.needs_blocks else 1)
        size = -(-run.config.evaluate.batch_size // unit) * unit
        model = run.config.model
        extraction = make_feature_extraction(
            run.model,
            run.augmentation,
            image_size=self.image_size,
            seed=run.config.seed,
            mean=model.mean,
            std=model.std,
        )
        extract = jax.jit(
            parallel.on_each_device(extraction, (WHOLE, ROWS, ROWS, WHOLE), ROWS), out_shardings=parallel.replicated
        )
        reader, features = ImageBatches(parallel, size), np.empty(self.shape, np.float32)
        for view in range(self.views):
            own = features[view * count : (view + 1) * count]
            with reader.open(images, self.examples) as batches:
                for start, batch in zip(range(0, count, size), batches, strict=True):
                    slots = parallel.global_rows(np.arange(start, start + size, dtype=np.int32))
                    extracted = jax.device_get(extract(params, batch, slots, np.int32(self.start + view)))
                    own[start : start + size] = extracted[: count - start]
                    on_progress(view * count + min(start + size, count), len(features))
        return features
