"""A process that is told to stop knows it at once, and still does what it would have done."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from voxport.entrypoints.rest.stopping import stop_on_signals

from .serving import PATIENCE, start_server

SCRIPT = """
import asyncio, signal, sys, threading
from voxport.entrypoints.rest.stopping import stop_on_signals

stop = threading.Event()
handlers = {"own": lambda *_: print("handled", flush=True), "none": signal.SIG_DFL, "deaf": signal.SIG_IGN}
signal.signal(signal.SIGTERM, handlers[sys.argv[1]])

async def serve():
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        print("told" if stop.is_set() else "not told", flush=True)
    print(signal.getsignal(signal.SIGTERM) is handlers[sys.argv[1]], stop.is_set())

asyncio.run(serve())
"""

STARTING = """
import os, signal, sys
from bentoml._internal.utils.circus import create_standalone_arbiter
from circus.watcher import Watcher
from voxport.entrypoints.rest.stopping import stop_while_starting

stop_while_starting()

class Stopped(Watcher):
    def spawn_process(self, **options):  # told to stop in the midst of starting
        started = super().spawn_process(**options)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        return started

# two: between them it waits for the first to settle, as it does after the last
programs = [Stopped(name, sys.executable, ["-c", "import signal; signal.pause()"]) for name in "ab"]
create_standalone_arbiter(programs, warmup_delay=0.2).start()
print("ended")
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
        [sys.executable, "-c", SCRIPT, before],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (code, said), done.stderr


def test_beside_the_main_thread_it_is_told_at_the_end() -> None:
    stop = threading.Event()
    seen: list[bool] = []

    async def serve() -> None:
        with stop_on_signals(stop):
            seen.append(stop.is_set())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    thread.join()
    assert (seen, stop.is_set()) == ([False], True)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_server_that_starts_its_processes_hears_that_it_is_to_stop(number: str) -> None:
    command = [sys.executable, "-c", STARTING, number]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_a_server_keeps_ignoring_a_signal_that_was_ignored_before() -> None:
    code = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from circus.sighandler import SysHandler
from voxport.entrypoints.rest.stopping import stop_while_starting
stop_while_starting()
print(signal.SIGHUP in SysHandler.SIGNALS, signal.SIGTERM in SysHandler.SIGNALS)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_service_stopped_as_its_first_process_appears_ends(tmp_path: Path) -> None:
    server = start_server(tmp_path, "--no-worker")
    children = psutil.Process(server.process.pid).children
    deadline = time.monotonic() + PATIENCE
    while not children():  # without a pause: the signal was lost in the first thousandths of a second
        assert time.monotonic() < deadline
    assert server.stop() == 0, server.log.read_text(encoding="utf-8")
