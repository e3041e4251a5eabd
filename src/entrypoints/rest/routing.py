"""Media types of requests and answers, and exceptions as problems."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableMapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from email.message import Message
from typing import Any, Literal, TypeVar, get_origin

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ...contract.reading import expected_and_got
from ...domain.errors import OutputError, UsageError, VoxportError
from .metrics import Metrics
from .problems import Problem, ProblemError, in_protocol, problem_of, problem_response
from .uploads import check_form, receive_form

MULTIPART, JSON = "multipart/form-data", "application/json"
_MOST_COMPLAINTS = 5
_QUALITY = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
_UTF_8 = {"utf-8", "utf8", "us-ascii"}
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
T = TypeVar("T")


def body(
    *media_types: str, slot: bool = False, files: Literal["run", "job"] | None = None
) -> Callable[[Endpoint], Endpoint]:
    """State an endpoint's media types, whether it needs a slot, and the use of its files; see `BodyRoute`."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__body__ = (media_types, slot, files)  # type: ignore[attr-defined]
        return endpoint

    return mark


class BodyRoute(APIRoute):
    """A route that checks the media type and free slots before it reads the body, and then a form's fields."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()
        taken, needs_slot, files = getattr(self.endpoint, "__body__", ((), False, None))
        fields = list(_fields(self.dependant, "body_params"))
        repeated = [field.alias for field in fields if get_origin(field.field_info.annotation) is list]
        single = [field.alias for field in fields if field.alias not in repeated]

        async def checked(request: Request) -> Response:
            header = request.headers.get("content-type", "")
            given = header.split(";")[0].strip().lower()
            if taken and given not in taken:
                detail = f"expected a body of {' or '.join(taken)}, got {given[:80] or 'none'}; set Content-Type"
                raise HTTPException(415, detail)
            # fields would be decoded by any codec of Python that the request names
            if others := _charsets(header) - _UTF_8:
                raise HTTPException(415, f"expected a body in UTF-8, got {others.pop()[:80]}; leave charset out")
            if needs_slot:
                request.app.state.context.slots.check_available()
            if files is not None:
                stack: AsyncExitStack = request.scope["fastapi_middleware_astack"]  # closed after the answer
                folder = await stack.enter_async_context(request.app.state.context.request_folder(files))
                request.state.folder, request.state.private_paths = folder, (f"{folder}/",)
                await receive_form(request, folder)
                check_form(await request.form(), single=single, repeated=repeated)
            return await handle(request)

        return checked


def _charsets(content_type: str) -> set[str]:
    message = Message()
    message["content-type"] = content_type
    return {str(value).lower() for name, value in message.get_params() or () if name.lower() == "charset"}


def add_problem_handlers(app: FastAPI, metrics: Metrics, private_paths: Iterable[str]) -> None:
    """Answer every exception with a problem that contains no path of the server."""
    hidden = tuple(private_paths)

    def answer(request: Request, problem: Problem) -> Response:
        metrics.refused(problem.kind)
        own = getattr(request.state, "private_paths", ())
        problem = in_protocol(without_paths(problem, (*own, *hidden)), request.url.path)
        return problem_response(problem, request_id(request))

    async def known(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and isinstance(error.__cause__, OSError):
            # FastAPI blames the caller for every error while it reads a form
            error = OutputError.cannot_write("upload", error.__cause__)
        return answer(request, problem_of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        complaints = error.errors() if isinstance(error, RequestValidationError) else ()
        # an optional field gives two errors: a wrong type, and not None
        optional = {complaint["loc"][:-1] for complaint in complaints if complaint["type"] == "none_required"}
        parts = [
            (_field(loc[:-1] if loc[:-1] in optional else loc), *expected_and_got(complaint))
            for complaint in complaints
            if (loc := complaint["loc"]) and complaint["type"] != "none_required"
        ][:_MOST_COMPLAINTS]
        if len(parts) == 1:
            subject, expected, got = parts[0]
        else:
            subject = "request"
            expected = "; ".join(f"{field}: {words}" for field, words, _ in parts)
            got = "; ".join(f"{field}: {words}" for field, _, words in parts)
        return answer(request, Problem.about("usage", subject, expected=expected, got=got, do="correct the request"))

    app.add_exception_handler(VoxportError, known)
    app.add_exception_handler(ProblemError, known)
    app.add_exception_handler(HTTPException, known)
    app.add_exception_handler(RequestValidationError, invalid)


def checked(parse: Callable[[Any], T], data: object) -> T:
    """Parse data of a request with pydantic. Raises RequestValidationError, which names every wrong field."""
    try:
        return parse(data)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def request_id(request: Request) -> str:
    """The id that the shield gave this request."""
    return str(getattr(request.state, "request_id", "00000000-0000-0000-0000-000000000000"))


def without_paths(problem: Problem, paths: Sequence[str]) -> Problem:
    """The problem without these folders in its texts."""
    extra = {name: cut(value, paths) if isinstance(value, str) else value for name, value in problem.extra.items()}
    return replace(problem, detail=cut(problem.detail, paths), extra=extra)


def cut(text: str, paths: Iterable[str]) -> str:
    """The text without these folders."""
    for path in paths:
        text = text.replace(path, "")
    return text


def _field(location: Iterable[Any]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"


async def check_query(request: Request) -> None:
    """Refuse unknown query parameters. Raises UsageError."""
    if not request.query_params:
        return
    route = request.scope.get("route")
    known = [field.alias for field in _fields(route.dependant, "query_params")] if isinstance(route, APIRoute) else []
    for name in request.query_params:
        if name not in known:
            expected = f"one of the query's names {', '.join(known)}" if known else "no query"
            raise UsageError(name[:80] or "query", expected=expected, got="another name", do="leave it out")


def _fields(dependant: Dependant, kind: Literal["query_params", "body_params"]) -> Iterator[Any]:
    yield from getattr(dependant, kind)
    for inner in dependant.dependencies:
        yield from _fields(inner, kind)


def accepted(request: Request, *offers: str) -> str:
    """The media type among ``offers`` that the Accept header prefers; the first of equals.

    Raises:
        HTTPException: 406 where it takes none of them.
    """
    header = ",".join(request.headers.getlist("accept")) or "*/*"
    weights = {offer: _weight(header, offer) for offer in offers}
    best = max(offers, key=weights.__getitem__)
    if weights[best] <= 0:
        raise HTTPException(406, f"expected Accept to take one of {', '.join(offers)}, got {header[:200]}; widen it")
    return best


def _weight(header: str, offer: str) -> float:
    """The q of the most specific range that matches (RFC 9110, 12.5.1); 0 where none does, or its q is no number."""
    ranges = ["*/*", f"{offer.split('/')[0]}/*", offer]
    best = (-1, 0.0)
    for part in header.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media in ranges:
            quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            weight = min(float(quality), 1.0) if _QUALITY.fullmatch(quality) else 0.0
            best = max(best, (ranges.index(media), weight))
    return best[1]


class HeadAsGet:
    """ASGI middleware that answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        started = asyncio.Event()

        async def without_body(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                started.set()

        async def until_started() -> MutableMapping[str, Any]:
            if not started.is_set():
                return await receive()
            return {"type": "http.disconnect"}  # ends a stream of events

        await self._app({**scope, "method": "GET"}, until_started, without_body)
