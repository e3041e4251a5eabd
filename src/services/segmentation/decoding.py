"""Decode blended logits to labels and probabilities on the stored grid."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...domain.geometry.grid import Box
from ...domain.inference.blending import Block
from ...domain.labels.label_map import Labels, Logits, Output
from ...domain.labels.uncertainty import UncertaintyScale
from ...ports.volume_store import VolumeSink
from .preparation.prepare import Prepared

_PLANES_AT_ONCE = 8


# The sinks of ``mask`` and, if requested, ``probabilities`` and ``uncertainty``, in this order.
Sinks = dict[Literal["mask", "probabilities", "uncertainty"], VolumeSink]


class Labeller:
    """Decodes blocks of logits, or of probabilities, and writes them; ``contested`` counts voxels of several labels.

    The disagreement of patches is one more channel of a block, where they overlap and there is a sink for it.
    """

    def __init__(self, prepared: Prepared, sinks: Sinks, contested: int = 0) -> None:
        self.contested = contested
        self._prepared, self._sinks = prepared, sinks
        self._back = prepared.space.reorientation.inverse()
        self._scale = UncertaintyScale(prepared.returned)
        self._decoded: list[tuple[Box, Labels]] = []

    def add(self, block: Block) -> None:
        """Add a block. Its labels may be written later, together with the next."""
        output, axis = self._prepared.returned, self._prepared.plan.axis
        logits, disagreement = block.logits[: output.channels], block.logits[output.channels :]
        if self._decoded:
            first, last = self._decoded[0][0], self._decoded[-1][0]
            too_thick = block.box.stop[axis] - first.start[axis] > _PLANES_AT_ONCE
            if too_thick or block.box != last.with_range(axis, last.stop[axis], block.box.stop[axis]):
                self.flush()
        self._decoded.append((block.box, output.labels(logits)))
        self.contested += output.contested(logits)
        stored = self._prepared.stored_box(block.box)
        if "probabilities" in self._sinks:
            self._sinks["probabilities"].write(stored, self._back.apply(output.calibrated(logits)))
        if "uncertainty" in self._sinks:
            self._sinks["uncertainty"].write(stored, self._back.apply(self._scale.of(logits, *disagreement)))

    def flush(self) -> None:
        """Write the buffered labels as one piece."""
        if self._decoded:
            axis, first, last = self._prepared.plan.axis, self._decoded[0][0], self._decoded[-1][0]
            box = first.with_range(axis, first.start[axis], last.stop[axis])
            labels = np.concatenate([labels for _, labels in self._decoded], axis=axis)
            self._sinks["mask"].write(self._prepared.stored_box(box), self._back.apply(labels))
            self._decoded = []

    def notes(self) -> tuple[str, ...]:
        """Return warnings about the finished run."""
        return contested_notes(self.contested)


def resampled_values(output: Output, logits: Logits) -> Logits:
    """Return what is resampled of logits: probabilities where the output says so; the disagreement as it is."""
    if output.resample != "probabilities":
        return logits
    return np.concatenate([output.probabilities(logits[: output.channels]), logits[output.channels :]])


def contested_notes(contested: int) -> tuple[str, ...]:
    """Return a warning about voxels of several labels, if there are some."""
    taken = "the last of these in the label table was taken"
    return (f"{contested} voxels reach the threshold for several labels; {taken}",) if contested else ()
