"""Downloads by pooch: once, into the user's cache, checked against what hash is known, going on where one broke off."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bloodcell_jax.errors import DataError, MachineError

# Names another folder for downloaded weights.
FOLDER_VARIABLE = "BLOODCELL_JAX_WEIGHTS"
RETRIES = 3
CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30


def download(name: str, url: str, file_name: str, sha256: str) -> Path:
    """Return the file, downloaded if it is not in the cache yet.

    Args:
      name: what the user asked for.
      url: its address.
      file_name: what it is called in the cache.
      sha256: its hash, the first digits of it, or empty where none is known.

    Raises:
      DataError: it cannot be had; says where to put it by hand.
      MachineError: it cannot be stored.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # it would advise the user on hashes
    whole_hash = f"sha256:{sha256}" if len(sha256) == 64 else None
    cache = pooch.create(
        path=pooch.os_cache("bloodcell_jax") / "weights",
        base_url="",
        env=FOLDER_VARIABLE,
        registry={file_name: whole_hash},
        urls={file_name: url},
        retry_if_failed=RETRIES,
    )
    target = Path(cache.abspath) / file_name
    fetch = partial(_resume, partial_file=target.with_name(file_name + ".part"), sha256=sha256)
    try:
        return Path(cache.fetch(file_name, downloader=fetch))
    except (requests.RequestException, ValueError) as error:
        reason = "the network or the server cannot be reached" if _is_offline(error) else str(error).splitlines()[0]
        raise DataError(
            f"{name}: cannot be downloaded ({reason}); fetch {url} by other means and save it as {target}"
        ) from error
    except OSError as error:
        raise MachineError(f"{target}: cannot be written ({error.strerror}); set {FOLDER_VARIABLE}") from error


def _is_offline(error: Exception) -> bool:
    import requests

    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _resume(url: str, output_file: str, _pooch, *, partial_file: Path, sha256: str) -> None:
    """Download into `partial_file`, from where it ends, and move it to `output_file` once it is whole."""
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
    if not _sha256(partial_file).startswith(sha256):
        partial_file.unlink()
        raise ValueError(f"its sha256 does not begin with {sha256[:8]}")
    os.replace(partial_file, output_file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _progress(name: str, start: int, size: int) -> Iterator:
    """Show a bar on a terminal; elsewhere, that a download began."""
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
