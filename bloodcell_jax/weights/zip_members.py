"""Members of a zip archive as views of the mapped file; nothing is unpacked, so no archive can claim memory."""

import struct
import zipfile
from pathlib import Path

import numpy as np

_LOCAL_HEADER_BYTES = 30


class ZipMembers:
    """The uncompressed members of an archive by name.

    Raises:
      zipfile.BadZipFile: the file is no whole archive.
    """

    def __init__(self, path: Path):
        self._mapped = np.memmap(path, np.uint8, mode="r")
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {info.filename: info for info in archive.infolist()}
        except Exception as error:  # zipfile raises nearly everything on malformed files.
            raise zipfile.BadZipFile(" ".join(str(error).split())) from error

    @property
    def names(self) -> list[str]:
        """Names of the members."""
        return list(self._members)

    def read(self, name: str) -> np.ndarray:
        """Return the bytes of a member [n]; raises as `find`."""
        start, size = self.find(name)
        return self._mapped[start : start + size].view(np.ndarray)

    def find(self, name: str) -> tuple[int, int]:
        """Return the first byte of a member in the file, and its size; its claims are checked against the file.

        Raises:
          ValueError: there is no such member, it is compressed or encrypted, or it goes past the end of the file.
        """
        if name not in self._members:
            raise ValueError(f"no member {name}")
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.compress_size != info.file_size:
            raise ValueError(f"{name} is compressed or encrypted, which neither PyTorch nor Keras does")
        header = self._mapped[info.header_offset : info.header_offset + _LOCAL_HEADER_BYTES].tobytes()
        if info.header_offset < 0 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"no member where {name} should be")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _LOCAL_HEADER_BYTES + name_length + extra_length
        if start + info.file_size > len(self._mapped):
            raise ValueError(f"{name} goes past the end of the file; download it again")
        return start, info.file_size
