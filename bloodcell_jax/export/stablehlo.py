"""A model as one zip: a StableHLO program for any batch on CPUs, NVIDIA GPUs and TPUs, and its weights beside it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import export

from bloodcell_jax.export.card import LICENSE_NAME, README_NAME, card, facts, license_text
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.models.input import normalize, to_unit
from bloodcell_jax.whole_files import replacing

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM_NAME, FACTS_NAME, WEIGHTS_FOLDER = "model.jax_export", "model.json", "weights/"
# The first moment that a zip can state: the same model gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)

USE = """\
Load it in Python with `jax` and `flatbuffers` alone:

```python
import json
import zipfile

import jax
import numpy as np
from jax import export

with zipfile.ZipFile("cells.zip") as archive:
    about = json.loads(archive.read("model.json"))
    program = export.deserialize(bytearray(archive.read("model.jax_export")))
    names = [name for name in archive.namelist() if name.startswith("weights/")]
    weights = {name[8:-4]: np.load(archive.open(name)) for name in names}

size = about["geometry"]["image_size"]
images = np.zeros((5, size, size, 3), np.uint8)  # RGB, cropped and resized as about["geometry"] says
probabilities = jax.jit(program.call)(jax.device_put(weights), images)  # [5, classes], as about["class_names"]
```
"""


def probabilities_of(model: TrainedModel) -> Callable[[dict[str, jax.Array], jax.Array], jax.Array]:
    """Return a function: (weights by path, images uint8 [n, h, w, 3]) -> probabilities float32 [n, classes]."""
    network, config, temperature = model.network, model.config.model, model.temperature

    def probabilities(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        normalized = normalize(to_unit(images), config.mean, config.std)
        logits, _ = network.apply({"params": unflatten_dict(weights, sep="/")}, normalized, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32) / temperature)

    return probabilities


def stablehlo_program(model: TrainedModel) -> export.Exported:
    """Return the program of `probabilities_of`, lowered for `PLATFORMS` and a batch of any size.

    Each platform keeps its own form of the depthwise convolution, and none calls a custom kernel.
    """
    (batch,) = export.symbolic_shape("batch")
    size = model.config.data.image_size
    weights = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in model.weights.items()}
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    return export.export(jax.jit(probabilities_of(model)), platforms=PLATFORMS)(weights, images)


def write_stablehlo(path: Path, model: TrainedModel) -> None:
    """Write the zip; a reader never sees half of it.

    Raises:
      MachineError: the file cannot be written.
    """
    program = bytes(stablehlo_program(model).serialize())
    about = facts(model) | {"platforms": PLATFORMS, "dtype": model.config.model.dtype}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, README_NAME, card(model, USE).encode())
        _add(archive, LICENSE_NAME, license_text(model.info).encode())
        _add(archive, FACTS_NAME, json.dumps(about, indent=2).encode())
        _add(archive, PROGRAM_NAME, program)
        for name, weight in sorted(model.weights.items()):
            _add(archive, f"{WEIGHTS_FOLDER}{name}.npy", _npy(weight))


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content)


def _npy(array: np.ndarray) -> memoryview:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getbuffer()
