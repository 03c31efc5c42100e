"""Downloads with pooch into the user's cache.

Each file is downloaded once and checked against its hash, if one is known. A download that broke off is continued.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bloodcell_jax.errors import DataError, MachineError

# Kind of files in the user's cache -> environment variable that names another folder for them.
FOLDER_VARIABLES = {"weights": "BLOODCELL_JAX_WEIGHTS", "data": "BLOODCELL_JAX_DATA"}
RETRIES = 3
CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30


def cache_folder(kind: str) -> Path:
    """Return the cache folder of a kind of files, `weights` or `data`. The folder may not exist yet."""
    import pooch

    return Path(os.environ.get(FOLDER_VARIABLES[kind]) or pooch.os_cache("bloodcell_jax") / kind)


def download(name: str, url: str, file_name: str, known_hash: str, *, kind: str) -> Path:
    """Return the path of a file in the cache, and download the file if it is not there yet.

    Args:
      name: what the user asked for, for messages.
      url: address of the file.
      file_name: name of the file in the cache.
      known_hash: `sha256:` or `md5:`, followed by all hexadecimal digits or the first of them; empty if none is known.
      kind: `weights` or `data`; each kind has a folder of its own.

    Raises:
      DataError: the file cannot be downloaded; the message says where to put it by hand.
      MachineError: the file cannot be stored.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # Otherwise it gives the user advice on hashes.
    algorithm, _, digits = known_hash.partition(":")
    is_whole = len(digits) == {"sha256": 64, "md5": 32}.get(algorithm)
    cache = pooch.create(
        path=cache_folder(kind),
        base_url="",
        registry={file_name: known_hash if is_whole else None},
        urls={file_name: url},
        retry_if_failed=RETRIES,
    )
    target = Path(cache.abspath) / file_name
    fetch = partial(_resume, partial_file=target.with_name(file_name + ".part"), known_hash=known_hash)
    try:
        # pooch's stub gives downloaders the parameter names of processors; pooch passes them by position.
        return Path(cache.fetch(file_name, downloader=fetch))  # pyright: ignore[reportArgumentType]
    except (requests.RequestException, ValueError) as error:
        reason = "the network or the server cannot be reached" if _is_offline(error) else str(error).splitlines()[0]
        raise DataError(
            f"{name}: cannot be downloaded ({reason}); download {url} in another way and save it as {target}"
        ) from error
    except OSError as error:
        raise MachineError(f"{target}: cannot be written ({error.strerror}); set {FOLDER_VARIABLES[kind]}") from error


def _is_offline(error: Exception) -> bool:
    import requests

    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _resume(url: str, output_file: str, _pooch: object, *, partial_file: Path, known_hash: str) -> None:
    """Append the missing bytes to `partial_file`, and move it to `output_file` when it is complete.

    Raises:
      ValueError: the file is longer than the server's, or its hash differs; `partial_file` is deleted.
    """
    import requests

    start = partial_file.stat().st_size if partial_file.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            partial_file.unlink()
            raise ValueError("the unfinished download is longer than the file")
        response.raise_for_status()
        start = start if response.status_code == requests.codes.partial_content else 0
        size = start + int(response.headers.get("Content-Length", 0))
        with partial_file.open("ab" if start else "wb") as file, _progress(partial_file.stem, start, size) as advance:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))
    algorithm, _, digits = known_hash.partition(":")
    if algorithm and not file_hash(partial_file, algorithm).startswith(digits):
        partial_file.unlink()
        raise ValueError(f"its {algorithm} does not start with {digits[:8]}")
    os.replace(partial_file, output_file)


def file_hash(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hexadecimal digits. `algorithm` is a name of hashlib."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def _progress(name: str, start: int, size: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, else one line; yield a function that takes the bytes of each chunk."""
    if not sys.stderr.isatty():
        print(f"downloading {name}: {(size - start) / 1e6:,.0f} MB", file=sys.stderr, flush=True)
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=size or None, completed=start)
        yield lambda count: bar.advance(task, count)
