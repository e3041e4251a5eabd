"""Bodies that a route takes, and the problems that failures become."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from email.message import Message
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ...domain.errors import OutputError, VoxportError
from .metrics import Metrics
from .problems import Problem, ProblemError, in_protocol, problem_of, problem_response
from .uploads import receive_form

MULTIPART, JSON = "multipart/form-data", "application/json"
_MOST_COMPLAINTS = 5
_SAID_BY_FRAMEWORK = (404, 405)
_UTF_8 = {"utf-8", "utf8", "us-ascii"}
_SEE = "see /openapi.json"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def body(
    *media_types: str, slot: bool = False, files: Literal["run", "job"] | None = None
) -> Callable[[Endpoint], Endpoint]:
    """Mark a route's endpoint with its body's media types, its need of a slot, and what its files are for."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__body__ = (media_types, slot, files)  # type: ignore[attr-defined]
        return endpoint

    return mark


class BodyRoute(APIRoute):
    """A route that refuses a body of another media type, or a request that finds no slot, before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()
        taken, needs_slot, files = getattr(self.endpoint, "__body__", ((), False, None))

        async def checked(request: Request) -> Response:
            header = request.headers.get("content-type", "")
            given = header.split(";")[0].strip().lower()
            if taken and given not in taken:
                detail = f"expected a body of {' or '.join(taken)}, got {given[:80] or 'none'}; set Content-Type"
                raise HTTPException(415, detail)
            # fields would be decoded by whatever codec of Python's is named
            if others := _charsets(header) - _UTF_8:
                raise HTTPException(415, f"expected a body in UTF-8, got {others.pop()[:80]}; leave charset out")
            if needs_slot:
                request.app.state.context.slots.check_available()
            if files is not None:
                stack: AsyncExitStack = request.scope["fastapi_middleware_astack"]  # closed after the answer
                folder = await stack.enter_async_context(request.app.state.context.request_folder(files))
                request.state.folder, request.state.private_paths = folder, (f"{folder}/",)
                await receive_form(request, folder)
            return await handle(request)

        return checked


def _charsets(content_type: str) -> set[str]:
    message = Message()
    message["content-type"] = content_type
    return {str(value).lower() for name, value in message.get_params() or () if name.lower() == "charset"}


def add_problem_handlers(app: FastAPI, metrics: Metrics, private_paths: Iterable[str]) -> None:
    """Answer every exception by a problem that names none of the server's paths."""
    hidden = tuple(private_paths)

    def answer(request: Request, problem: Problem) -> Response:
        metrics.refused(problem.kind)
        own = getattr(request.state, "private_paths", ())
        problem = in_protocol(without_paths(problem, (*own, *hidden)), request.url.path)
        return problem_response(problem, request_id(request))

    async def known(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and isinstance(error.__cause__, OSError):
            # FastAPI takes whatever stops it from reading a form for the caller's fault
            error = OutputError.cannot_write("upload", error.__cause__)
        problem = problem_of(error)
        if isinstance(error, HTTPException) and error.status_code in _SAID_BY_FRAMEWORK:
            detail = (
                f"request: expected a path and method of this service, got another ({error.detail.lower()}); {_SEE}"
            )
            problem = replace(problem, detail=detail)
        return answer(request, problem)

    async def invalid(request: Request, error: Exception) -> Response:
        complaints = error.errors() if isinstance(error, RequestValidationError) else ()
        listed = "; ".join(f"{_field(c['loc'])}: {c['msg']}" for c in complaints[:_MOST_COMPLAINTS])
        return answer(request, Problem("usage", f"request: {listed}"))

    app.add_exception_handler(VoxportError, known)
    app.add_exception_handler(ProblemError, known)
    app.add_exception_handler(HTTPException, known)
    app.add_exception_handler(RequestValidationError, invalid)


def request_id(request: Request) -> str:
    """The id that the shield gave this request."""
    return str(getattr(request.state, "request_id", "00000000-0000-0000-0000-000000000000"))


def without_paths(problem: Problem, paths: Sequence[str]) -> Problem:
    """The same problem with these folders cut off the files that it names."""
    extra = {name: cut(value, paths) if isinstance(value, str) else value for name, value in problem.extra.items()}
    return replace(problem, detail=cut(problem.detail, paths), extra=extra)


def cut(text: str, paths: Iterable[str]) -> str:
    """The text with these folders cut off the files that it names."""
    for path in paths:
        text = text.replace(path, "")
    return text


def _field(location: Iterable[Any]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"
