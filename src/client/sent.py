"""The volumes of a case as they were sent: what they are called here, and their hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..domain.volume_names import PACKED, PLAIN
from .errors import RemoteError

_SENT_NAME = re.compile(rf"(?:[^\s'\"]*/)?volume_(\d+)(?:{re.escape(PACKED)}|{re.escape(PLAIN)})")


@dataclass(frozen=True)
class Sent:
    """The volumes of a case, in order: the name of each here, and the sha256 of what was sent of it."""

    names: tuple[str, ...]
    sha256: tuple[str, ...]

    def entries(self) -> list[dict[str, str]]:
        """The volumes as a report lists them."""
        pairs = zip(self.names, self.sha256, strict=True)
        return [{"name": name, "sha256": sha256} for name, sha256 in pairs]

    def localised(self, text: str) -> str:
        """A server's words with the volumes' names here in them."""
        return localised(text, self.names)

    def check_received(self, report: Mapping[str, Any], url: str) -> None:
        """RemoteError unless the report, or job, is on exactly the bytes that were sent, in their order."""
        if [entry["sha256"] for entry in report["inputs"]] != list(self.sha256):
            raise RemoteError(
                url,
                expected="a result for the volumes that were sent",
                got="one for others, by their sha256",
                do="ask again, and tell who runs the server",
            )


def localised(text: str, names: Sequence[str]) -> str:
    """A server's words, in which volumes go by their numbers, with these names in them."""

    def local(match: re.Match[str]) -> str:
        number = int(match[1])
        return names[number - 1] if 1 <= number <= len(names) else match[0]

    return _SENT_NAME.sub(local, text)
