"""Slots: how many cases run at once, and how many may wait for one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...domain.errors import BusyError

_GLANCE_SECONDS = 0.2
_SLOWEST_RETRY_SECONDS = 60.0


class Slots:
    """Slots with a bounded queue; first come, first served. Safe for several threads."""

    def __init__(self, count: int, queue: int) -> None:
        self.count, self._queue = count, queue
        self._change = threading.Condition()
        self._waiting: deque[object] = deque()
        self._held = 0
        self._typical_seconds = 1.0

    @property
    def held(self) -> int:
        """Slots in use."""
        return self._held

    @property
    def waiting(self) -> int:
        """Callers that wait for a slot."""
        return len(self._waiting)

    def check_available(self) -> None:
        """Raise BusyError if ``hold`` would."""
        with self._change:
            if self._held < self.count or len(self._waiting) < self._queue:
                return
            ahead = 1 + len(self._waiting) / self.count
            wait = min(max(1.0, ahead * self._typical_seconds), _SLOWEST_RETRY_SECONDS)
            got = f"{self._held} being scored and {len(self._waiting)} waiting"
            raise BusyError("server", expected="room in the queue", got=got, retry_after_seconds=wait)

    @contextmanager
    def hold(self, check: Callable[[], None] = lambda: None, *, patient: bool = False) -> Iterator[float]:
        """Wait for a slot and hold it; gives the seconds waited.

        ``check`` is called every 0.2 s while waiting, and ends the wait by raising. ``patient`` callers, who take no
        memory while they wait, may exceed the limit of the queue.

        Raises:
            BusyError: the queue is full.
        """
        ticket, began = object(), time.monotonic()
        with self._change:
            if not patient:
                self.check_available()
            self._waiting.append(ticket)
            try:
                while self._held >= self.count or self._waiting[0] is not ticket:
                    self._change.wait(_GLANCE_SECONDS)
                    check()
                self._held += 1
            finally:
                self._waiting.remove(ticket)
                self._change.notify_all()
        entered = time.monotonic()
        try:
            yield entered - began
        finally:
            with self._change:
                self._held -= 1
                self._typical_seconds = 0.8 * self._typical_seconds + 0.2 * (time.monotonic() - entered)
                self._change.notify_all()
