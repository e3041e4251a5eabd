"""A really started server: a process of its own, on a free port, ended with all its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.cli.conftest import environment

PATIENCE = 120.0


@dataclass
class Server:
    """A server's process, where it listens, and what it wrote."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self.url.rpartition(":")[2])

    def client(self, **options: object) -> httpx.Client:
        """A plain HTTP client of it that asks no proxy."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)  # type: ignore[arg-type]

    def wait_until(self, condition: Callable[[httpx.Client], bool]) -> None:
        """Ask until a condition holds; AssertionError with the server's log where it never does."""
        deadline = time.monotonic() + PATIENCE
        with self.client() as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                # files and processes may end while the condition looks at them
                with suppress(httpx.TransportError, FileNotFoundError, psutil.NoSuchProcess):
                    if condition(client):
                        return
                time.sleep(0.05)
        raise AssertionError(f"never came about; the server wrote:\n{self.log.read_text(encoding='utf-8')[-4000:]}")

    def stop(self) -> int:
        """End it as an operator does, and wait; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, plain: bool = False) -> Server:
    """Start ``voxport serve``, or ``bentoml serve`` where ``plain``; it may not be ready yet."""
    port = free_port()
    command = [sys.executable, "-m", "voxport", "serve", "--port", str(port), *arguments]
    if plain:
        service = "voxport.entrypoints.rest.service:service"
        command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    own = {"BENTOML_HOME": str(folder / "bentoml"), "VOXPORT_SERVING__LOOK_FOR_MODELS_SECONDS": "0.2"}
    return started(command, port, folder / "server.log", own | dict(env or {}))


def started(command: Sequence[str], port: int, log: Path, env: Mapping[str, str]) -> Server:
    """A process that serves on a port, in the folder of its log, with nothing of the user's own settings."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment(log.parent) | dict(env),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, f"http://127.0.0.1:{port}", log)


def is_ready(client: httpx.Client) -> bool:
    """Whether every model is loaded."""
    return client.get("/readyz").status_code == 200


@contextmanager
def running_server(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, plain: bool = False
) -> Iterator[Server]:
    """A server as `start_server` starts it, from when it is ready on; it is stopped at the end."""
    server = start_server(folder, *arguments, env=env, plain=plain)
    try:
        server.wait_until(is_ready)
        yield server
    finally:
        server.stop()
