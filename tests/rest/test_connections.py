"""Connections of a real service: silent ones are closed, open requests outlive SIGTERM for a while, counters stay."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .conftest import named_model
from .jobbing import SLOWLY, volume
from .serving import PATIENCE, Server, running_server, start_server

SILENCE_SECONDS, DRAIN_SECONDS = 1.5, 0.5
SETTINGS = {
    "VOXPORT_SERVING__SILENCE_SECONDS": str(SILENCE_SECONDS),
    "VOXPORT_SERVING__DRAIN_SECONDS": str(DRAIN_SECONDS),
    "VOXPORT_JOBS__WORKER": "false",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    named_model(folder, "edges")
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("first")
    with running_server(folder, "--models", str(models), "-m", "edges", env=SETTINGS) as server:
        yield server


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection((server.host, server.port), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def refusals(server: Server) -> float:
    """How many requests for models that do not exist this service counted."""
    with server.client() as http:
        lines = http.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith('voxport_refused_total{kind="unknown-model"')
    )


def refuse(server: Server) -> None:
    with server.client() as http:
        assert http.get("/v1/models/nothing").status_code == 404


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Never-Ends: "])
def test_connections_whose_headers_never_end_are_closed(server: Server, sent: bytes) -> None:
    connections = [connect(server) for _ in range(230)]
    try:
        for connection in connections:
            connection.sendall(sent)
        assert [connection.recv(1) for connection in connections] == [b""] * len(connections)
    finally:
        for connection in connections:
            connection.close()
    with server.client() as http:
        assert http.get("/livez").status_code == 200


def test_a_body_that_stops_midway_is_answered_and_the_connection_closed(server: Server) -> None:
    with connect(server) as connection:
        head = "POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--b\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.1 504 ")
    problem = json.loads(answer.split(b"\r\n\r\n")[1])
    assert problem["detail"].startswith(f"request body: expected more of it within {SILENCE_SECONDS:g} s, got nothing;")


def test_an_upload_that_is_slow_but_steady_is_taken(server: Server) -> None:
    form = httpx.Request("POST", f"{server.url}/v1/plan", files={"volume": ("scan.nii.gz", volume())})
    content = form.read()
    pieces = [content[at : at + len(content) // 6 + 1] for at in range(0, len(content), len(content) // 6 + 1)]
    with connect(server) as connection:
        fields = "".join(f"{name}: {value}\r\n" for name, value in form.headers.items())
        connection.sendall(f"POST /v1/plan HTTP/1.1\r\nConnection: close\r\n{fields}\r\n".encode())
        connection.settimeout(SILENCE_SECONDS / 3)
        for piece in pieces:  # longer in all than a silence may be
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.sendall(piece)
        connection.settimeout(PATIENCE)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_a_second_service_of_the_same_user_leaves_the_counters_of_the_first_alone(
    server: Server, models: Path, tmp_path: Path
) -> None:
    refuse(server)
    before = refusals(server)
    assert before >= 1
    env = SETTINGS | {"BENTOML_HOME": str(server.log.parent / "bentoml")}
    with running_server(tmp_path, "--models", str(models), "-m", "edges", env=env) as second:
        assert (refusals(server), refusals(second)) == (before, 0)
        refuse(second)
        refuse(second)
        assert (refusals(server), refusals(second)) == (before, 2)
    refuse(server)
    assert refusals(server) == before + 1


def test_a_service_that_is_stopped_says_that_it_drains_and_answers_what_does_not_end_in_time(
    models: Path, tmp_path: Path
) -> None:
    server = start_server(tmp_path, "--models", str(models), "-m", "edges", env=SETTINGS)
    try:
        server.wait_until(lambda http: http.get("/readyz").status_code == 200)
        with server.client() as http, ThreadPoolExecutor(1) as pool:
            running = pool.submit(http.post, "/segment", files={"volume": ("scan.nii.gz", volume(64))}, data=SLOWLY)
            server.wait_until(lambda other: "voxport_in_flight 1.0" in other.get("/metrics").text or running.done())
            assert not running.done(), running.result().text
            assert server.stop() == 0
            answer = running.result(PATIENCE)
    finally:
        server.stop()
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["detail"].startswith(
        f"run: expected an end within {DRAIN_SECONDS:g} s of the stop, got a longer"
    )
    log = server.log.read_text(encoding="utf-8")
    assert f"draining: 1 open request(s), for at most {DRAIN_SECONDS:g} s" in log
    assert f"1 request(s) did not end within {DRAIN_SECONDS:g} s; answered 503" in log
