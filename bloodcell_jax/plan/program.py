"""What a compiled program does, read from its text: operations, bytes, collectives and the compiler's own estimates."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# What XLA:TPU makes of a sum over several slices: a sum inside each slice leaves every device a part, the hosts add the
# parts of all slices, and the devices gather them.
BETWEEN_SLICES = "send between slices"

# They name or join values; nothing runs.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"}
# XLA:TPU's name for memory that a loop will fill.
_ALLOCATION = 'custom_call_target="AllocateBuffer"'
# These read a part of their first operand, this one overwrites a part of it, and these read each element for one of
# their own.
_READ_A_PART = {"gather", "dynamic-slice", "slice"}
_UPDATE = "dynamic-update-slice"
_ONE_BY_ONE = {"bitcast", "convert", "copy", "reshape", "transpose"}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_BITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      operands: names of instructions of the same computation.
      bytes: of its result in the main memory of the device; what lies in a memory near the cores counts nothing.
      line: the text.
    """

    name: str
    opcode: str
    operands: tuple[str, ...]
    bytes: int
    line: str

    @property
    def is_done(self) -> bool:
        """Whether it only waits for an operation that began before."""
        return self.opcode.endswith("-done")

    @property
    def is_root(self) -> bool:
        """Whether its result is that of its computation."""
        return self.line.lstrip().startswith("ROOT ")

    @property
    def path(self) -> str:
        """The names that the program gave it, joined by slashes."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.line)
        return found[1].replace("\\'", "'") if found else ""

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.line)
        return int(found[1]) if found else None

    def called(self, attribute: str) -> str | None:
        """Return the name of the computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.line)
        return found[1] if found else None


@dataclass(frozen=True)
class Operation:
    """Something that the device does.

    Attributes:
      opcode: XLA's; of an asynchronous operation without `-start`.
      moved: bytes of the main memory that it reads and writes.
      times: how often it runs in one call of the program.
    """

    opcode: str
    path: str
    moved: int
    cycles: int | None
    times: int
    line: str


def read_operations(text: str) -> list[Operation]:
    """Return the operations of a compiled program in the order of its text.

    What runs inside a loop counts as often as the loop is known to run, and once if that is not known.
    """
    computations, entry = _computations(text)
    return list(_operations(computations, entry, 1))


