"""``voxport up``: what it starts, keeps up and ends, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
import typer.main
from voxport.domain.errors import VoxportError
from voxport.entrypoints.cli import up as up_module
from voxport.entrypoints.cli.main import app
from voxport.entrypoints.cli.up import Place, children_of, data_variables
from voxport.entrypoints.up.answering import answers
from voxport.entrypoints.up.supervisor import Child, Restarts
from voxport.testing.job_queue import wait_until

from tests.rest.serving import PATIENCE, free_port

from .conftest import Command, environment

REPORT: dict[str, Any] = {
    "warnings": [],
    "statistics": {"labels": [{"name": "vessel", "voxels": 1, "volume": 0.5, "components": 1}]},
    "grid": {"unit": "um", "shape": [2, 1, 1]},
    "tiles": {"count": 1},
    "seconds": {"score": 1.0},
    "runtime": {"name": "onnx", "precision": "fp32"},
}
WAIT = [sys.executable, "-c", "import signal; signal.pause()"]
PLACE = Place("127.0.0.1", 3000, 7860)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VOXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


class Up:
    """A running ``voxport up``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "voxport", "up", "--no-demo", "--port", self.url.rpartition(":")[2]]
        (folder / "data" / "jobs").mkdir(parents=True)
        own = {"BENTOML_HOME": str(folder / "bentoml"), "VOXPORT_SERVING__DRAIN_SECONDS": "1"}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--data", str(folder / "data")],
                cwd=folder,
                env=environment(folder) | own,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_for(self, line: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in (said := (self.folder / "err").read_text(encoding="utf-8")):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_the_service_comes_back_when_it_is_killed_and_all_end_with_it(up: Up) -> None:
    up.wait_for("healthy: service, worker")
    up.wait_for("is not tuned for this machine; voxport tune ")
    assert (up.folder / "out").read_text(encoding="utf-8") == f"service {up.url}\n"
    (service,) = [p for p in psutil.Process(up.process.pid).children() if "serve" in p.cmdline()]
    before = service.children(recursive=True)
    assert before
    service.kill()
    up.wait_for("service is back")
    assert answers(f"{up.url}/readyz")
    assert not any(process.is_running() for process in before)
    running = up.descendants()
    with uploading(up.url) as upload:
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(PATIENCE) == 0
        answer = b"".join(iter(lambda: upload.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"run: expected an end within 1 s of the stop, got a longer run; send the request again" in answer
    assert not any(process.is_running() for process in running)
    assert {path.name for path in (up.folder / "data" / "logs").glob("*/*")} == {"service.log", "worker.log"}


@contextmanager
def uploading(url: str) -> Iterator[socket.socket]:
    """A connection whose request the service has begun to read, and whose body never ends."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        head = "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(2**16).startswith(b"HTTP/1.1 100 ")
        yield connection


def test_it_gives_its_children_longer_to_end_than_they_give_their_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Restarts] = []

    def supervisor(*arguments: Any) -> NoReturn:
        given.append(arguments[3])
        raise InterruptedError

    monkeypatch.setenv("VOXPORT_SERVING__DRAIN_SECONDS", "300")
    monkeypatch.setattr(up_module, "Supervisor", supervisor)
    arguments = ["up", "--no-demo", "--port", str(free_port()), "--data", str(tmp_path)]
    with pytest.raises(InterruptedError):
        typer.main.get_command(app).main(args=arguments, standalone_mode=False)
    assert given[0].grace_seconds > 300


def test_nothing_goes_on_when_it_is_killed(up: Up) -> None:
    wait_until(lambda: len(up.descendants()) >= 3)
    running = up.descendants()
    up.process.kill()
    wait_until(lambda: not any(map(is_alive, running)))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("option", ["--port", "--demo-port"])
def test_a_port_in_use_is_refused(voxport: Command, option: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        ports = {"--port": free_port(), "--demo-port": free_port()} | {option: port}
        result = voxport("up", *[word for pair in ports.items() for word in pair])
    assert result.returncode == 2
    assert result.stderr == (
        f"voxport: 127.0.0.1:{port}: expected an address to listen on, got address already in use; "
        f"stop what listens there, or choose another with {option}\n"
    )


def test_one_port_cannot_have_two(voxport: Command) -> None:
    port = free_port()
    result = voxport("up", "--port", port, "--demo-port", port)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("voxport: --demo-port: expected another port than --port")


def test_others_are_not_let_in_without_a_key(voxport: Command) -> None:
    result = voxport("up", "--host", "0.0.0.0")
    assert result.returncode == 2
    assert "expected VOXPORT_API_KEYS" in result.stderr


def test_what_it_keeps_up() -> None:
    children = children_of(PLACE, 1, {"VOXPORT_MODEL": "cells"})
    assert [child.name for child in children] == ["service", "worker", "demo"]
    assert [child.command[4] for child in children] == ["serve", "worker", "demo"]
    assert [child.health_url for child in children] == [
        "http://127.0.0.1:3000/readyz",
        None,
        "http://127.0.0.1:7860/",
    ]
    assert children[0].environment == {"VOXPORT_MODEL": "cells", "VOXPORT_JOBS__WORKER": "false"}
    assert children[1].environment == children[2].environment == {"VOXPORT_MODEL": "cells"}
    several = children_of(Place("::", 1, None), 2, {})
    assert [child.name for child in several] == ["service", "worker-1", "worker-2"]
    assert several[0].health_url == "http://[::1]:1/readyz"


def test_the_commands_that_it_starts_are_commands() -> None:
    command: Any = typer.main.get_command(app)
    for child in children_of(PLACE, 1, {}):
        name, *arguments = child.command[4:]
        if found := command.commands.get(name):
            found.make_context(name, arguments)


def test_the_demo_has_a_key_where_keys_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only hashes are set, which open nothing."""
    theirs = "sha256:" + "0" * 64
    monkeypatch.setenv("VOXPORT_API_KEYS", theirs)
    service, worker, demo = children_of(PLACE, 1, {})
    own = demo.environment["VOXPORT_API_KEY"]
    assert service.environment["VOXPORT_API_KEYS"] == f"{theirs},sha256:{sha256(own.encode()).hexdigest()}"
    assert "VOXPORT_API_KEY" not in worker.environment
    assert own not in " ".join([*service.command, *demo.command])


def test_a_folder_holds_everything(tmp_path: Path) -> None:
    assert data_variables(None) == {}
    assert all(str(tmp_path) in value for value in data_variables(tmp_path).values())
    assert {"VOXPORT_MODELS_DIR", "VOXPORT_JOBS__DATABASE", "VOXPORT_JOBS__BLOBS"} == set(data_variables(tmp_path))


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder below which checks work, with stand-ins for the children and for the run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(up_module, "children_of", lambda *_: [Child("stand-in", WAIT)])
    monkeypatch.setattr(up_module, "_segment_sample", lambda *_: REPORT)
    return tmp_path


def kept(folder: Path) -> list[Path]:
    return list(folder.glob("voxport-check-*"))


def test_a_check_that_goes_well_shows_the_result(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    up_module.check_everything(workers=2, demo=True)
    shown = capsys.readouterr().out
    assert "vessel" in shown
    assert shown.endswith("service, 2 workers and demo: all well\n")
    assert kept(checked) == []


def test_a_check_whose_run_fails_is_an_error(checked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise VoxportError("job", expected="a mask", got="none", do="look")

    monkeypatch.setattr(up_module, "_segment_sample", fail)
    with pytest.raises(VoxportError, match="job: expected a mask"):
        up_module.check_everything(workers=1, demo=False)
    assert len(kept(checked)) == 1


def test_a_check_with_a_child_that_ends_is_an_error(checked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_module, "children_of", lambda *_: [Child("stand-in", ["sh", "-c", "exit 2"])])
    with pytest.raises(VoxportError, match=r"stand-in: .*exit code 2; see .*stand-in\.log"):
        up_module.check_everything(workers=1, demo=False)
    assert [path.name for path in kept(checked)[0].glob("logs/*")] == ["stand-in.log"]


def test_a_check_does_not_wait_for_ever(checked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    monkeypatch.setattr(up_module, "children_of", lambda *_: [Child("stand-in", WAIT, url)])
    monkeypatch.setattr(up_module, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(VoxportError, match=r"stand-in: expected an answer within 0\.3 s, got none"):
        up_module.check_everything(workers=1, demo=False)
    assert len(kept(checked)) == 1


def test_a_check_knows_nothing_of_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from voxport.settings import load_settings

    for name, value in up_module._default_settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.api_keys == []
    assert str(tmp_path) in settings.jobs.database
