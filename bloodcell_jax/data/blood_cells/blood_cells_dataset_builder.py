"""The builder. It imports TensorFlow Datasets, so only code that prepares a dataset imports it."""

import dataclasses
import io
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.grouping import digest_of
from bloodcell_jax.data.medmnist import BLOOD_CLASSES, PUBLISHED_MD5

MEDMNIST_HOMEPAGE = "https://medmnist.com"
LICENSE = "CC BY 4.0"
# The one split of a source that names no splits; training cuts it.
WHOLE = "whole"


@dataclasses.dataclass(eq=False, kw_only=True)
class BloodCellsConfig(tfds.core.BuilderConfig):
    """A published dataset; a user's own dataset has no class names and no homepage here.

    Attributes:
      class_names: its classes, known before it is read.
      homepage: address of its publishers' page.
    """

    class_names: tuple[str, ...] = ()
    homepage: str | None = None


class Builder(tfds.core.GeneratorBasedBuilder):
    """Write a Dataset as records {image: PNG, label, id[, group]}, in its order and under its splits.

    Args:
      config: a name. Citation and license are those of a published dataset if the data are that dataset.
      data: the examples, as `bloodcell_jax.data.sources.load_source` reads them; only preparing needs them.
      options: TFDS's own options.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS: ClassVar = [
        BloodCellsConfig(name=name, class_names=BLOOD_CLASSES, homepage=MEDMNIST_HOMEPAGE) for name in PUBLISHED_MD5
    ]

    def __init__(self, *, config: str, data: Dataset | None = None, **options):
        self._data = data
        published = {known.name: known for known in self.BUILDER_CONFIGS}
        # A name alone proves nothing: only data whose checksum was compared are what was published.
        is_published = config in published and (data is None or data.source == f"medmnist:{config}")
        self._cells_config = published[config] if is_published else BloodCellsConfig(name=config)
        # TFDS refuses another configuration under a name that it knows.
        super().__init__(config=config if config in published else self._cells_config, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        config, data = self._cells_config, self._data
        size = None if data is None else data.images.shape[1]
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(config.class_names if data is None else data.class_names)),
            "id": tfds.features.Text(doc="path inside the source, or the index for arrays"),
        }
        if data is not None and data.groups is not None:
            features["group"] = tfds.features.Text(doc="what belongs together, such as a patient or a slide")
        shared = {
            "features": tfds.features.FeaturesDict(features),
            "supervised_keys": ("image", "label"),
            "disable_shuffling": True,
            "metadata": tfds.core.MetadataDict({} if data is None else _provenance(data)),
        }
        if config.homepage:
            return self.dataset_info_from_configs(homepage=config.homepage, license=LICENSE, **shared)
        return tfds.core.DatasetInfo(
            builder=self, description="Single cells of the user's own source; see the metadata.", **shared
        )

    def examples(self) -> dict[str, Iterator[dict]]:
        """Return the examples of each split in their order, as TFDS encodes them."""
        return {
            name: (example for _, example in rows) for name, rows in self._split_generators(dl_manager=None).items()
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager | None) -> dict:
        data = self._required_data()
        splits = data.splits or {WHOLE: np.arange(len(data))}
        return {name: self._generate_examples(indices) for name, indices in splits.items()}

    def _generate_examples(self, indices: np.ndarray) -> Iterator[tuple[int, dict]]:
        data = self._required_data()
        for index in indices:
            example = {"image": _png(data.images[index]), "label": int(data.labels[index]), "id": data.ids[index]}
            if data.groups is not None:
                example["group"] = data.groups[index]
            yield int(index), example

    def _required_data(self) -> Dataset:
        if self._data is None:
            raise ValueError("preparing needs the examples: Builder(data=...)")
        return self._data


def _provenance(data: Dataset) -> dict:
    provenance = {"source": data.source, "sha256": data.sha256(), "skipped": data.skipped}
    if data.file_geometry is not None:
        provenance["file_geometry"] = data.file_geometry.to_json()
    return provenance | ({} if data.groups is None else {"groups_sha256": digest_of(data.groups)})


def _png(image: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    # Not deflated: array_record compresses by itself, and without it an image is written and read in less than half
    # the time.
    Image.fromarray(image).save(buffer, "png", compress_level=0)
    buffer.seek(0)
    return buffer
