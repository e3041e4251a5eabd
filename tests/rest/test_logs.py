"""Logs of real processes: one JSON object a line, with what an operator has to know of models and jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from voxport.testing.job_queue import wait_until

from .conftest import named_model
from .jobbing import accepted, ended, scoring, slow_job, submit
from .serving import Server, free_port, start_server, started

Entries = list[dict[str, Any]]


def entries(server: Server) -> Entries:
    """Every complete line of a process's log; it fails on a line that is not a JSON object."""
    lines = server.log.read_text(encoding="utf-8").split("\n")[:-1]
    parsed = [json.loads(line) for line in lines]
    assert all(isinstance(entry, dict) and entry["time"] for entry in parsed)
    return parsed


def logged(server: Server, **fields: object) -> bool:
    return any(fields.items() <= entry.items() for entry in entries(server))


def wait_for_line(server: Server, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    def found() -> Entries:
        assert server.process.poll() is None, server.log.read_text(encoding="utf-8")
        return [entry for entry in entries(server) if holds(entry)]

    wait_until(lambda: bool(found()), 60)
    return found()[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with one model, a file that is none, and a default that does not exist."""
    folder = tmp_path_factory.mktemp("logs")
    named_model(folder / "models", "edges")
    (folder / "models" / "torn.onnx").write_bytes(b"no network")
    server = start_server(folder, "--models", str(folder / "models"), "-m", "misnamed")
    try:
        server.wait_until(lambda http: http.get("/v1/models/edges").json().get("status") == "ready")
        yield server
    finally:
        server.stop()
        entries(server)


def test_a_broken_model_is_a_warning_and_a_missing_default_an_error(server: Server) -> None:
    broken = wait_for_line(server, lambda entry: entry.get("model") == "torn.onnx")
    assert (broken["level"], broken["event"]) == ("warning", "broken")
    missing = wait_for_line(server, lambda entry: entry.get("model") == "misnamed")
    assert missing["level"] == "error"
    assert missing["message"].startswith("the default model misnamed cannot be used: ")


def test_a_job_is_logged_from_its_submission_to_its_end(server: Server) -> None:
    with server.client() as http:
        job = accepted(submit(http, model="edges"))
        assert ended(http, job)["state"] == "done"
    for event in ("submitted", "begun", "done"):
        wait_for_line(server, lambda entry: entry.get("job") == job["id"] and entry["event"] == event)  # noqa: B023
    assert logged(server, job=job["id"], event="submitted", by="anonymous")
    assert logged(server, job=job["id"], event="done", model="edges:1.0.0", attempt=1)


def test_the_log_says_who_cancelled_a_job_and_not_to_start_it_again(server: Server) -> None:
    with server.client() as http:
        job = scoring(http, slow_job(http, model="edges"))
        assert http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
        assert ended(http, job)["state"] == "cancelled"
    wait_for_line(server, lambda entry: entry.get("job") == job["id"] and entry["event"] == "cancelled")
    assert logged(server, job=job["id"], event="cancelling", by="anonymous")
    about = [entry["message"] for entry in entries(server) if entry.get("job") == job["id"]]
    assert not any("start it again" in message or "queued again" in message for message in about)


@pytest.mark.parametrize(
    ("command", "first"), [("worker", "the default model"), ("demo", "demo on http"), ("serve", "serving on http")]
)
def test_a_models_folder_that_does_not_exist_is_an_error_at_the_start(command: str, first: str, tmp_path: Path) -> None:
    port = free_port()
    arguments = [] if command == "worker" else ["--port", str(port)]
    words = [sys.executable, "-m", "voxport", command, "--models", str(tmp_path / "lost"), "-m", "misnamed", *arguments]
    process = started(words, port, tmp_path / "log", {})
    try:
        wait_for_line(process, lambda entry: entry["message"].startswith(first))
        line = wait_for_line(process, lambda entry: entry["message"].startswith(f"models folder {tmp_path / 'lost'}"))
        assert line["level"] == "error"
    finally:
        process.stop()
    entries(process)


UNCAUGHT = """
import sys, threading
from voxport.entrypoints.json_log import log_as_json

class Broken:
    def __del__(self):
        raise ValueError("ignored")

def fails():
    raise ValueError("in a thread")

log_as_json()
del_at_once = Broken()
del del_at_once
thread = threading.Thread(target=fails, name="worker-7")
thread.start()
thread.join()
kept_to_the_end = Broken()
raise ValueError("at last")
"""


def test_errors_that_python_prints_itself_are_json_lines_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )
    logged = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(entry["level"], entry["traceback"].splitlines()[-1]) for entry in logged] == [
        ("warning", "ValueError: ignored"),
        ("error", "ValueError: in a thread"),
        ("critical", "ValueError: at last"),
        ("warning", "ValueError: ignored"),
    ]
    assert "worker-7" in logged[1]["message"]
    assert ended.returncode == 1
