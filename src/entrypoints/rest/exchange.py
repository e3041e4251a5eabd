"""One request and its answer, counted while they stream."""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Send

from ...domain.errors import LimitError, TimeLimitError, VoxportError
from .problems import Problem, problem_response

# An upload that is refused early is read on for this long: closing at once resets the connection, and a client that
# reads the answer only after sending everything never sees it.
LINGER_SECONDS = 2.0


def body_too_large(limit: int) -> LimitError:
    """The error for a body that exceeds the service's limit in bytes."""
    do = "send less, or raise VOXPORT_SERVING__MAX_BODY_BYTES"
    return LimitError("request body", expected=f"at most {limit} bytes", got="more", do=do)


class Exchange:
    """The ASGI ``receive`` and ``send`` of one request, with limits and counts.

    Attributes:
        request_id: a fresh UUID; nothing that the caller sends changes it.
        status: of the answer; None until it starts.
        bytes_in: of the request's body, as far as the application read it.
        bytes_out: of the answer's body.
        failure: why the body is not read on: too large, or silent for too long.
        gone: the caller hung up before the answer was complete.
    """

    def __init__(
        self, receive: Receive, send: Send, max_body_bytes: int, silence_seconds: float, *, has_body: bool
    ) -> None:
        self._receive = receive
        self._send = send
        self._limit, self._silence_seconds = max_body_bytes, silence_seconds
        self._body_to_come = has_body
        self._began = perf_counter()
        self._last_byte: float | None = None
        self.request_id = str(uuid4())
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.failure: VoxportError | None = None
        self.gone = False
        self._is_refused = False

    @property
    def seconds(self) -> float:
        """From the request's headers to the answer's last byte, or until now."""
        return (self._last_byte or perf_counter()) - self._began

    async def receive(self) -> Message:
        """The next message for the application.

        Raises:
            LimitError: the body passed the limit.
            TimeLimitError: nothing came of it for too long.
        """
        try:
            async with asyncio.timeout(self._silence_seconds if self._body_to_come else None):
                message = await self._receive()
        except TimeoutError:
            more, do = f"more of it within {self._silence_seconds:g} s", "send the request again without a pause"
            self.failure = TimeLimitError("request body", expected=more, got="nothing", do=do)
            raise self.failure from None
        self._body_to_come = message.get("more_body", False)
        self.gone = message["type"] == "http.disconnect"
        self.bytes_in += len(message.get("body", b""))
        if self.bytes_in > self._limit:
            self.failure = body_too_large(self._limit)
            raise self.failure
        return message

    async def send(self, message: Message) -> None:
        """Pass on the application's answer, unless the caller has disconnected or was answered with a problem."""
        if not (self.gone or self.failure or self._is_refused):
            await self._answer(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has started or the caller has disconnected."""
        if self.status is not None or self.gone:
            return
        self._is_refused = True
        response = problem_response(problem, self.request_id)
        await self._answer(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._answer({"type": "http.response.body", "body": response.body})

    async def finish(self) -> None:
        """End an exchange without an answer, whose caller disconnected.

        BentoML's time limit, which wraps all of this, waits for an answer to start, and keeps the server from ending.
        """
        if self.status is None:
            await self._send({"type": "http.response.start", "status": 499, "headers": []})

    async def _answer(self, message: Message) -> None:
        """Pass on an answer, then discard the rest of the body for at most `LINGER_SECONDS`."""
        if not self._body_to_come or message.get("more_body", False):
            await self._pass_on(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._pass_on(message)
        else:
            # complete for the caller, by its Content-Length, but the server keeps the connection open
            await self._pass_on({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drain(), LINGER_SECONDS)
            await self._pass_on({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        while (await self._receive()).get("more_body", False):
            pass

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["Voxport-Request"] = self.request_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            # proxies must not store masks and volumes
            headers.setdefault("Cache-Control", "no-store")
        elif body := message.get("body"):
            self.bytes_out += len(body)
            self._last_byte = perf_counter()
        await self._send(message)
