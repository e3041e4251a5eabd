"""Close silent connections, and answer the requests that are open when the process stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .problems import Problem

_log = logging.getLogger("voxport.rest")
Refuse = Callable[[Problem], Awaitable[None]]


class Draining:
    """The open requests of a process. After a stop they have ``grace_seconds`` to end."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._open: dict[asyncio.Task[Any], Refuse] = {}
        self._cut: set[asyncio.Task[Any]] = set()
        self._refusing: set[asyncio.Task[None]] = set()
        self._begun = False

    @contextmanager
    def request(self, refuse: Refuse) -> Iterator[None]:
        """Count the request of the current task; ``refuse`` answers it if it is cancelled after the grace period."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = refuse
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cut:
                raise
            task.uncancel()
        finally:
            self._cut.discard(task)
            del self._open[task]
            if self._begun and not self._open:
                _log.info("drained: no request is open")

    def begin(self) -> None:
        """Log the number of open requests, and refuse those still open after the grace period; needs a running loop."""
        if self._begun:
            return
        self._begun = True
        count = len(self._open)
        if count:
            _log.info("draining: %d open request(s), for at most %g s", count, self._grace_seconds)
            asyncio.get_running_loop().call_later(self._grace_seconds, self._end)
        else:
            _log.info("stopping: no request is open")

    def _end(self) -> None:
        if self._open:
            _log.warning("%d request(s) did not end within %g s; answered 503", len(self._open), self._grace_seconds)
        for task, refuse in list(self._open.items()):
            answering = asyncio.ensure_future(self._answer(task, refuse))
            self._refusing.add(answering)
            answering.add_done_callback(self._refusing.discard)

    async def _answer(self, task: asyncio.Task[Any], refuse: Refuse) -> None:
        do, headers = "send the request again", {"Retry-After": "5", "Connection": "close"}
        expected, got = f"an end within {self._grace_seconds:g} s of the stop", "a longer run"
        await refuse(Problem.about("cancelled", "run", expected=expected, got=got, do=do, headers=headers))
        if task in self._open:
            self._cut.add(task)
            task.cancel()


def timed_protocol(header_seconds: float) -> Any:
    """Uvicorn's HTTP/1.1 protocol, closing a connection whose request's headers take longer than this."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._has_request():
                self._stop_timer()
            elif self._timer is None:
                self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _await_headers(self) -> None:
            self._timer = self.loop.call_later(header_seconds, self._give_up)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _has_request(self) -> bool:
            cycle: Any = self.cycle  # None before the first request
            return cycle is not None and not cycle.response_complete

        def _give_up(self) -> None:
            self._timer = None
            if not self._has_request():
                self.transport.close()

    return TimedProtocol
