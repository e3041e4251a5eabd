"""Port for small result files: statistics, reports, pictures."""

from __future__ import annotations

from typing import Protocol


class ArtifactWriter(Protocol):
    """Writes whole files."""

    def check(self, reference: str) -> None:
        """Raise OutputError if ``write`` would fail, as far as can be known now."""

    def write(self, reference: str, content: bytes) -> None:
        """Write or replace the file ``reference`` atomically. Raises OutputError."""
