"""Webhooks over HTTP: to a real server, checked by the library that receivers have, and never to other addresses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from voxport.adapters.webhooks.http import HttpWebhooks
from voxport.domain.errors import UsageError
from voxport.ports.webhooks import WebhookSender
from voxport.testing.webhooks import RecordingWebhooks, WebhookContract

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


class Receiver(ThreadingHTTPServer):
    """A server that keeps what is posted to ``/good``, sends on from ``/moved``, and fails elsewhere."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/good"):
            self.server.messages.append((dict(self.headers), body))
            self.server.arrived.release()
        status = {"/good": 204, "/moved": 307}.get(self.path.partition("?")[0], 500)
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/good")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestHttpWebhooks(WebhookContract):
    @pytest.fixture(autouse=True)
    def _start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.good, self.failing = f"{receiver.origin}/good?job=1", f"{receiver.origin}/failing"

    def make_sender(self) -> WebhookSender:
        return HttpWebhooks([self.receiver.origin], SECRET, allows_private=True)

    def received(self) -> list[tuple[str, bytes]]:
        return [(headers["webhook-id"], body) for headers, body in self.receiver.messages]

    def test_receivers_can_check_the_signature(self) -> None:
        self.make_sender().send(self.good, "one", b'{"type": "job.done"}')
        ((headers, body),) = self.receiver.messages
        assert Webhook(SECRET).verify(body, headers) == {"type": "job.done"}
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body + b" ", headers)
        with pytest.raises(WebhookVerificationError):
            Webhook("b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==").verify(body, headers)
        assert headers["Host"] == self.receiver.origin.removeprefix("http://")

    def test_a_redirect_is_not_followed(self) -> None:
        with pytest.raises(ConnectionError, match="307"):
            self.make_sender().send(f"{self.receiver.origin}/moved", "one", b"{}")
        assert self.received() == []

    def test_a_place_that_is_not_there_is_told(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            origin = f"http://127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(ConnectionError, match="cannot be reached"):
                HttpWebhooks([origin], SECRET, allows_private=True).send(f"{origin}/", "one", b"{}")


class TestRecordingWebhooks(WebhookContract):
    good, failing = "http://good.example/x", "http://failing.example/x"

    def make_sender(self) -> WebhookSender:
        self.sender = RecordingWebhooks()
        return self.sender

    def received(self) -> list[tuple[str, bytes]]:
        return [(id, body) for _, id, body in self.sender.sent]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.7", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::", "224.0.0.1", "ff02::1"),
    ],
)
def test_a_name_with_an_address_that_is_not_public_is_not_told(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443))
    found = [public, (family, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was told"))
    with pytest.raises(ConnectionError, match="not public"):
        HttpWebhooks(["https://lab.example"], SECRET).send("https://lab.example/hook", "one", b"{}")


def test_a_name_is_resolved_once_and_the_checked_address_is_told(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """Whoever owns the name cannot answer with another address the second time."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        assert len(asked) == 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    real = socket.getaddrinfo

    def resolve_any(host: str, *given: Any, **named: Any) -> Any:
        return (resolve if host == "lab.example" else real)(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_any)
    origin = f"http://lab.example:{receiver.server_port}"
    HttpWebhooks([origin], SECRET, allows_private=True).send(f"{origin}/good", "one", b"{}")
    assert asked == ["lab.example"]
    assert receiver.messages[0][0]["Host"] == f"lab.example:{receiver.server_port}"


@pytest.mark.parametrize(
    "url",
    [
        "https://lab.example.evil.example/x",
        "https://lab.example@evil.example/x",
        "https://evil.example/https://lab.example",
        "https://user:word@lab.example/x",
        "http://lab.example/x",
        "https://lab.example:444/x",
        "https://lab.example:99999/x",
        "https://lab.example\\@evil.example/x",
        "https://lab.example/x y",
        "https://lab.example/\r\nX: y",
        "https://[::1/x",
        "ftp://lab.example/x",
        "//lab.example/x",
        "https://läb.example/x",
    ],
)
def test_only_plain_urls_of_a_listed_origin_are_told(url: str) -> None:
    with pytest.raises(UsageError, match=r"https://lab\.example"):
        HttpWebhooks(["https://lab.example"], SECRET).check(url)


@pytest.mark.parametrize("url", ["https://lab.example/x", "https://LAB.example:443/y?z=1", "https://lab.example"])
def test_an_origin_is_the_same_with_its_usual_port_and_in_capitals(url: str) -> None:
    HttpWebhooks(["https://Lab.example/"], SECRET).check(url)
