"""What a user names for results: never an input, and written in a way that suits files, devices and pipes."""

import contextlib
import csv
import errno
import io
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from bloodcell_jax.data.sources import source_path
from bloodcell_jax.errors import DataError, MachineError, UsageError
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.whole_files import replacing, writing

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}

_READER_SECONDS = 10  # for the program behind a pipe to open it

Row = TypeVar("Row")


def check_unlike(output: Path, inputs: Iterable[str | os.PathLike], flag: str | None = None) -> None:
    """Check that a file for results is none of the inputs, by any path or link.

    Args:
      output: the file.
      inputs: the files that are read.
      flag: what the message calls the file; None: by `--output`.

    Raises:
      UsageError: it is; names the input.
    """
    with contextlib.suppress(OSError):  # What is not there is no input.
        own = os.stat(output)
        for path in inputs:
            with contextlib.suppress(OSError):
                if os.path.samestat(own, os.stat(path)):
                    named = flag or f"--output={output}"
                    raise UsageError(f"{named}: is the input {os.fspath(path)}; name another file")


def check_folder(
    output: Path, files: Iterable[Path], source: str | None, inputs: Iterable[str | os.PathLike] = ()
) -> None:
    """Check a folder for results, before hours of work.

    Args:
      files: what will be written.
      source: the data source that is read.
      inputs: other files that are read.

    Raises:
      UsageError: it is a file, lies in the folder that is read, or a file in it is an input.
    """
    if os.path.exists(output) and not os.path.isdir(output):
        raise UsageError(f"--output={output}: is a file; name a folder")
    if source is not None:
        check_outside("output", output, source)
        inputs = [os.path.expanduser(source.partition(":")[2] or source), *inputs]
    for file in files:
        check_unlike(file, inputs)


def check_outside(flag: str, folder: Path, source: str) -> None:
    """Check that a folder to write to, which `--flag` names, does not lie in a data source.

    Raises:
      UsageError: it does; names both.
    """
    read = source_path(source)
    if read is not None and os.path.isdir(read):
        root, own = os.path.realpath(read), os.path.realpath(folder)
        if os.path.commonpath((root, own)) == root:
            raise UsageError(f"--{flag}={folder}: lies in the source {source}, and would be read with it; name another")


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a file for text, which appears whole or not at all; bytes that are no UTF-8 are written as they were read.

    Raises:
      MachineError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", **_TEXT) as file:
        yield file


def csv_writer(file: IO[str]) -> Any:
    """Return what writes rows to a CSV; each ends in one new line, and any cell is read as it was written.

    Before Python 3.13 csv quotes a carriage return only if its line ends hold one.
    """

    class Lines:
        def write(self, line: str) -> None:
            file.write(line.removesuffix("\r\n") + "\n")

    return csv.writer(Lines(), lineterminator="\r\n")


def read_csv(path: Path, read_row: Callable[[list[str], list[str]], Row]) -> list[Row]:
    """Return what `read_row` makes of the header and each row of a CSV that this library wrote.

    Raises:
      DataError: the file cannot be read, or `read_row` raises ValueError; names the line.
    """
    advice = "delete it and run the command that wrote it"
    check_regular_file(path)
    rows, reader = [], None
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [read_row(header, row) for row in reader]
    except (ValueError, csv.Error) as error:
        place = f"{path}, line {reader.line_num}" if reader else path
        raise DataError(f"{place}: cannot be read ({error}); {advice}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    return rows


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[IO[str]]:
    """Open what a user named for a result, as `open_text` does.

    A link is followed. A device or pipe, such as /dev/stdout, is written to at the end and never replaced.

    Raises:
      MachineError: it cannot be written.
    """
    if not is_stream(path):
        with open_text(Path(os.path.realpath(path))) as file:
            yield file
        return
    with tempfile.TemporaryFile() as content:
        text = io.TextIOWrapper(content, **_TEXT)
        yield text
        text.detach()
        content.seek(0)
        with _open_stream(path) as stream:
            shutil.copyfileobj(content, stream)


def is_stdout(path: Path) -> bool:
    """Return whether a path is what standard output goes to, so that nothing else may be printed there."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or what stands in for it is no file
        return False


def is_stream(path: Path) -> bool:
    """Return whether a path is standard output, a device or a pipe, so that it cannot be replaced."""
    if is_stdout(path):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def _open_stream(path: Path) -> Iterator[IO[bytes]]:
    if is_stdout(path):
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with writing(path):
        descriptor = _open_for_writing(path)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream


def _open_for_writing(path: Path) -> int:
    # Its reader may start at the same moment; a pipe that nobody reads is not waited for without end.
    deadline = time.monotonic() + _READER_SECONDS
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise
            if time.monotonic() > deadline:
                raise MachineError(f"{path}: nobody reads from this pipe; start its reader first") from error
        time.sleep(0.05)
