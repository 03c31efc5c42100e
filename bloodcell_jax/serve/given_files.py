"""The images of a request: its files, and those inside its zips, which are unpacked one by one in memory."""

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import PurePosixPath

from bloodcell_jax.data.decoded_files import is_image
from bloodcell_jax.data.file_trees import FileTree, UnreadableFile, is_hidden, open_zip_content
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.input_files import InputFile
from bloodcell_jax.serve.limits import Limits, Refusal
from bloodcell_jax.serve.uploads import UploadedFile

# Every entry of an archive has one of these in its directory. A chance one comes once in 4 GiB.
_ENTRY = b"PK\x01\x02"
_FIRST_BYTES = (b"PK\x03\x04", b"PK\x05\x06")
# Entries of a zip beside its images, such as folders and what a Mac adds, of which each image has one.
_OTHER_ENTRIES = 4
# Files of a request lie nowhere: their names begin here.
_NOWHERE = PurePosixPath()


@dataclass
class GivenFiles:
    """The images of a request.

    Attributes:
      images: in the order of the request.
      ignored: how many visible files of its zips are no images by their suffix, by suffix.
    """

    images: list[InputFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def given_files(uploaded: Sequence[UploadedFile], archives: ExitStack, limits: Limits) -> GivenFiles:
    """Return the images of uploaded files; none of them is decoded yet.

    An image in a zip is named after both, as in `slide.zip/a/1.png`, which is how a manifest finds it.

    Args:
      uploaded: images and zips.
      archives: keeps the zips open.
      limits: of one request.

    Raises:
      Refusal: a zip cannot be read, or holds too much; or there is no image.
    """
    given, unpacked = GivenFiles(), 0
    for file in uploaded:
        if file.content.startswith(_FIRST_BYTES) and zipfile.is_zipfile(io.BytesIO(file.content)):
            unpacked += _add_zip(given, file, archives, limits)
            _check_unpacked(unpacked, limits)
        else:
            given.images.append(_input_file(file.name, partial(_content_of, file)))
    if len(given.images) > limits.images:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(given.images):,} images; a request may have at most {limits.images:,}: send them in parts, or start "
            "the server with a larger --max_images",
        )
    if not given.images:
        held = ", ".join(f"{suffix}: {n:,}" for suffix, n in given.ignored.most_common(5))
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the request holds no image{f'; its zips hold {held}' if held else ''}"
        )
    return given


def _add_zip(given: GivenFiles, file: UploadedFile, archives: ExitStack, limits: Limits) -> int:
    """Add the images of a zip, and return how many bytes they claim to unpack to."""
    if file.content.count(_ENTRY) > _OTHER_ENTRIES * limits.images:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{file.name}: has more than {_OTHER_ENTRIES * limits.images:,} entries; send it in parts",
        )
    try:
        tree = archives.enter_context(open_zip_content(file.content, file.name))
    except DataError as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    folder = PurePosixPath(file.name)
    images = [path for path in tree.files if is_image(path)]
    given.images += [_input_file(str(folder / path), partial(_read_inside, tree, path, folder)) for path in images]
    given.ignored.update(
        path.suffix.lower() or "none" for path in tree.files if not is_image(path) and not is_hidden(path)
    )
    refused = {name: reason for name, reason in tree.refused.items() if is_image(PurePosixPath(name))}
    given.images += [
        _input_file(f"{folder}/{name}", partial(_refuse, name, reason)) for name, reason in refused.items()
    ]
    return sum(tree.sizes[path] for path in images)


def _check_unpacked(size: int, limits: Limits) -> None:
    if size > limits.unpacked_bytes:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the zips claim to unpack to {size / 2**30:,.1f} GiB; at most {limits.unpacked_bytes / 2**30:,.1f} GiB "
            "are unpacked: send them in parts",
        )


def _input_file(name: str, read: Callable[[], bytes]) -> InputFile:
    path = PurePosixPath(name)
    return InputFile(name, str(path.parent), _NOWHERE, str(path), read)


def _content_of(file: UploadedFile) -> bytes:
    return file.content


def _read_inside(tree: FileTree, path: PurePosixPath, folder: PurePosixPath) -> bytes:
    try:
        return tree.read(path)
    except UnreadableFile as error:
        raise UnreadableFile(str(folder / path), error.reason) from error


def _refuse(name: str, reason: str) -> bytes:
    raise UnreadableFile(name, reason)
