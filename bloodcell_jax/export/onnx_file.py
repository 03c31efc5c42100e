"""A model as one ONNX file, from uint8 images to probabilities."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.card import card, facts, license_text
from bloodcell_jax.export.onnx_graph import OPSET, Graph
from bloodcell_jax.export.onnx_networks import add_network
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.whole_files import replacing

# Protocol buffers end at 2 GiB; the graph itself takes less than 1 MB of it.
_MOST_BYTES = 2**31 - 2**20
# The format version that opset 17 came with; older runtimes read it than they do the newest.
_IR_VERSION = 8
IMAGES, PROBABILITIES = "images", "probabilities"

USE = """\
Run it with any ONNX runtime, here onnxruntime:

```python
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("cells.onnx")
metadata = session.get_modelmeta().custom_metadata_map
class_names = json.loads(metadata["class_names"])
size = json.loads(metadata["geometry"])["image_size"]

images = np.zeros((5, size, size, 3), np.uint8)  # RGB, cropped and resized as metadata["card"] says
(probabilities,) = session.run(["probabilities"], {"images": images})  # [5, classes]
```

Normalization, temperature and softmax are inside; it computes in float32.
"""


def probability_graph(model: TrainedModel) -> Graph:
    """Return the graph from `IMAGES`, uint8 [n, h, w, 3], to `PROBABILITIES`, float32 [n, classes].

    Raises:
      UsageError: there is no ONNX form of this network.
    """
    graph, config = Graph(), model.config.model
    unit = graph.add("Div", graph.add("Cast", IMAGES, to=1), graph.number(255.0))  # 1 is float32.
    centered = graph.add("Sub", unit, graph.constant("mean", np.asarray(config.mean, np.float32)))
    normalized = graph.add("Div", centered, graph.constant("std", np.asarray(config.std, np.float32)))
    logits = add_network(graph, model, normalized)
    scaled = graph.add("Div", logits, graph.constant("temperature", np.float32(model.temperature)))
    graph.add("Softmax", scaled, output=PROBABILITIES, axis=-1)
    return graph


def write_onnx(path: Path, model: TrainedModel) -> None:
    """Write the file; a reader never sees half of it.

    Raises:
      MachineError: the file cannot be written.
      UsageError: the network has no ONNX form, or is too large for one file.
    """
    size = sum(weight.nbytes for weight in model.weights.values())
    if size > _MOST_BYTES:
        raise UsageError(
            f"--format=onnx: {model.config.model.variant} has {size / 2**30:.1f} GiB of weights, and a file of ONNX "
            "ends at 2 GiB; choose --format=stablehlo"
        )
    content = _serialized(probability_graph(model), model)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _serialized(graph: Graph, model: TrainedModel) -> bytes:
    """Return the file's content, which ONNX's own checker has accepted with all shapes."""
    import onnx  # pyright: ignore[reportMissingImports] - an extra
    from onnx import TensorProto, helper, numpy_helper  # pyright: ignore[reportMissingImports]

    size = model.config.data.image_size
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["n", size, size, 3])
    shape = ["n", len(model.class_names)]
    probabilities = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape)
    nodes = [
        helper.make_node(operation, inputs, [output], name=output, **attributes)
        for operation, inputs, output, attributes in graph.nodes
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, model.config.model.variant, [images], [probabilities], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="bloodcell_jax",
        producer_version=model.record.version,
    )
    helper.set_model_props(proto, _metadata(model))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def _metadata(model: TrainedModel) -> dict[str, str]:
    values: dict[str, Any] = facts(model)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return texts | {"card": card(model, USE), "license_text": license_text(model.info)}
