"""The requests that a server answers, and how."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bloodcell_jax.data.file_trees import UnreadableFile
from bloodcell_jax.errors import DataError, UsageError, UserError, is_out_of_memory
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.explain.occlusion import PATCHES
from bloodcell_jax.evaluate.input_files import InputFile
from bloodcell_jax.serve.access import Access
from bloodcell_jax.serve.documents import (
    explanation_document,
    image_document,
    model_document,
    neighbors_document,
    unreadable_document,
)
from bloodcell_jax.serve.given_files import GivenFiles, given_files
from bloodcell_jax.serve.limits import Admission, Limits, Refusal
from bloodcell_jax.serve.openapi import openapi_document
from bloodcell_jax.serve.pages import api_page, static_files
from bloodcell_jax.serve.query import Query, query_of
from bloodcell_jax.serve.served_model import ServedModel
from bloodcell_jax.serve.uploads import announced_size, read_files

_LINES = "application/x-ndjson"

Result = TypeVar("Result")


class Api:
    """A model's requests.

    Attributes:
      is_ready: the model is compiled; until then, nothing is asked of it.
      answered: images that have got an answer.
    """

    def __init__(self, served: ServedModel, limits: Limits):
        self._served, self._limits, self._admission = served, limits, Admission(limits)
        self._names = served.classifier.class_names
        self.is_ready, self.answered = False, 0

    def app(self, host: str) -> ASGIApp:
        """Return what answers all requests of a server that is bound to `host`."""
        model = model_document(self._served.classifier, self._limits)
        document = openapi_document(model)
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/model", _fixed(JSONResponse(model)), methods=["GET"]),
            Route("/openapi.json", _fixed(JSONResponse(document)), methods=["GET"]),
            Route("/api", _fixed(Response(api_page(document), media_type="text/html")), methods=["GET"]),
            Route("/predict", _Handler(self._predict), methods=["POST"]),
            Route("/explain", _Handler(self._explain), methods=["POST"]),
            Route("/neighbors", _Handler(self._neighbors), methods=["POST"]),
        ]
        routes += [
            Route(path, _fixed(Response(content, media_type=kind)), methods=["GET"])
            for path, (content, kind) in static_files().items()
        ]
        handlers = {Refusal: _refused, HTTPException: _not_found, UserError: _failed, Exception: _failed}
        return Access(Starlette(routes=routes, exception_handlers=handlers), host)

    async def _health(self, request: Request) -> Response:
        state = {"status": "ready" if self.is_ready else "starting", "waiting": self._admission.waiting}
        return JSONResponse(state, 200 if self.is_ready else 503)

    async def _predict(self, request: Request, send: Send) -> None:
        query = query_of(request, flags=("cropped", "details"))
        with contextlib.ExitStack() as held:
            given = await self._given(request, held)
            answered = held.enter_context(self._admission.images(len(given.images)))
            results = self._results(given, query, answered)
            if _LINES in request.headers.get("accept", ""):
                response = StreamingResponse(_lines(results, len(given.images)), media_type=_LINES)
            else:
                response = _predicted(await _while_connected(request, _gathered(results)))
            await response(request.scope, request.receive, send)

    async def _given(self, request: Request, held: contextlib.ExitStack) -> GivenFiles:
        """Return the images of a request, whose bytes and archives are `held`."""
        self._check_ready()
        held.enter_context(self._admission.upload(announced_size(request)))
        uploaded = await read_files(request, self._limits)
        return await asyncio.to_thread(given_files, uploaded, held, self._limits)

    async def _results(
        self, given: GivenFiles, query: Query, answered: Callable[[], None]
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield ("image" or "unreadable", what is said of it) for each image, and ("done", ...) at the end."""
        sizes, details = [], query.flag("details")
        answers = self._served.answers(given.images, cropped=query.flag("cropped"), show=details)
        async with contextlib.aclosing(answers):
            async for one in answers:
                answered()
                if one.classified is None:
                    yield "unreadable", unreadable_document(one)
                    continue
                self.answered += 1
                image = one.classified.image
                sizes.append((image.width, image.height, image.side))
                yield "image", image_document(one, self._names, details=details)
        warnings = [] if query.flag("cropped") else _warnings(self._served.classifier, sizes)
        yield "done", {"ignored": dict(given.ignored), "warnings": warnings}

    async def _explain(self, request: Request, send: Send) -> None:
        query = query_of(request, flags=("cropped",), texts=("class",))
        work = lambda file: self._served.explain(file, query.text("class"), cropped=query.flag("cropped"))  # noqa: E731
        explained = await self._ask_of_one(request, work)
        await JSONResponse(explanation_document(explained, self._names))(request.scope, request.receive, send)

    async def _neighbors(self, request: Request, send: Send) -> None:
        query, without, found = query_of(request, flags=("cropped",)), None, []
        try:
            found = await self._ask_of_one(
                request, lambda file: self._served.neighbors(file, cropped=query.flag("cropped"))
            )
        except UnreadableFile:
            raise
        except UserError as error:
            without = str(error)
        await JSONResponse(neighbors_document(found, without))(request.scope, request.receive, send)

    async def _ask_of_one(self, request: Request, ask: Callable[[InputFile], Awaitable[Result]]) -> Result:
        """Return what is asked of the one image of a request; it waits like the images of all its passes."""
        with contextlib.ExitStack() as held:
            given = await self._given(request, held)
            if len(given.images) != 1:
                raise Refusal(HTTPStatus.BAD_REQUEST, f"{len(given.images):,} images; send one")
            held.enter_context(self._admission.images(min(1 + PATCHES, self._limits.waiting)))
            try:
                return await _while_connected(request, ask(given.images[0]))
            except UsageError as error:
                raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _check_ready(self) -> None:
        if not self.is_ready:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being compiled; ask again in a moment")


