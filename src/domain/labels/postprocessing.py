"""Postprocessing of a label map, as a model card asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KeepLargest:
    """Keep the largest 26-connected component of the listed labels together; the others become background."""

    labels: tuple[int, ...]


@dataclass(frozen=True)
class RemoveSmall:
    """Remove the 26-connected components of each listed label that are smaller than ``volume`` (in ``unit`` cubed)."""

    labels: tuple[int, ...]
    volume: float
    unit: Literal["mm", "um"]


@dataclass(frozen=True)
class FillHoles:
    """Give a label, for each listed one, the background that it encloses (6-connected)."""

    labels: tuple[int, ...]


Postprocessing = KeepLargest | RemoveSmall | FillHoles
