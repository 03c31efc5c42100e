"""A reader of pickles that imports nothing and calls nothing.

A PyTorch checkpoint is a pickle, and a pickle is a program: the standard unpickler calls whatever it names. This reader
interprets the opcodes itself. A checkpoint may name only what is on a short list, and a name becomes a record: a tensor
is described, not built, and a `Namespace` is an inert `Record`. Any other name ends the reading.
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from bloodcell_jax.weights.pickled_values import CALLABLES, STORAGES, Name, PickleError, Record, Storage

# The pickle of a ConvNeXt-XXLarge has 0.1 MB, that of a training checkpoint with its optimizer 1 MB.
MAX_PICKLE_BYTES = 16 * 2**20
# That checkpoint has 0.2 million. Each may leave an empty dict, which takes 64 bytes for the one in the file.
MAX_OPCODES = 1_000_000


@dataclass(frozen=True)
class Pickle:
    """The content of a pickle.

    Attributes:
      value: dicts, lists, tuples, text, numbers, TensorRecords and Records.
      storages: all storages that it mentions, by key.
      length: length of the pickle in bytes.
    """

    value: Any
    storages: dict[str, Storage]
    length: int


def read_pickle(data: bytes) -> Pickle:
    """Read the pickle at the start of `data`.

    Raises:
      PickleError: the pickle is malformed, too long, or names something that no checkpoint needs.
    """
    file = BytesIO(data[:MAX_PICKLE_BYTES])
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of escapes in the text of a malformed pickle.
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file), 1):
                if count > MAX_OPCODES:
                    raise PickleError(f"a pickle of more than {MAX_OPCODES:,} operations; save a state_dict() alone")
                machine.execute(opcode.name, argument)
        return Pickle(machine.result(), machine.storages, file.tell())
    except PickleError:
        raise
    # Malformed pickles raise these: short reads, values of the wrong kind, unhashable keys, empty stacks.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # The error quotes the bytes that could not be read, which may be megabytes.
        raise PickleError(f"a malformed pickle ({' '.join(str(error).split())[:100]})") from error


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_LENGTHS = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
    """The stack and the memo of a pickle, and the operations of its opcodes."""

    def __init__(self):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLE_LENGTHS:
            length = _TUPLE_LENGTHS[opcode]
            self.stack.append(tuple(self.pop() for _ in range(length))[::-1])
        elif opcode in _PUSHES_ARGUMENT:
            self.stack.append(argument)
        elif opcode in _OPERATIONS:
            _OPERATIONS[opcode](self, argument)
        else:
            raise PickleError(f"a pickle with the opcode {opcode}, which no checkpoint needs")

    def result(self) -> Any:
        (value,) = self.stack
        if value is _MARK:
            raise PickleError("a malformed pickle (it ends in a mark)")
        return value

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("a malformed pickle (a mark where a value belongs)")
        return value

    def pop_to_mark(self) -> list:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise PickleError("a malformed pickle (no mark)")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise PickleError(f"a malformed pickle (no {kind.__name__} to add to)")
        return self.stack[-1]

    def set_items(self, values: list) -> None:
        items = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            # The time to hash a tuple of tuples doubles with each level.
            if not isinstance(key, str | int | float | bool | None):
                raise PickleError("a dict with keys that are neither text nor numbers")
            items[key] = value

    def call(self, _) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise PickleError("a malformed pickle (a call of something that is no function)")
        # Many calls with long arguments would take forever; no callable on the list has more than 7 arguments.
        if str(function) not in CALLABLES or len(arguments) > 8:
            raise PickleError(f"a pickle that calls {function}")
        replacement = CALLABLES[str(function)]
        self.stack.append(replacement(*arguments) if replacement else Record(function, arguments))

    def build(self, _) -> None:
        """Drop the state of an object: an OrderedDict's holds torch's version marks, and a record needs none."""
        self.pop()
        if not isinstance(self.stack[-1], dict | Record):
            raise PickleError("a pickle that sets the state of something that is no record")

    def persistent(self, _) -> None:
        """Describe a storage from (storage, its class, key, device, elements); torch's views may add a sixth, None."""
        description = self.pop()
        if not isinstance(description, tuple) or len(description) not in (5, 6) or description[5:] not in ((), (None,)):
            raise PickleError("a malformed storage")
        kind, storage_class, key, _, length = description[:5]
        if kind != "storage" or not isinstance(storage_class, Name) or not isinstance(key, str):
            raise PickleError("a malformed storage")
        if not key.isalnum() or len(key) > 40 or str(storage_class) not in STORAGES:
            raise PickleError("a malformed storage")
        if type(length) is not int or not 0 <= length < 2**63:
            raise PickleError("a malformed storage")
        storage = Storage(key, STORAGES[str(storage_class)], length)
        if self.storages.setdefault(key, storage) != storage:
            raise PickleError(f"two descriptions of storage {key}")
        self.stack.append(storage)


def _name(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("a malformed pickle (a name that is no text)")
    named = Name(module, name)
    if len(str(named)) > 200 or not all(part.isidentifier() for part in str(named).split(".")):
        raise PickleError("a malformed pickle (a name that cannot be one)")
    if str(named) not in CALLABLES and str(named) not in STORAGES:
        raise PickleError(f"a pickle that needs {named}, which is neither a tensor's nor plain data")
    return named


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(_name(*argument.split(" ", 1)))


def _stack_global(machine: _Machine, _) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(_name(module, name))


def _instance(_: _Machine, argument: str) -> None:
    raise PickleError(f"a pickle that calls {_name(*argument.split(' ', 1))} by INST, which no checkpoint needs")


def _memoize(machine: _Machine, index: int | None) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _append(machine: _Machine, values: list) -> None:
    machine.top(list).extend(values)


def _set_item(machine: _Machine, _) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _dict(machine: _Machine, _) -> None:
    values = machine.pop_to_mark()
    machine.stack.append({})
    machine.set_items(values)


def _nothing(machine: _Machine, _) -> None:
    pass


_PUSHES_ARGUMENT = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "STOP": _nothing,
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "PUT": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "MEMOIZE": _memoize,
    "GLOBAL": _global,
    "INST": _instance,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
