"""The builder; imports TensorFlow Datasets, so it is itself imported where a data set is prepared."""

import dataclasses
import io
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.medmnist import BLOOD_CLASSES, MD5

PBC_HOMEPAGE = "https://data.mendeley.com/datasets/snkd93bnjr/1"
MEDMNIST_HOMEPAGE = "https://medmnist.com"
LICENCE = "CC BY 4.0"
# A source that names no splits is kept as one, and training cuts it.
WHOLE = "whole"


@dataclasses.dataclass(eq=False, kw_only=True)
class BloodCellsConfig(tfds.core.BuilderConfig):
    """A published data set: its class names and where it comes from; one's own has neither.

    Attributes:
      class_names: known before it is read.
      homepage: of its publishers.
    """

    class_names: tuple[str, ...] = ()
    homepage: str | None = None


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes a Dataset as {image: PNG, label, id}, in its order, under its splits.

    Args:
      data: the examples, as `bloodcell_jax.data.sources.load_source` reads them; needed to prepare.
      options: TFDS's own; `config` is the name of a published set, or any other name.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS: ClassVar = [
        BloodCellsConfig(name="pbc", class_names=BLOOD_CLASSES, homepage=PBC_HOMEPAGE),
        *(BloodCellsConfig(name=name, class_names=BLOOD_CLASSES, homepage=MEDMNIST_HOMEPAGE) for name in MD5),
    ]

    def __init__(self, *, config: str, data: Dataset | None = None, **options):
        self._data = data
        published = any(known.name == config for known in self.BUILDER_CONFIGS)
        super().__init__(config=config if published else BloodCellsConfig(name=config), **options)

    def _info(self) -> tfds.core.DatasetInfo:
        config, data = self.builder_config, self._data
        size = data.images.shape[1] if data else None
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(data.class_names if data else config.class_names)),
            "id": tfds.features.Text(doc="path inside the source, or the index for arrays"),
        }
        shared = {
            "features": tfds.features.FeaturesDict(features),
            "supervised_keys": ("image", "label"),
            "disable_shuffling": True,
            "metadata": tfds.core.MetadataDict(_provenance(data) if data else {}),
        }
        if config.homepage:
            return self.dataset_info_from_configs(homepage=config.homepage, license=LICENCE, **shared)
        return tfds.core.DatasetInfo(
            builder=self, description="Single cells, prepared from one's own source.", **shared
        )

    def examples(self) -> dict[str, Iterator[dict]]:
        """Return the examples of each split, as TFDS encodes them, in their order."""
        return {
            name: (example for _, example in rows) for name, rows in self._split_generators(dl_manager=None).items()
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager | None) -> dict:
        splits = self._data.splits or {WHOLE: np.arange(len(self._data))}
        return {name: self._generate_examples(indices) for name, indices in splits.items()}

    def _generate_examples(self, indices: np.ndarray) -> Iterator[tuple[int, dict]]:
        data = self._data
        for index in indices:
            example = {"image": _png(data.images[index]), "label": int(data.labels[index]), "id": data.ids[index]}
            yield int(index), example


def _provenance(data: Dataset) -> dict:
    return {"source": data.source, "sha256": data.sha256(), "skipped": data.skipped}


def _png(image: np.ndarray) -> io.BytesIO:
    stream = io.BytesIO()
    # Not deflated: array_record compresses by itself, and an image is written and read in less than half the time.
    Image.fromarray(image).save(stream, "png", compress_level=0)
    stream.seek(0)
    return stream
