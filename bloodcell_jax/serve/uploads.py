"""The body of a request, read into memory: never a byte of it goes to the disk."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from bloodcell_jax.serve.limits import Limits, Refusal

_MULTIPART = b"multipart/form-data"
# A body of these types is one file. The content alone decides what it is: browsers guess types from names.
_FILE_TYPES = (b"application/octet-stream", b"application/zip", b"application/x-zip-compressed")
# The name of a file that was sent without one.
_UNNAMED = "image"
# How browsers write these characters in a name (the HTML standard, multipart form data).
_ESCAPES = {"%0A": "\n", "%0D": "\r", "%22": '"'}
_LONGEST_NAME = 1_000


class UploadedFile(NamedTuple):
    """A file that a client sent; its name is text, and never a path on this machine."""

    name: str
    content: bytes


def announced_size(request: Request) -> int:
    """Return how many bytes the body has.

    Raises:
      Refusal: the client does not say, or has sent nothing.
    """
    text = request.headers.get("content-length")
    if text is None or not text.isdecimal():
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length; send it with one")
    if int(text) == 0:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the request has no body; send an image, a zip or multipart/form-data")
    return int(text)


async def read_files(request: Request, limits: Limits) -> list[UploadedFile]:
    """Return the files of a request: each part of a form, or its body as one file.

    Raises:
      Refusal: the body is of another type, malformed, stalls, or is too slow; or two files have one name.
    """
    header = request.headers.get("content-type", "")
    try:
        kind, options = parse_options_header(header)
    except (ValueError, UnicodeError):
        kind, options = b"", {}
    body = _chunks(request, limits)
    if kind == _MULTIPART:
        files = await _read_form(body, options.get(b"boundary", b""), limits)
    elif kind in _FILE_TYPES or kind.startswith(b"image/"):
        content = bytearray()
        async for chunk in body:
            content += chunk
        files = [UploadedFile(_UNNAMED, bytes(content))]
    else:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {header or 'missing'}: send multipart/form-data with one part a file, or one file as "
            "image/..., application/zip or application/octet-stream",
        )
    _check_names(files)
    return files


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    clock, stall = asyncio.get_running_loop().time, limits.stall_seconds
    seconds = limits.upload_seconds(announced_size(request))
    end = clock() + seconds
    try:
        async with asyncio.timeout_at(min(clock() + stall, end)) as waiting:
            async for chunk in request.stream():
                waiting.reschedule(min(clock() + stall, end))
                yield chunk
    except TimeoutError as error:
        reason = f"nothing came for {stall:g} s; send it again"
        if clock() >= end:
            reason = f"the upload took longer than {seconds:.1f} s; send it in parts, or over a faster connection"
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, reason) from error


async def _read_form(body: AsyncIterator[bytes], boundary: bytes, limits: Limits) -> list[UploadedFile]:
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"malformed multipart/form-data: {error}") from error
    if not form.is_complete:
        raise Refusal(HTTPStatus.BAD_REQUEST, "malformed multipart/form-data: it ends in the middle of a part")
    if not form.files:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the form holds no file; send at least one")
    return form.files


class _Form:
    """Collects the parts of a form while they are parsed."""

    def __init__(self, limits: Limits):
        self.files: list[UploadedFile] = []
        self.is_complete = False
        self._limits = limits
        self._headers: dict[str, str] = {}
        self._field, self._value, self._content = bytearray(), bytearray(), bytearray()

    def callbacks(self) -> Any:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.extend(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        self._headers, self._content = {}, bytearray()
        if len(self.files) >= self._limits.images:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the form has more than {self._limits.images:,} files; send them in parts, or start the server with a "
                "larger --max_images",
            )

    def _end_header(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        if b"filename" not in options:
            field = options.get(b"name", b"").decode("utf-8", "replace")
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the field {field!r} of the form is no file; send files alone")
        self.files.append(UploadedFile(_file_name(options[b"filename"]), bytes(self._content)))
        self._content = bytearray()

    def _complete(self) -> None:
        self.is_complete = True


def _file_name(name: bytes) -> str:
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the file name {name!r} is not UTF-8; rename the file") from error
    for code, character in _ESCAPES.items():
        text = text.replace(code, character)
    return text.replace("\\", "/") or _UNNAMED


def _check_names(files: list[UploadedFile]) -> None:
    """Refuse names that no manifest could hold, and a name that two files have."""
    seen = set()
    for name, _ in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or len(name) > _LONGEST_NAME:
            shown = name if len(name) <= _LONGEST_NAME else f"{name[:50]}..."
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the file name {shown}: give a path below the folder that was sent")
        if name in seen:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                f"{name}: two files of the request have this name, so the answers could not be told apart; put the "
                "folder before the name",
            )
        seen.add(name)
