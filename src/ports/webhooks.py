"""Port for telling another server that something has happened."""

from __future__ import annotations

from typing import Protocol


class WebhookSender(Protocol):
    """Sends signed messages to the places that the settings allow. Safe for several threads."""

    def check(self, url: str) -> None:
        """Raise UsageError unless messages may be sent to this URL."""

    def send(self, url: str, id: str, body: bytes) -> None:
        """Send a message in JSON, and wait for the answer; ``id`` names the message, also when it is sent again.

        Raises:
            UsageError: messages may not, or no longer, be sent to this URL.
            ConnectionError: it cannot be reached, has an address that is not allowed, or does not take the message.
        """
