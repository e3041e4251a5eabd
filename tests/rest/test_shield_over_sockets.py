"""The shield behind uvicorn: what only a real connection shows."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn

from .shielded import KEY, KEYS, LIMIT, PRINCIPAL, Lines, kind_of, make_shield

DEADLINE = 20.0
PIECE = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
WRONG = {"X-API-Key": "wrong-horse-battery-staple"}


@contextmanager
def serve(listening: socket.socket, **settings: Any) -> Iterator[Lines]:
    """A shield behind uvicorn on a socket; its request log."""
    lines = Lines()
    config = uvicorn.Config(make_shield(lines, **settings), lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    # connections wait in the backlog until the server takes them
    listening.listen()
    thread.start()
    yield lines
    server.should_exit = True
    thread.join(DEADLINE)
    assert not thread.is_alive()


def bound(host: str = "127.0.0.1") -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.bind((host, 0))
    return listening


def url_of(listening: socket.socket, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{listening.getsockname()[1]}"


def connect(listening: socket.socket) -> AbstractContextManager[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", listening.getsockname()[1]), DEADLINE))


def answer_on(connection: socket.socket) -> httpx.Response:
    """The answer that comes, as long as it says it is."""
    with connection.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        pairs = [line.decode("latin-1").strip().partition(": ") for line in iter(lines.readline, b"\r\n")]
        headers = httpx.Headers([(name, value) for name, _, value in pairs])
        return httpx.Response(status, headers=headers, content=lines.read(int(headers["Content-Length"])))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with bound() as made:
        yield made


def test_a_chunked_body_is_refused_while_it_is_still_being_sent(listening: socket.socket) -> None:
    with serve(listening) as lines, connect(listening) as connection:
        connection.sendall(CHUNKED + b"\r\n")
        sent = 0
        while not select.select([connection], [], [], 0)[0]:
            connection.sendall(PIECE)
            sent += 1
        response = answer_on(connection)
    assert kind_of(response) == "limit"
    assert response.status_code == 413
    assert response.headers["Connection"] == "close"
    assert sent > LIMIT // 0x4000
    assert lines.entries[0]["bytes_in"] > LIMIT


def test_a_sender_who_does_not_listen_until_done_gets_the_answer_too(listening: socket.socket) -> None:
    with serve(listening), connect(listening) as connection:
        connection.sendall(CHUNKED + b"\r\n")
        for _ in range(1000):
            connection.sendall(PIECE)
        connection.sendall(b"0\r\n\r\n")
        assert kind_of(answer_on(connection)) == "limit"


def test_a_length_above_the_limit_is_refused_before_any_of_it_is_sent(listening: socket.socket) -> None:
    head = f"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\nExpect: 100-continue\r\n\r\n"
    with serve(listening) as lines, connect(listening) as connection:
        connection.sendall(head.encode())
        begun = connection.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
        assert begun == b"HTTP/1.1 413"
        connection.shutdown(socket.SHUT_WR)
        assert kind_of(answer_on(connection)) == "limit"
    assert lines.entries[0]["bytes_in"] == 0


@pytest.mark.parametrize("content", [b"x" * (LIMIT + 1), b"x" * 20_000_000])
def test_httpx_reads_that_its_upload_is_too_large(listening: socket.socket, content: bytes) -> None:
    with serve(listening):
        assert kind_of(httpx.post(f"{url_of(listening)}/echo", content=content)) == "limit"
        assert kind_of(httpx.post(f"{url_of(listening)}/echo", content=iter([content, content]))) == "limit"
        assert kind_of(httpx.post(f"{url_of(listening)}/form", files={"volume": content})) == "limit"


def test_the_key_opens_and_without_it_an_upload_is_not_read(listening: socket.socket) -> None:
    with serve(listening, keys=KEYS) as lines:
        echo = f"{url_of(listening)}/echo"
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
            assert httpx.post(echo, content=b"abc", headers=headers).json()["principal"] == PRINCIPAL
        for headers in ({}, WRONG, {"Authorization": "Bearer wrong"}, {"X-API-Key": KEY, "Authorization": "Bearer no"}):
            assert kind_of(httpx.post(echo, content=b"x" * 10_000_000, headers=headers)) == "unauthorised"
        assert httpx.get(f"{url_of(listening)}/livez").status_code == 200
    assert [entry["bytes_in"] for entry in lines.entries] == [3, 3, 0, 0, 0, 0, 0]


def test_a_pickle_is_refused(listening: socket.socket) -> None:
    with serve(listening):
        for path in ("/echo", "/metrics", "/"):
            headers = {"Content-Type": "application/vnd.bentoml+pickle"}
            assert kind_of(httpx.post(url_of(listening) + path, content=b"\x80\x04.", headers=headers)) == "media-type"


def test_two_ways_to_tell_the_length_are_refused(listening: socket.socket) -> None:
    with serve(listening), connect(listening) as connection:
        connection.sendall(CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n")
        assert kind_of(answer_on(connection)) == "malformed"


def test_a_page_that_rebinds_its_name_to_this_machine_is_refused(listening: socket.socket) -> None:
    with serve(listening):
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
            {"X-Forwarded-For": "203.0.113.7"},
        ):
            assert kind_of(httpx.get(f"{url_of(listening)}/v1/models/a", headers=headers)) == "forbidden"


def test_the_rate_is_limited(listening: socket.socket) -> None:
    with serve(listening, rate_per_minute=2):
        answers = [httpx.get(f"{url_of(listening)}/v1/models/a") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert kind_of(answers[2]) == "rate"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60


def test_callers_who_dawdle_do_not_keep_others_waiting(listening: socket.socket) -> None:
    with serve(listening), connect(listening) as half_head, connect(listening) as half_body:
        half_head.sendall(b"POST /echo HTTP/1.1\r\nHost: loc")
        half_body.sendall(
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc"
        )
        answers = [httpx.get(f"{url_of(listening)}/livez", timeout=DEADLINE).status_code for _ in range(5)]
        assert answers == [200] * 5
        half_body.sendall(b"def")
        assert answer_on(half_body).json()["bytes"] == 6


def test_a_caller_who_hangs_up_while_sending_leaves_one_line(listening: socket.socket) -> None:
    with serve(listening) as lines:
        with connect(listening) as connection:
            connection.sendall(CHUNKED + b"\r\n" + PIECE)
        assert httpx.get(f"{url_of(listening)}/livez").status_code == 200
    assert {(entry["route"], entry["status"]) for entry in lines.entries} == {("/echo", None), ("/livez", 200)}


def test_nobody_writes_lines_into_the_log(listening: socket.socket) -> None:
    with serve(listening) as lines:
        evil = "/v1/models/a%0d%0a%7b%22status%22:200%7d%E2%80%A8?name=%0a{}"
        headers = {"User-Agent": 'a"}\t{"status": 1', "X-Request-ID": "{}"}
        assert httpx.get(url_of(listening) + evil, headers=headers).status_code == 200
        with connect(listening) as connection:
            connection.sendall(b"GE{T /\n{} HTTP/1.1\r\nHost: localhost\r\nA: b\r\n {}\r\n\r\n")
            assert b"400" in connection.recv(100)
    (line,) = lines.text
    assert line.isascii()
    assert json.loads(line)["route"] == "/v1/models/{name}"


def test_an_open_bind_without_keys_is_closed_to_the_network() -> None:
    addresses = [address for known in psutil.net_if_addrs().values() for address in known]
    own = [a.address for a in addresses if a.family == socket.AF_INET and not a.address.startswith("127.")]
    if not own:
        pytest.skip("this machine has only its loopback address")
    with bound("0.0.0.0") as listening, serve(listening):
        assert kind_of(httpx.get(f"{url_of(listening, own[0])}/livez", headers={"Host": "localhost"})) == "forbidden"
        assert httpx.get(f"{url_of(listening)}/livez").status_code == 200


def test_ipv6_loopback_and_ipv4_through_it_are_this_machine() -> None:
    try:
        listening = bound("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening, serve(listening):
        assert httpx.get(f"{url_of(listening, '[::1]')}/livez").status_code == 200
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both, serve(both):
        assert httpx.get(f"{url_of(both)}/livez").status_code == 200


def test_a_unix_socket_is_this_machine(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        with serve(listening), httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            assert client.get("http://localhost/v1/models/a").status_code == 200
