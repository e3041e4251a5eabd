"""Fill the holes of a mask that is streamed slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .components import ComponentFinder, Components, Mask


class Holes:
    """Holes of a mask: background voxels that no path of 6-connected background joins to the volume's border.

    The slabs of whole planes ``(x, y, z)`` are read in order along ``axis``, once to find the holes and once for each
    filling. They may have another thickness each time. Memory holds one plane, and grows with the number of background
    components. The result is that of ``scipy.ndimage.binary_fill_holes`` on the whole mask.
    """

    def __init__(self, background: Components) -> None:
        self._background = background

    @classmethod
    def found(cls, slabs: Iterable[Mask], axis: int) -> Holes:
        """Find the holes of a mask."""
        finder = ComponentFinder(axis, 6)
        for inside in slabs:
            finder.add(~inside)
        return cls(finder.result())

    def filled(self, slabs: Iterable[Mask]) -> Iterator[Mask]:
        """Yield the slabs of the same mask with its holes filled."""
        selection = self._background.selection(~self._background.at_border)
        for inside in slabs:
            yield np.logical_or(inside, selection.add(~inside))
