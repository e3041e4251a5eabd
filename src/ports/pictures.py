"""Port for picture encoding."""

from __future__ import annotations

from typing import Protocol

from ..domain.viewing.slicing import Picture


class PictureEncoder(Protocol):
    """Encodes pictures."""

    def encode(self, picture: Picture, *, quickly: bool = False) -> bytes:
        """Return a PNG file with the marks drawn in white on a dark edge; ``quickly`` gives a larger file sooner."""
