"""Corrections of a mask by hand: strokes into a copy of it, and what they changed."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.geometry.grid import Box, Grid
from ...domain.labels.brush import Stroke
from ...ports.volume_store import VolumeStore
from ..segmentation.case import slabs
from .volume_viewer import ShownMask

_UNDO_BYTES, _UNDO_STEPS = 2**26, 100

Kept = tuple[Box, bytes]


class Correction:
    """A copy of a mask of a whole volume that strokes change; a `LabelSource`. Thread-safe.

    The copy is a file of the store's that is never committed. Of a stroke, only its box is in memory. Boxes as they
    were before are kept, compressed, for ``undo``: 64 MiB and 100 strokes at most.
    """

    def __init__(
        self, volumes: VolumeStore, mask: ShownMask, place: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._original, self._table, self._now = mask.source, mask.table, now
        self._sink = volumes.create(place, self.grid, self.dtype)
        self._lock = threading.Lock()
        self._steps: list[tuple[int, list[Kept]]] = []
        self._strokes: Counter[int] = Counter()
        self._times: dict[int, datetime] = {}
        try:
            for box in slabs(self.grid, self.slowest_axis):
                self._sink.write(box, self._original.read(box))
        except BaseException:
            self._sink.close()
            raise

    @property
    def grid(self) -> Grid:
        """See LabelSource."""
        return self._original.grid

    @property
    def dtype(self) -> np.dtype[Any]:
        """See LabelSource."""
        return self._original.dtype

    @property
    def slowest_axis(self) -> int:
        """See LabelSource."""
        return self._original.slowest_axis

    def read(self, box: Box) -> NDArray[Any]:
        """See LabelSource."""
        with self._lock:
            return self._sink.read(box)

    def close(self) -> None:
        """See LabelSource. The mask stays open."""
        with self._lock:
            self._sink.close()

    def paint(self, stroke: Stroke, *, continues: bool = False) -> None:
        """Paint a stroke, or one that is a further part of the latest.

        Raises:
            UsageError: see ``Stroke``.
            ValueError: the correction is closed.
        """
        box, painted = stroke.voxels(self.grid, self._table)
        with self._lock:
            labels = self._sink.read(box)
            kept = box, zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)
            labels[0][painted] = stroke.value
            self._sink.write(box, labels)
            if continues and self._steps and self._steps[-1][0] == stroke.value:
                self._steps[-1][1].append(kept)
            else:
                self._steps.append((stroke.value, [kept]))
                self._strokes[stroke.value] += 1
            self._times[stroke.value] = self._now()
            while len(self._steps) > _UNDO_STEPS or self._kept_bytes() > _UNDO_BYTES:
                del self._steps[0]

    def undo(self) -> bool:
        """Take the latest stroke back; return whether there was one. Raises ValueError once closed."""
        with self._lock:
            if not self._steps:
                return False
            value, parts = self._steps.pop()
            for box, content in reversed(parts):
                labels = np.frombuffer(zlib.decompress(content), self.dtype)
                self._sink.write(box, labels.reshape(box.shape))
            self._strokes[value] -= 1
            return True

    def report(self) -> dict[str, Any]:
        """Compare the copy with the mask, slab by slab.

        Gives for the background and each label that was painted, or has other voxels: the voxels that were added and
        removed, the number of strokes, and the time of the latest one.
        """
        added: Counter[int] = Counter()
        removed: Counter[int] = Counter()
        for box in slabs(self.grid, self.slowest_axis):
            before, after = self._original.read(box)[0], self.read(box)[0]
            differs = before != after
            for counts, values in ((added, after[differs]), (removed, before[differs])):
                for value, number in zip(*np.unique(values, return_counts=True), strict=True):
                    counts[int(value)] += int(number)
        touched = [v for v in (0, *self._table.values) if self._strokes[v] or added[v] or removed[v]]
        return {
            "voxels": added.total(),
            "labels": [
                {
                    "value": value,
                    "name": self._table.name_of(value),
                    "added": added[value],
                    "removed": removed[value],
                    "strokes": self._strokes[value],
                    "time": self._times[value].isoformat(timespec="seconds") if value in self._times else None,
                }
                for value in touched
            ],
        }

    def _kept_bytes(self) -> int:
        return sum(len(content) for _, parts in self._steps for _, content in parts)
