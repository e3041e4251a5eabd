"""Port for picture encoding."""

from __future__ import annotations

from typing import Protocol

from ..domain.labels.comparison import Mask
from ..domain.viewing.slicing import Grey, Picture


class PictureEncoder(Protocol):
    """Encodes pictures."""

    def encode(self, picture: Picture, *, quickly: bool = False) -> bytes:
        """Return a PNG file with the marks drawn in white on a dark edge; ``quickly`` gives a larger file sooner."""

    def encode_grey(self, pixels: Grey) -> bytes:
        """Return a PNG file of grey levels ``(H, W)``."""

    def encode_layer(self, inside: Mask, colour: tuple[int, int, int]) -> bytes:
        """Return a PNG file with a colour inside a mask ``(H, W)``, and transparent elsewhere."""