def collectives(operations: list[Operation]) -> list[dict[str, Any]]:
    """Return kind, count and bytes (of the results on one device) of the operations between devices."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        between = operation.opcode == "send" and "_xla_megascale_transfer_type" in operation.line
        kind = BETWEEN_SLICES if between else operation.opcode
        found.setdefault(kind, []).append(operation)
    return [
        {
            "kind": kind,
            "count": sum(operation.times for operation in found[kind]),
            "bytes": sum(operation.times * _result_bytes(operation.line) for operation in found[kind]),
        }
        for kind in (*COLLECTIVES, BETWEEN_SLICES)
        if kind in found
    ]


def _computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    found: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            start = _COMPUTATION.match(line)
            if start:
                current = found.setdefault(start[2], {})
                entry = start[2] if start[1] else entry
        elif line == "}":
            current = None
        else:
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    return found, entry


def _instruction(line: str) -> Instruction | None:
    head = _INSTRUCTION.match(line)
    if head is None:
        return None
    operands = tuple(_NAME.findall(_in_parentheses(line, head.end() - 1)))
    return Instruction(head[1], head[3], operands, _main_memory_bytes(head[2]), line)


def _in_parentheses(line: str, start: int) -> str:
    depth = 0
    for end in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[end], 0)
        if depth == 0:
            return line[start:end]
    return line[start:]


def _operations(computations: dict[str, dict[str, Instruction]], name: str, times: int) -> Iterator[Operation]:
    computation = computations[name]
    for instruction in computation.values():
        opcode = instruction.opcode
        if opcode in _FREE or instruction.is_done or _ALLOCATION in instruction.line:
            continue
        if opcode in ("while", "conditional", "call"):
            for attribute in ("body", "to_apply", "true_computation"):
                called = instruction.called(attribute)
                if called in computations:
                    yield from _operations(computations, called, times * _trips(instruction, computations))
            continue
        moved = _written_bytes(instruction, computation, computations)
        moved += sum(_read_bytes(instruction, computation, computations))
        kind = opcode.removesuffix("-start")
        yield Operation(kind, instruction.path, moved, instruction.cycles, times, instruction.line)


def _trips(instruction: Instruction, computations: dict[str, dict[str, Instruction]]) -> int:
    """Return how often a loop runs.

    XLA:GPU and XLA:CPU write it down. XLA:TPU leaves it to the condition, which compares a count from 0 with it.
    """
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.line)
    if found:
        return int(found[1])
    condition = computations.get(instruction.called("condition") or "", {})
    limits = [_constant(each.line) for each in condition.values() if each.opcode == "constant"]
    compared = [each for each in condition.values() if each.opcode == "compare" and "direction=LT" in each.line]
    return limits[0] if len(limits) == len(compared) == 1 else 1


def _constant(line: str) -> int:
    found = re.search(r" constant\((\d+)\)", line)
    return int(found[1]) if found else 1


def _written_bytes(
    instruction: Instruction, computation: dict[str, Instruction], computations: dict[str, dict[str, Instruction]]
) -> int:
    """Return the bytes that an operation writes; it updates an array in place, so these are those of the update."""
    fused = computations.get(instruction.called("calls") or "")
    scope = computation if fused is None else fused
    root = instruction if fused is None else next((each for each in fused.values() if each.is_root), instruction)

    def written(value: Instruction) -> int:
        if value.opcode == _UPDATE and value.operands[1] in scope:
            return _result_bytes(scope[value.operands[1]].line)
        if value.opcode in ("bitcast", "tuple"):
            return sum(written(scope[name]) for name in value.operands if name in scope)
        return _result_bytes(value.line)

    return min(instruction.bytes, written(root))


def _read_bytes(
    instruction: Instruction, computation: dict[str, Instruction], computations: dict[str, dict[str, Instruction]]
) -> Iterator[int]:
    """Yield the bytes that an operation reads of each operand."""
    fused = computations.get(instruction.called("calls") or "", {})
    parts = _parts_read(fused)
    for place, name in enumerate(instruction.operands):
        operand = computation.get(name)
        if operand is None or operand.opcode == "constant":
            continue
        if place == 0 and instruction.opcode == _UPDATE:
            continue
        if place == 0 and instruction.opcode in _READ_A_PART:
            yield min(operand.bytes, instruction.bytes)
        else:
            yield min(operand.bytes, parts.get(place, operand.bytes))


def _parts_read(fused: dict[str, Instruction]) -> dict[int, int]:
    """Return, by its place, the bytes of each parameter of which a fusion reads parts alone."""
    users: dict[str, list[tuple[int, Instruction]]] = {}
    for instruction in fused.values():
        for place, name in enumerate(instruction.operands):
            users.setdefault(name, []).append((place, instruction))

    def share_read(instruction: Instruction) -> float:
        """Return which share of a value is read, at most 1."""
        whole, read = _elements(instruction.line), 0
        for place, user in users.get(instruction.name, []):
            if place == 0 and user.opcode == _UPDATE:
                continue
            if place == 0 and user.opcode in _READ_A_PART:
                read += _elements(user.line) / whole
            elif user.opcode in _ONE_BY_ONE:
                read += share_read(user)
            else:
                return 1.0
        return min(read, 1.0)

    parts = {}
    for instruction in fused.values():
        found = re.search(r" parameter\((\d+)\)", instruction.line)
        if found:
            parts[int(found[1])] = int(_result_bytes(instruction.line) * share_read(instruction))
    return parts


def _main_memory_bytes(shape: str) -> int:
    return sum(size for size, layout in _arrays(shape) if "S(" not in layout)


def _result_bytes(line: str) -> int:
    head = _INSTRUCTION.match(line)
    return sum(size for size, _ in _arrays(head[2])) if head else 0


def _elements(line: str) -> int:
    head = _INSTRUCTION.match(line)
    return max(1, sum(_count(sizes) for _, sizes, _ in _ARRAY.findall(head[2]))) if head else 1


def _arrays(shape: str) -> Iterator[tuple[int, str]]:
    """Yield the bytes and the layout of each array of a shape or a tuple of shapes."""
    for dtype, sizes, layout in _ARRAY.findall(shape):
        if dtype == "token":
            continue
        bits = _BITS.search(dtype)
        width = 8 if dtype == "pred" or bits is None else int(bits[0])
        yield _count(sizes) * width // 8, layout


def _count(sizes: str) -> int:
    return math.prod(map(int, filter(None, sizes.split(","))))
