"""An ONNX graph under construction, and the layers of this library's networks in terms of ONNX's operations.

Maps are [n, h, w, c] between layers, as in the networks themselves; a convolution transposes them to ONNX's [n, c, h,
w] and back, and runtimes cancel the pairs that meet.
"""

import math
from typing import Any

import numpy as np

# Its LayerNormalization is what set 17 brought; onnxruntime reads it since 1.12, and all sets after it as well.
OPSET = 17


class Graph:
    """Nodes in order, and the constants that they read.

    Attributes:
      nodes: (operation, inputs, output, attributes) of each.
      constants: arrays by name.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append((operation, inputs, output, attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add an array and return its name; a name stands for one array."""
        array = np.ascontiguousarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        known = self.constants.setdefault(name, array)
        if known is not array and not np.array_equal(known, array):
            raise ValueError(f"two constants are called {name}")
        return name

    def number(self, value: float) -> str:
        """Return the name of a scalar, float32."""
        return self.constant(f"number_{value!r}", np.float32(value))


class Layers:
    """Adds layers to a graph, each with the weights that stand under its name."""

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray]):
        self._graph, self._weights = graph, weights

    def _weight(self, name: str) -> str:
        return self._graph.constant(name, self._weights[name])

    def has(self, name: str) -> bool:
        """Return whether there is a weight of this name."""
        return name in self._weights

    def add_weight(self, operation: str, x: str, name: str) -> str:
        """Add an operation on `x` and a weight, such as a product with layer scale."""
        return self._graph.add(operation, x, self._weight(name))

    def convolution(self, x: str, name: str, *, stride: int = 1, padding: int = 0, groups: int = 1) -> str:
        """Convolve [n, h, w, c] by the kernel [kh, kw, in, out] under a name, with its bias."""
        graph = self._graph
        kernel = graph.constant(f"{name}/kernel", self._weights[f"{name}/kernel"].transpose(3, 2, 0, 1))
        form = {"strides": [stride] * 2, "pads": [padding] * 4, "group": groups}
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
        x = graph.add("Conv", x, kernel, self._weight(f"{name}/bias"), **form)
        return graph.add("Transpose", x, perm=[0, 2, 3, 1])

    def depthwise(self, x: str, name: str) -> str:
        """Convolve each channel by a filter of its own; the size stays."""
        side, _, _, channels = self._weights[f"{name}/kernel"].shape
        return self.convolution(x, name, padding=side // 2, groups=channels)

    def dense(self, x: str, name: str) -> str:
        """Multiply the last axis by a matrix and add a bias."""
        x = self.add_weight("MatMul", x, f"{name}/kernel")
        return self.add_weight("Add", x, f"{name}/bias")

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        """Normalize over the channels."""
        weights = (self._weight(f"{name}/scale"), self._weight(f"{name}/bias"))
        return self._graph.add("LayerNormalization", x, *weights, axis=-1, epsilon=epsilon)

    def group_norm(self, x: str, name: str, *, groups: int, epsilon: float) -> str:
        """Normalize over the positions and a group of channels of [n, h, w, c]; each group is an instance to ONNX."""
        graph = self._graph
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
        rows = graph.add("Reshape", x, graph.constant(f"rows_of_{groups}", np.array([0, groups, -1])))
        one, zero = (
            graph.constant(f"{word}_of_{groups}", np.full(groups, value, np.float32))
            for word, value in (("one", 1), ("zero", 0))
        )
        rows = graph.add("InstanceNormalization", rows, one, zero, epsilon=epsilon)
        x = graph.add("Reshape", rows, graph.add("Shape", x))
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
        return self.add_weight("Add", self.add_weight("Mul", x, f"{name}/scale"), f"{name}/bias")

    def response_norm(self, x: str, name: str) -> str:
        """Add global response normalization of [n, h, w, c] (ConvNeXt V2, section 3.3)."""
        graph = self._graph
        response = graph.add("ReduceL2", x, axes=[1, 2], keepdims=1)
        mean = graph.add("ReduceMean", response, axes=[-1], keepdims=1)
        normalized = graph.add("Div", response, graph.add("Add", mean, graph.number(1e-6)))
        scaled = self.add_weight("Mul", graph.add("Mul", x, normalized), f"{name}/scale")
        return self.add_weight("Add", graph.add("Add", x, scaled), f"{name}/bias")

    def activation(self, x: str, name: str) -> str:
        """Apply an activation by the name that variants use, written as runtimes know it."""
        graph = self._graph
        if name == "silu":
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        if name == "gelu":
            inner = graph.add("Erf", graph.add("Div", x, graph.number(math.sqrt(2))))
        else:
            cube = graph.add("Mul", graph.add("Mul", x, x), x)
            sum_ = graph.add("Add", x, graph.add("Mul", cube, graph.number(0.044715)))
            inner = graph.add("Tanh", graph.add("Mul", sum_, graph.number(math.sqrt(2 / math.pi))))
        wide = graph.add("Mul", x, graph.add("Add", inner, graph.number(1.0)))
        return graph.add("Mul", wide, graph.number(0.5))

    def halve(self, x: str) -> str:
        """Take the largest of each 2x2 positions of [n, h, w, c]."""
        x = self._graph.add("Transpose", x, perm=[0, 3, 1, 2])
        x = self._graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        return self._graph.add("Transpose", x, perm=[0, 2, 3, 1])

    def mean(self, x: str) -> str:
        """Average [n, h, w, c] over the positions."""
        return self._graph.add("ReduceMean", x, axes=[1, 2], keepdims=0)
