"""The service with VOXPORT_REQUIRE_SIGNED serves a signed model, and refuses tampered and unsigned ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import onnx
import pytest

from tests.cli.conftest import environment
from tests.keys import key_pair

from .conftest import named_model
from .serving import start_server


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "voxport", *map(str, arguments)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def tamper(path: Path) -> None:
    """Change one weight; the file is still a sound model with the same card."""
    proto = onnx.load(path)
    weights = bytearray(proto.graph.initializer[0].raw_data)
    weights[-1] ^= 0x80  # a sign
    proto.graph.initializer[0].raw_data = bytes(weights)
    path.write_bytes(proto.SerializeToString())


def state_of(client: httpx.Client, name: str) -> tuple[str, str]:
    listed = client.get("/v1/models").json()["models"]
    (found,) = (m for m in listed if m["name"] == name)
    return found["status"], str(found.get("reason"))


@pytest.mark.requirement("R-SIGNED")
def test_a_tampered_or_unsigned_model_is_refused_and_a_signed_one_is_served(tmp_path: Path, scan: Path) -> None:
    key, public = key_pair(tmp_path, "lab")
    paths = {name: named_model(tmp_path / "models", name) for name in ("sound", "tampered", "unsigned")}
    for name in ("sound", "tampered"):
        signed = command(tmp_path, "models", "sign", paths[name], "--key", key.private)
        assert signed.returncode == 0, signed.stderr
    tamper(paths["tampered"])
    checked = command(tmp_path, "models", "check", paths["tampered"], "--trusted", public)
    assert checked.returncode == 4
    assert "the file has changed" in checked.stderr
    assert len(checked.stderr.splitlines()) == 1

    env = {"VOXPORT_REQUIRE_SIGNED": str(public)}
    server = start_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "sound", env=env)
    try:
        server.wait_until(lambda client: "loading" not in str(client.get("/v1/models").text) and _knows(client, 4))
        with server.client() as client:
            assert client.get("/readyz").status_code == 503  # not every model was sound
            assert state_of(client, "sound")[0] == "ready"
            for name, reason in (("tampered", "has changed"), ("unsigned", "expected a signature")):
                state, why = state_of(client, name)
                assert (state, reason in why) == ("broken", True), why
            assert _segment(client, scan, "sound").status_code == 200
            for name in ("tampered", "unsigned", "two-photon-vessels"):
                refused = _segment(client, scan, name)
                assert refused.status_code >= 400, name
                assert "signature" in refused.text
            assert command(tmp_path, "models", "sign", paths["unsigned"], "--key", key.private).returncode == 0
        server.wait_until(lambda client: state_of(client, "unsigned")[0] == "ready")
    finally:
        server.stop()


def _knows(client: httpx.Client, count: int) -> bool:
    return len(client.get("/v1/models").json()["models"]) == count


def _segment(client: httpx.Client, scan: Path, model: str) -> httpx.Response:
    return client.post("/segment", files={"volume": (scan.name, scan.read_bytes())}, data={"model": model})


@pytest.mark.parametrize("name", ["serve", "worker"])
def test_a_key_that_is_not_there_stops_the_process_at_once(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "voxport", name],
        cwd=tmp_path,
        env=environment(tmp_path) | {"VOXPORT_REQUIRE_SIGNED": "missing.pem"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "require_signed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
