"""Encoding pictures."""

from __future__ import annotations

from typing import Protocol

from ..domain.viewing.slicing import Picture


class PictureEncoder(Protocol):
    """Turns a picture into a file's bytes."""

    def encode(self, picture: Picture, *, quickly: bool = False) -> bytes:
        """The picture as PNG, its marks drawn in white on a dark edge; larger, and sooner, where ``quickly``."""
        ...
