"""Wait for a job: follow its event stream, or poll where there is none."""

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
from .answers import RemoteJob, json_object, remote_job
from .errors import RemoteError, UnreachableError

if TYPE_CHECKING:
    from .connection import Connection

EVENT_STREAM = "text/event-stream"
_LARGEST_BYTES = 2**20
_LINE_ENDS = rb"\r\n|\r(?!\n)|\n"
_EVENT_END = re.compile(rb"(?:%b){2}" % _LINE_ENDS)


def events(chunks: Iterable[bytes], url: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and data of each complete event of a stream (https://html.spec.whatwg.org, section 9.2).

    Raises:
        RemoteError: an event is larger than a mebibyte.
    """
    rest = b""
    for chunk in chunks:
        # an end takes four bytes at most; what came before its last three has been searched
        searched, unsearched = rest[:-3], rest[-3:]
        *whole, rest = _EVENT_END.split(unsearched + chunk)
        if whole:
            whole[0] = searched + whole[0]
        else:
            rest = searched + rest
        if max(map(len, [*whole, rest])) > _LARGEST_BYTES:
            got = f"more than {_LARGEST_BYTES} bytes"
            raise RemoteError.wrong_answer(url, expected="events of a bearable size", got=got)
        for event in whole:
            name, data = b"message", []
            for field, _, value in (line.partition(b":") for line in event.splitlines()):
                if field == b"event":
                    name = value.removeprefix(b" ")
                elif field == b"data":
                    data.append(value.removeprefix(b" "))
            if data:
                yield name.decode(errors="replace"), b"\n".join(data)


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
    """One wait for a job at a path of a server; see `Jobs.wait` for the limits."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        id: str,
        volumes: tuple[Path, ...] = (),
        *,
        timeout_seconds: float | None,
        patience_seconds: float,
        clock: Clock,
    ) -> None:
        self._connection, self._path, self._id, self._volumes = connection, path, id, volumes
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
