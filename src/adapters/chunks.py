"""Arrays stored in chunks, read slab by slab. Adapters of volumes share this module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Index

_Ranges = tuple[tuple[int, int], ...]


class ChunkRows:
    """Reads boxes of an array so that consecutive slabs, thinner than a chunk, decode each chunk once.

    The row of chunks that a slab ends in is kept, decoded, until a slab reaches the row's end.

    Args:
        shape: of the array.
        chunk: shape of its chunks.
        itemsize: bytes of a value.
        fetch: decodes the values at an index; several threads call it at once.
        most_bytes: a row with more is not kept.
    """

    def __init__(
        self,
        shape: Sequence[int],
        chunk: Sequence[int],
        itemsize: int,
        fetch: Callable[[tuple[slice, ...]], NDArray[Any]],
        most_bytes: int = 2**30,
    ) -> None:
        self._shape, self._chunk, self._itemsize = shape, chunk, itemsize
        self._fetch, self._most_bytes = fetch, most_bytes
        self._rows: dict[_Ranges, NDArray[Any]] = {}
        self._lock = Lock()

    def read(self, index: Index) -> NDArray[Any]:
        """Return a new array of the values at an index; an axis with an integer goes."""
        ranges: _Ranges = tuple(
            (part.start, part.stop) if isinstance(part, slice) else (part, part + 1) for part in index
        )
        single = tuple(at for at, part in enumerate(index) if not isinstance(part, slice))
        edges = [stop - start for start, stop in ranges]
        if 0 in edges:
            return np.zeros([edge for at, edge in enumerate(edges) if at not in single], np.uint8)
        along = [at for at in range(len(edges)) if at not in single]
        axis = min(along, key=lambda at: edges[at] / self._shape[at])
        parts = [self._part(part, (axis, *single)) for part in self._cut(ranges, axis)]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts, axis)).squeeze(single)

    def _cut(self, ranges: _Ranges, axis: int) -> Iterator[_Ranges]:
        """Yield the parts of a box in the row of chunks that it begins in, in whole rows, and in the one it ends in."""
        (start, stop), edge = ranges[axis], self._chunk[axis]
        first, last = -(-start // edge) * edge, stop if stop == self._shape[axis] else stop // edge * edge
        cuts = sorted({start, min(first, stop), max(last, start), stop})
        for low, high in pairwise(cuts):
            yield (*ranges[:axis], (low, high), *ranges[axis + 1 :])

    def _part(self, ranges: _Ranges, ends: Sequence[int]) -> NDArray[Any]:
        """Read a part of a box. A row goes once a part reaches its end along the axes ``ends``."""
        whole = self._whole(ranges)
        size = math.prod(stop - start for start, stop in whole) * self._itemsize
        if whole == ranges or size > self._most_bytes:
            return self._fetch(tuple(slice(*each) for each in ranges))
        with self._lock:
            if whole not in self._rows:
                held = sum(row.nbytes for row in self._rows.values())
                if held + size > self._most_bytes:
                    self._rows.clear()
                self._rows[whole] = self._fetch(tuple(slice(*each) for each in whole))
            row = self._rows[whole]
            if all(ranges[at][1] == whole[at][1] for at in ends):
                del self._rows[whole]
        place = tuple(slice(a - b, c - b) for (a, c), (b, _) in zip(ranges, whole, strict=True))
        return np.array(row[place])

    def _whole(self, ranges: _Ranges) -> _Ranges:
        """Return the box of the chunks that a box touches."""
        return tuple(
            (start // part * part, min(-(-stop // part) * part, edge))
            for (start, stop), part, edge in zip(ranges, self._chunk, self._shape, strict=True)
        )
