"""Waiting for a job: its event stream is followed, and where there is none it is asked for now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ..domain.errors import BusyError, TimeLimitError
from .answers import json_object
from .errors import UnreachableError
from .events import EVENT_STREAM, events
from .job import RemoteJob, job_path, remote_job

if TYPE_CHECKING:
    from .connection import Connection

# Hears of a job each time that something about it is new.
HearJob = Callable[[RemoteJob], None]

# A stream says that it is alive every 15 s: after three times that it is not.
_SILENCE_SECONDS = 45.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 10.0
# of the time waited so far: who waits for long need not know to the second
_PAUSE_SHARE = 0.1
# streams in a row that told nothing, as behind a proxy that keeps all of an answer back until it ends
_FRUITLESS_STREAMS = 3


@dataclass(frozen=True)
class Clock:
    """Seconds since any moment, and how to let some pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Follower:
    """One wait for a job.

    Args:
        connection: to the server.
        id: the job's.
        volumes: as they are called here, if they are known.
        timeout_seconds: how long to wait; None for as long as it takes.
        patience_seconds: how long the server may be away or busy at a time.
        clock: what time it is.
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

    def follow(self, hear: HearJob) -> RemoteJob:
        """The job once it ended.

        Raises:
            TimeLimitError: it did not in time.
            UnreachableError, BusyError: the server stayed away, or busy, for longer than the patience lasts.
            VoxportError: the server's refusal, such as for a job that is not there any more.
        """
        last = None
        with closing(self._states()) as states:
            while True:
                job = next(states)
                if job != last:
                    hear(job)
                if job.has_ended:
                    return job
                last = job

    def _states(self) -> Generator[RemoteJob, None, None]:
        """The job whenever something is heard of it, for ever."""
        fruitless = 0
        while True:
            yield self._asked()
            # the last seconds are not left to a stream: it may be silent beyond them
            if fruitless < _FRUITLESS_STREAMS and self._left() > _SILENCE_SECONDS:
                fruitless += 1
                with closing(self._streamed()) as jobs:
                    for job in jobs:
                        fruitless = 0
                        yield job
            waited = self._clock.now() - self._began
            self._pause(min(max(waited * _PAUSE_SHARE, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))

    def _streamed(self) -> Generator[RemoteJob, None, None]:
        """What the event stream tells, until it ends, breaks or is silent."""
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
        """The job, asked for until the server answers or patience is over."""
        away_since, pause = None, _SHORTEST_PAUSE_SECONDS / 2
        while True:
            # a moment is left for the last look
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
