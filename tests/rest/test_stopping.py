"""A process that is told to stop knows it at once, and still does what it would have done."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from voxport.entrypoints.rest.stopping import told_to_stop

SCRIPT = """
import asyncio, signal, sys, threading
from voxport.entrypoints.rest.stopping import told_to_stop

stop = threading.Event()
handlers = {"own": lambda *_: print("handled", flush=True), "none": signal.SIG_DFL, "deaf": signal.SIG_IGN}
signal.signal(signal.SIGTERM, handlers[sys.argv[1]])

async def serve():
    with told_to_stop(stop):
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        print("told" if stop.is_set() else "not told", flush=True)
    print(signal.getsignal(signal.SIGTERM) is handlers[sys.argv[1]], stop.is_set())

asyncio.run(serve())
"""


@pytest.mark.parametrize(
    ("before", "code", "said"),
    [
        ("own", 0, ["handled", "told", "True True"]),
        ("none", -signal.SIGTERM, []),
        ("deaf", 0, ["not told", "True True"]),
    ],
)
def test_whoever_handled_the_signal_before_still_does(before: str, code: int, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, before], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.splitlines()) == (code, said), done.stderr


def test_beside_the_main_thread_it_is_told_at_the_end() -> None:
    stop = threading.Event()
    seen: list[bool] = []

    async def serve() -> None:
        with told_to_stop(stop):
            seen.append(stop.is_set())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    thread.join()
    assert (seen, stop.is_set()) == ([False], True)
