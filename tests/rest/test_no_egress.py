"""The service opens no connection to anywhere: what BentoML would report goes into a trap, and the trap stays empty."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import named_model
from .serving import running_server

pytestmark = pytest.mark.xdist_group("server")


@dataclass
class Trap:
    """A proxy that every outgoing HTTP connection would go through; it hangs up on all and remembers them."""

    listener: socket.socket
    caught: list[bytes] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead there."""
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), url)

    def watch(self) -> None:
        """Catch connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.caught.append(connection.recv(200))


@pytest.fixture
def trap() -> Iterator[Trap]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trap = Trap(listener)
        thread = threading.Thread(target=trap.watch, daemon=True)
        thread.start()
        yield trap
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_the_trap_catches_what_bentoml_reports_by_itself(trap: Trap, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}
    env |= {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "False"}
    subprocess.run([sys.executable, "-m", "bentoml", "list"], env=env | trap.env, timeout=60, check=False)
    assert any(b"bento" in request for request in trap.caught)


@pytest.mark.parametrize("plain", [False, True], ids=["voxport serve", "bentoml serve"])
def test_a_service_reports_nothing(trap: Trap, tmp_path: Path, plain: bool) -> None:
    named_model(tmp_path / "models", "quick")
    env = {"VOXPORT_MODELS_DIR": str(tmp_path / "models"), "VOXPORT_MODEL": "quick", "BENTOML_DO_NOT_TRACK": "False"}
    with running_server(tmp_path, env=env | trap.env, plain=plain) as server, server.client() as http:
        assert http.post("/predict", json={"volume": [[[1, 2]]]}).status_code == 200
    assert trap.caught == []
