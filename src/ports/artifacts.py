"""Writing small results: statistics, reports, pictures."""

from __future__ import annotations

from typing import Protocol


class ArtifactWriter(Protocol):
    """Writes whole files."""

    def check(self, reference: str) -> None:
        """Raise OutputError now if ``write`` could not succeed later for a reason that can be seen already."""
        ...

    def write(self, reference: str, content: bytes) -> None:
        """Make ``content`` appear under ``reference``, whole, replacing what was there. Raises OutputError."""
        ...
