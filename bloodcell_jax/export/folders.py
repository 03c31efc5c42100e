"""Models as folders: the weights in safetensors, with what their reader expects beside them."""

import json
from pathlib import Path

from flax.traverse_util import unflatten_dict

from bloodcell_jax.export.card import LICENSE_NAME, README_NAME, card, license_text
from bloodcell_jax.export.timm_names import timm_config, timm_weights
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.weights.info import MODEL_NAME
from bloodcell_jax.weights.model_file import write_model_file
from bloodcell_jax.whole_files import creating_folder

SAFETENSORS_USE = """\
`model.safetensors` is the model of the run with all that a prediction needs:

```sh
bloodcell predict --model=model.safetensors --input=cells/ --output=cells.csv
```

```python
import bloodcell_jax as bc

classifier = bc.Classifier.from_file("model.safetensors")
probabilities = classifier.predict(images)  # uint8 [n, h, w, 3], or paths
```
"""

TIMM_USE = """\
The folder is a model of timm, here under the name `cells_for_timm`:

```python
import timm
import torch

model = timm.create_model("local-dir:cells_for_timm", pretrained=True).eval()
size, mean, std = (model.pretrained_cfg[name] for name in ("input_size", "mean", "std"))
images = torch.zeros(5, *size)  # RGB in [0, 1], cropped and resized as the card says, minus mean, over std
with torch.no_grad():
    probabilities = model(images).softmax(-1)  # [5, classes], as model.pretrained_cfg["label_names"]
```

The head's weights are divided by the temperature, so that a softmax gives the probabilities of `predict`. The network
computes in float32.
"""


def write_safetensors_folder(folder: Path, model: TrainedModel) -> None:
    """Write a new folder with this library's own model file.

    Raises:
      MachineError: it cannot be written.
    """
    with creating_folder(folder) as temporary:
        write_model(temporary, model, SAFETENSORS_USE)


def write_timm_folder(folder: Path, model: TrainedModel) -> None:
    """Write a new folder that timm loads by `local-dir:`.

    Raises:
      MachineError: it cannot be written.
      UsageError: timm has no such network.
    """
    from safetensors.numpy import save

    weights, config = timm_weights(model), timm_config(model)
    with creating_folder(folder) as temporary:
        # timm asks for the framework that a file was saved for.
        (temporary / MODEL_NAME).write_bytes(save(weights, {"format": "pt"}))
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_papers(temporary, model, TIMM_USE)


def write_model(folder: Path, model: TrainedModel, use: str, *, head: str = "") -> None:
    """Write this library's own model file into a folder, with its card, which `head` begins, and its license."""
    write_model_file(folder / MODEL_NAME, unflatten_dict(model.weights, sep="/"), model.record, model.info)
    _write_papers(folder, model, use, head=head)


def _write_papers(folder: Path, model: TrainedModel, use: str, *, head: str = "") -> None:
    for name, text in ((README_NAME, head + card(model, use)), (LICENSE_NAME, license_text(model.info))):
        (folder / name).write_text(text, encoding="utf-8")
