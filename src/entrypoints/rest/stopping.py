"""Hearing that the process is to end when it is told so, not once its last connection has closed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGINT)
_BUSY_SECONDS = 0.05


@contextmanager
def told_to_stop(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` as soon as the process gets SIGTERM or SIGINT, and at the end; to be entered by a running loop.

    A server waits for its open connections before it ends the application's lifespan, and a stream of events would
    keep its own open for ever. Whoever handled the signals before still does, afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        stop.set()
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _ENDING}

    def hear(number: int, frame: FrameType | None) -> None:
        # not at once: what the signal interrupts may hold the event's lock
        loop.call_soon_threadsafe(stop.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)

    ours = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    for number in ours:
        signal.signal(number, hear)
    try:
        yield
    finally:
        stop.set()
        for number in ours:
            signal.signal(number, before[number])


def hear_stops_while_busy() -> None:
    """Have the process that starts BentoML's others end whenever it is told to; to be called before it starts them.

    circus, which starts them, drops a signal that comes while it starts or counts them, and goes on for ever:
    https://github.com/circus-tent/circus/issues/935
    """
    from circus.exc import ConflictError
    from circus.sighandler import SysHandler

    def stop_when_free(controller: Any) -> None:
        try:
            controller.arbiter.stop()
        except ConflictError:
            controller.loop.call_later(_BUSY_SECONDS, stop_when_free, controller)

    SysHandler.quit = lambda self: self.controller.loop.add_callback_from_signal(stop_when_free, self.controller)
