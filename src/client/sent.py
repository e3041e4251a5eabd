"""Names and hashes of uploaded volumes."""

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
    """Local name and sha256 of each uploaded volume, in order."""

    names: tuple[str, ...]
    sha256: tuple[str, ...]

    def entries(self) -> list[dict[str, str]]:
        """The volumes as listed in a report."""
        pairs = zip(self.names, self.sha256, strict=True)
        return [{"name": name, "sha256": sha256} for name, sha256 in pairs]

    def localised(self, text: str) -> str:
        """Replace the server's names of volumes by local ones."""
        return localised(text, self.names)

    def check_received(self, report: Mapping[str, Any], url: str) -> None:
        """Raise RemoteError unless the report, or job, lists exactly the uploaded bytes in order."""
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
