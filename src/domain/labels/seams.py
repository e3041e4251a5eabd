"""Count the connected components of a label map that is seen in boxes, in any order.

A box is labelled with one more plane at the far side of each axis, so that two voxels that touch lie together in one
box at least. Voxels on a seam, which several boxes have seen, join their components. scipy is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Shape3
from .components import ComponentTracer

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SeenComponents:
    """The 26-connected components of a mask in one box, and the component (from 0) of each voxel on its seams.

    ``places`` are flat indices (z fastest) of voxels of the whole volume.
    """

    count: int
    places: Ints
    components: Ints


def grown(box: Box, shape: Shape3) -> Box:
    """Return a box with the planes behind it, within a volume of ``shape``: what `seen` takes."""
    stop = tuple(min(end + 1, edge) for end, edge in zip(box.stop, shape, strict=True))
    return Box(box.start, (stop[0], stop[1], stop[2]))


def seen(inside: NDArray[np.bool_], box: Box, shape: Shape3) -> SeenComponents:
    """Return the components of the voxels in ``grown(box, shape)``, ``inside`` being ``(x, y, z)``."""
    on_seam = np.zeros_like(inside)  # in the same order of memory
    for axis in range(3):
        planes = np.moveaxis(on_seam, axis, 0)
        planes[0] = True
        if inside.shape[axis] > box.shape[axis]:
            planes[-1] = True
    tracer = ComponentTracer(int(np.argmax(inside.strides)))
    tracer.add(inside, on_seam)
    count, (x, y, z), components = tracer.result()
    places = ((x + box.start[0]) * shape[1] + y + box.start[1]) * shape[2] + z + box.start[2]
    return SeenComponents(count, places, components)


def count_components(boxes: Iterable[SeenComponents]) -> int:
    """Return the number of components of the whole mask, from those of boxes that cover it."""
    from scipy import sparse
    from scipy.sparse import csgraph

    made, places, numbers = 0, [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for found in boxes:
        places.append(found.places)
        numbers.append(found.components + made)
        made += found.count
    place, number = np.concatenate(places), np.concatenate(numbers)
    order = np.argsort(place, kind="stable")
    place, number = place[order], number[order]
    same = place[1:] == place[:-1]
    edges: Any = sparse.coo_matrix(
        (np.ones(int(same.sum()), bool), (number[1:][same], number[:-1][same])), shape=(made, made)
    )
    return int(csgraph.connected_components(edges, directed=False, return_labels=False)) if made else 0
