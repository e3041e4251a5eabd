"""The service opens no connection to anywhere: what BentoML would report goes into a trap, and the trap stays empty."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trap import Trap, set_trap

from .conftest import named_model
from .serving import running_server


@pytest.fixture
def trap() -> Iterator[Trap]:
    with set_trap() as trap:
        yield trap


def test_the_trap_catches_what_bentoml_reports_by_itself(trap: Trap, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}
    env |= {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "False"}
    subprocess.run([sys.executable, "-m", "bentoml", "list"], env=env | trap.env, timeout=60, check=False)
    assert any(b"bento" in request for request in trap.caught)


@pytest.mark.requirement("R-EGRESS")
@pytest.mark.parametrize("plain", [False, True], ids=["voxport serve", "bentoml serve"])
def test_a_service_reports_nothing(trap: Trap, tmp_path: Path, plain: bool) -> None:
    named_model(tmp_path / "models", "quick")
    env = {"VOXPORT_MODELS_DIR": str(tmp_path / "models"), "VOXPORT_MODEL": "quick", "BENTOML_DO_NOT_TRACK": "False"}
    with running_server(tmp_path, env=env | trap.env, plain=plain) as server, server.client() as http:
        assert http.post("/predict", json={"volume": [[[1, 2]]]}).status_code == 200
    assert trap.caught == []
