"""Contract suite of `WebhookSender`, and a sender that remembers."""

from __future__ import annotations

import pytest

from ..domain.errors import UsageError
from ..ports.webhooks import WebhookSender


class WebhookContract:
    """Subclass and implement the hooks. Messages are taken at ``good``, and refused by the place at ``failing``."""

    good: str
    failing: str

    def make_sender(self) -> WebhookSender:
        """A sender that may send to the origins of both URLs, and to no other."""
        raise NotImplementedError

    def received(self) -> list[tuple[str, bytes]]:
        """The ids and bodies that have come to ``good``."""
        raise NotImplementedError

    def test_a_message_comes_with_its_id(self) -> None:
        sender = self.make_sender()
        for id in ("one", "two", "two"):
            sender.send(self.good, id, b'{"a": 1}')
        assert self.received() == [(id, b'{"a": 1}') for id in ("one", "two", "two")]

    def test_a_place_that_does_not_take_it_is_told(self) -> None:
        sender = self.make_sender()
        sender.check(self.failing)
        with pytest.raises(ConnectionError):
            sender.send(self.failing, "one", b"{}")

    @pytest.mark.parametrize("url", ["http://elsewhere.example/", "https://169.254.169.254/latest", "", "no url"])
    def test_no_other_place_is_told(self, url: str) -> None:
        sender = self.make_sender()
        with pytest.raises(UsageError, match="callback_url"):
            sender.check(url)
        with pytest.raises(UsageError, match="callback_url"):
            sender.send(url, "one", b"{}")
        assert self.received() == []


class RecordingWebhooks(WebhookSender):
    """Keeps what it is to send. It knows ``http://good.example`` and ``http://failing.example``."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.fails = False

    def check(self, url: str) -> None:
        if not url.startswith(("http://good.example/", "http://failing.example/")):
            raise UsageError("callback_url", expected="a known URL", got=url, do="choose another")

    def send(self, url: str, id: str, body: bytes) -> None:
        self.check(url)
        if self.fails or url.startswith("http://failing.example/"):
            raise ConnectionError("answered 500")
        self.sent.append((url, id, body))
