"""Handle SIGTERM and SIGINT at once, before the last connection closes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGINT)
_BUSY_SECONDS = 0.05


@contextmanager
def stop_on_signals(stop: threading.Event, on_signal: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Set ``stop`` when the process gets SIGTERM or SIGINT, and at the end; enter it in a running event loop.

    ``on_signal`` is called in the loop at a signal.

    A server waits for its open connections before it ends the application's lifespan, and a stream of events keeps
    its connection open. Earlier handlers of the signals are called too, and restored afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        stop.set()
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _ENDING}

    def handle(number: int, frame: FrameType | None) -> None:
        # later: the interrupted code may hold the event's lock
        loop.call_soon_threadsafe(stop.set)
        loop.call_soon_threadsafe(on_signal)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)

    ours = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    for number in ours:
        signal.signal(number, handle)
    try:
        yield
    finally:
        stop.set()
        for number in ours:
            signal.signal(number, before[number])


def stop_while_starting() -> None:
    """Let the process that starts BentoML's workers end at a signal during the start.

    circus drops such a signal and goes on:
    https://github.com/circus-tent/circus/issues/935
    It also handles signals that its parent ignores (``nohup``); here they stay ignored.
    """
    from circus.exc import ConflictError
    from circus.sighandler import SysHandler

    def stop_when_free(controller: Any) -> None:
        try:
            controller.arbiter.stop()
        except ConflictError:
            controller.loop.call_later(_BUSY_SECONDS, stop_when_free, controller)

    SysHandler.SIGNALS = [n for n in SysHandler.SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    SysHandler.quit = lambda self: self.controller.loop.add_callback_from_signal(stop_when_free, self.controller)