class _Handler:
    """An ASGI app of one handler, which sends its response itself: what it holds is let go when that has been sent."""

    def __init__(self, handle: Callable[[Request, Send], Awaitable[None]]):
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):  # Nobody is there to be answered.
            await self._handle(Request(scope, receive), send)


def _fixed(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        return response

    return respond


async def _while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return what `work` returns; if the client goes away, it is cancelled.

    Raises:
      ClientDisconnect: the client has gone.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _gathered(results: AsyncIterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    images, unreadable, done = [], [], {}
    async for kind, document in results:
        if kind == "done":
            done = document
        else:
            (images if kind == "image" else unreadable).append(document)
    return {"images": images, "unreadable": unreadable} | done


def _predicted(document: dict[str, Any]) -> Response:
    """Return the response of `predict`; where no image could be read it is an error, as it is on the command line."""
    if document["images"]:
        return JSONResponse(document)
    first = document["unreadable"][0]
    count = len(document["unreadable"])
    error = f"{first['file']}: {first['reason']}" if count == 1 else f"none of {count:,} images can be read"
    return JSONResponse({"error": error} | document, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _lines(results: AsyncIterator[tuple[str, dict[str, Any]]], total: int) -> AsyncIterator[str]:
    """Yield JSON lines; the last one is "done", or else "error"."""
    yield _line("total", total)
    try:
        async for kind, document in results:
            yield _line(kind, document)
    except Exception as error:
        yield _line("error", _message_of(error)[1])
        raise


def _line(kind: str, value: Any) -> str:
    return json.dumps({kind: value}, allow_nan=False) + "\n"


def _warnings(classifier: Classifier, sizes: Sequence[tuple[int, int, int]]) -> list[str]:
    """Return what is to be said of all images together, whose (width, height, side) these are."""
    if not sizes:
        return []
    table = np.array(sizes)
    reason = classifier.misfit(table[:, :2], table[:, 2])
    return [] if reason is None else [reason]


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return JSONResponse({"error": str(refusal)}, refusal.status, headers=refusal.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = PurePosixPath(request.url.path)
    said = {404: f"{path}: there is no such page; see /api", 405: f"{path}: not by {request.method}; see /api"}
    return JSONResponse({"error": said.get(error.status_code, error.detail)}, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    status, message = _message_of(error)
    return JSONResponse({"error": message}, status)


def _message_of(error: Exception) -> tuple[HTTPStatus, str]:
    """Return the status and the line for an error that is not the client's doing, or is an image's."""
    if isinstance(error, DataError):
        return HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
    if is_out_of_memory(error):
        return HTTPStatus.INTERNAL_SERVER_ERROR, "the memory of the server is full; send fewer or smaller images"
    return HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the server; its terminal says more"
