"""What the files of Weights & Biases hold that it writes without a server (`WANDB_MODE=offline`).

A process that is killed loses the last lines that it was given, and W&B does not tell the next one which. Its files are
logs of records in LevelDB's format (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _PREFIX = 7, 32768, 7
# A record in one piece, or its last piece.
_WHOLE, _LAST = 1, 4


def logged_lines(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the values of each step of a run, in the order in which its processes wrote them.

    Args:
      folder: `wandb` below the workdir.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports] - an extra

    for path in sorted(folder.glob(f"offline-run-*/run-{run_id}.wandb")):
        for record in _records(path.read_bytes()):
            items = Record.FromString(record).history.item
            if items:
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the whole records of a file; one that a kill cut short is the last and left out."""
    place, record = _HEADER, b""
    while True:
        if (rest := _BLOCK - place % _BLOCK) < _PREFIX:
            place += rest  # The end of a block that has no room for a piece is empty.
        piece = content[place : place + _PREFIX]
        if len(piece) < _PREFIX:
            return
        _, size, kind = struct.unpack("<IHB", piece)
        place += _PREFIX + size
        if kind == 0 or place > len(content):
            return
        record += content[place - size : place]
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
