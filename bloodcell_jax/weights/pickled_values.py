"""What the pickle of a checkpoint may name, and the records that stand for it.

A tensor is described, not built; a `Namespace` or a numpy scalar stays a `Record` of its parts. Nothing is imported.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


class PickleError(ValueError):
    """The pickle is malformed, or needs what is not allowed; the message says which."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Record:
    """What the pickle would have built by a call, left as what it is made of."""

    name: Name
    arguments: tuple


@dataclass(frozen=True)
class Storage:
    """Bytes that lie outside the pickle.

    Attributes:
      key: its name in the archive.
      dtype: of its elements.
      length: number of elements.
    """

    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor: a window on a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRecord:
    """As `torch._utils._rebuild_tensor_v2` is called; checked against the storage's claim."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise PickleError("a malformed tensor")
    numbers = (offset, *shape, *strides)
    # Beyond these bounds even the arithmetic of the checks below could be made to take forever.
    if len(numbers) > 17 or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise PickleError("a malformed tensor")
    if len(shape) != len(strides) or math.prod(shape) > storage.length:
        raise PickleError("a tensor larger than its storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.length:
        raise PickleError("a tensor past the end of its storage")
    return TensorRecord(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered_dict() -> dict:
    # Called empty and filled by opcodes. A long argument, given again and again, would be copied each time.
    return {}


# All that may be called, and what stands for it; None: a record. numpy renamed its module in 2.0.
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

# Named in the description of a storage, never called, and the type of its elements.
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
