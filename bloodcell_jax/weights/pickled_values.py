"""The names that the pickle of a checkpoint may contain, and the records that stand for them.

A tensor is described, not built. A `Namespace` or a NumPy scalar stays a `Record` of its parts. Nothing is imported.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


class PickleError(ValueError):
    """The pickle is malformed, or needs something that is not allowed; the message says which."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Record:
    """A call in the pickle that was not made: the name of the callable and its arguments."""

    name: Name
    arguments: tuple


@dataclass(frozen=True)
class Storage:
    """Bytes that lie outside the pickle.

    Attributes:
      key: name in the archive.
      dtype: type of the elements.
      length: number of elements.
    """

    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor: a window on a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRecord:
    """Describe a tensor from the arguments of `torch._utils._rebuild_tensor_v2`; its storage must be large enough."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise PickleError("a malformed tensor")
    # Without these bounds, hostile numbers could make even the arithmetic of the checks below take forever.
    if len(shape) + len(strides) > 16:
        raise PickleError("a malformed tensor")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise PickleError("a malformed tensor")
    if len(shape) != len(strides) or math.prod(shape) > storage.length:
        raise PickleError("a tensor larger than its storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.length:
        raise PickleError("a tensor past the end of its storage")
    # Where an axis has one element, or the tensor none, any stride is right, and NumPy takes no stride of 2**62.
    used = [stride if size > 1 and math.prod(shape) else 0 for size, stride in zip(shape, strides, strict=True)]
    return TensorRecord(storage, offset, shape, tuple(used))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered_dict() -> dict:
    # torch calls it without arguments and fills it by opcodes. A long argument would be copied in each call.
    return {}


# All names that may be called, and the function that stands for each; None: a record. NumPy 2.0 renamed its module.
CALLABLES: dict[str, Callable | None] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "argparse.Namespace": None,
    "numpy.core.multiarray.scalar": None,
    "numpy._core.multiarray.scalar": None,
    "numpy.dtype": None,
    "_codecs.encode": None,
}

# Names in the description of a storage, which are never called, and the type of its elements.
STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
