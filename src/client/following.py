"""Waiting for a job: the client follows its event stream, or asks now and then where there is none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ..domain.errors import BusyError, TimeLimitError
from .answers import json_object
from .errors import RemoteError, UnreachableError
from .job import RemoteJob, job_path, remote_job

if TYPE_CHECKING:
    from .connection import Connection

EVENT_STREAM = "text/event-stream"
_LARGEST_BYTES = 2**20
_LINE_END = re.compile(rb"\r\n|\r|\n")


def events(chunks: Iterable[bytes], url: str) -> Iterator[tuple[str, bytes]]:
    """The name and data of each event, as soon as it is there; one that the stream breaks off in is left out.

    Args:
        chunks: the stream, in whatever pieces it comes.
        url: where it comes from.

    Raises:
        RemoteError: a line or an event that is too large to be one.
    """
    name, data, size = "message", list[bytes](), 0
    for line in _lines(chunks, url):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                yield name, b"\n".join(data)
            name, data, size = "message", [], 0
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"data":
            data.append(value)
            size = _bearable(size + len(value) + 1, url)


def _lines(chunks: Iterable[bytes], url: str) -> Iterator[bytes]:
    """Lines without their ends, whichever of the three kinds these are; what follows the last end is left out."""
    line, after_return = bytearray(), False
    for chunk in filter(None, chunks):
        first, *others = _LINE_END.split(chunk.removeprefix(b"\n") if after_return else chunk)
        after_return = chunk.endswith(b"\r")
        line += first
        for other in others:
            _bearable(len(line), url)
            yield bytes(line)
            line = bytearray(other)
        _bearable(len(line), url)


def _bearable(size: int, url: str) -> int:
    if size > _LARGEST_BYTES:
        raise RemoteError.wrong_answer(
            url, expected="events of a bearable size", got=f"more than {_LARGEST_BYTES} bytes"
        )
    return size


# Receives a job at every change.
OnJob = Callable[[RemoteJob], None]

# Streams send a comment every 15 s; three missing ones mean a dead stream.
_SILENCE_SECONDS = 45.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 10.0
# Share of the time waited so far.
_PAUSE_SHARE = 0.1
# Consecutive empty streams, as behind a buffering proxy.
_FRUITLESS_STREAMS = 3


@dataclass(frozen=True)
class Clock:
    """Monotonic seconds, and a way to sleep."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Follower:
    """One wait for a job.

    Args:
        connection: the connection to the server.
        id: the job's id.
        volumes: local names of its volumes, if known.
        timeout_seconds: maximum wait; None for no limit.
        patience_seconds: maximum outage or load of the server at a time.
        clock: source of time.
    """

    def __init__(
        self,
        connection: Connection,
        id: str,
        volumes: tuple[Path, ...] = (),
        *,
        timeout_seconds: float | None,
        patience_seconds: float,
        clock: Clock,
    ) -> None:
        self._connection, self._id, self._volumes = connection, id, volumes
        self._path = job_path(id)
        self._patience_seconds = patience_seconds
        self._timeout_seconds = inf if timeout_seconds is None else timeout_seconds
        self._clock = clock
        self._began = clock.now()
        self._last: RemoteJob | None = None

    def follow(self, on_progress: OnJob) -> RemoteJob:
        """Return the job after it has ended.

        Raises:
            TimeLimitError: it did not end in time.
            UnreachableError, BusyError: the server was unavailable for longer than the patience.
            VoxportError: the server's refusal, for example of an unknown job.
        """
        last = None
        with closing(self._states()) as states:
            while True:
                job = next(states)
                if job != last:
                    on_progress(job)
                if job.has_ended:
                    return job
                last = job

    def _states(self) -> Generator[RemoteJob, None, None]:
        """Yield the job at every change."""
        fruitless = 0
        while True:
            yield self._asked()
            # Poll in the last seconds, because a stream may be silent.
            if fruitless < _FRUITLESS_STREAMS and self._left() > _SILENCE_SECONDS:
                fruitless += 1
                with closing(self._streamed()) as jobs:
                    for job in jobs:
                        fruitless = 0
                        yield job
            waited = self._clock.now() - self._began
            self._pause(min(max(waited * _PAUSE_SHARE, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))

    def _streamed(self) -> Generator[RemoteJob, None, None]:
        """Yield states from the event stream until it ends, breaks or is silent."""
        asked = self._connection.answer("GET", f"{self._path}/events", EVENT_STREAM, silence_seconds=_SILENCE_SECONDS)
        with suppress(UnreachableError, BusyError), asked as response:
            for name, data in events(self._in_time(response.iter_bytes()), self._connection.url):
                if name == "job":
                    yield self._checked(json_object(data, self._connection.url))

    def _in_time(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            if self._left() <= _SILENCE_SECONDS:
                return

    def _asked(self) -> RemoteJob:
        """Poll the job until the server answers or patience is over."""
        away_since, pause = None, _SHORTEST_PAUSE_SECONDS / 2
        while True:
            # leave time for the last poll
            most = min(_SILENCE_SECONDS, self._connection.timeout_seconds)
            silence = min(max(self._left(), _SHORTEST_PAUSE_SECONDS), most)
            try:
                return self._checked(self._connection.json("GET", self._path, silence_seconds=silence))
            except (UnreachableError, BusyError) as error:
                now = self._clock.now()
                away_since = now if away_since is None else away_since
                waits = error.retry_after_seconds if isinstance(error, BusyError) else 0.0
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if now + max(pause, waits) - away_since > self._patience_seconds:
                    raise
                self._pause(max(pause, waits))

    def _checked(self, data: object) -> RemoteJob:
        self._last = remote_job(data, self._connection.url, self._volumes, self._id)
        return self._last

    def _left(self) -> float:
        return self._timeout_seconds - (self._clock.now() - self._began)

    def _pause(self, seconds: float) -> None:
        left = self._left()
        if left <= 0:
            got = "a server that does not answer" if self._last is None else f"one that is {self._last.state}"
            expected = f"an end within {self._timeout_seconds:g} s"
            raise TimeLimitError(f"job {self._id}", expected=expected, got=got, do="wait for it again: it goes on")
        self._clock.sleep(min(seconds, left))
