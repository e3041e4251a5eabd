"""Postprocessing of a label map, as a model card asks for it, on labels that are streamed slab by slab.

Every step reads the label map twice: to find components, and to change those that it selects. Components are those of
the whole map, whatever the slabs. Steps do not depend on the order of the map's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Grid, unit_factor
from .components import ComponentFinder, Components, Connectivity, Mask, Selection

Labels = NDArray[np.unsignedinteger[Any]]
# Volumes differ by rounding between the orders of a grid's axes.
_SAME_VOLUME = 1e-9


@dataclass(frozen=True)
class KeepLargest:
    """Keep the largest 26-connected component of the listed labels together; the others become background.

    Components of equal size are all kept, as nnU-Net keeps them.
    """

    labels: tuple[int, ...]

    name: ClassVar = "keep_largest"
    connectivity: ClassVar[Connectivity] = 26

    def masks(self, labels: Labels) -> Iterable[Mask]:
        """Return the masks whose components the step looks at."""
        return [np.isin(labels, self.labels)]

    def chosen(self, components: Components, grid: Grid) -> Mask:  # noqa: ARG002 - as RemoveSmall
        """Return the components that are changed."""
        chosen: Mask = components.voxels < components.voxels.max(initial=0)
        return chosen

    def change(self, labels: Labels, selected: Sequence[Mask]) -> None:
        """Change labels in place, given the selected voxels of each mask."""
        labels[selected[0]] = 0


@dataclass(frozen=True)
class RemoveSmall:
    """Remove the 26-connected components of each listed label that are smaller than ``volume`` (in ``unit`` cubed)."""

    labels: tuple[int, ...]
    volume: float
    unit: Literal["mm", "um"]

    name: ClassVar = "remove_small"
    connectivity: ClassVar[Connectivity] = 26

    def masks(self, labels: Labels) -> Iterable[Mask]:
        """See KeepLargest."""
        return (labels == value for value in self.labels)

    def chosen(self, components: Components, grid: Grid) -> Mask:
        """See KeepLargest."""
        voxel = grid.voxel_volume * unit_factor(grid.unit, self.unit) ** 3
        chosen: Mask = components.voxels * voxel < self.volume * (1 - _SAME_VOLUME)
        return chosen

    def change(self, labels: Labels, selected: Sequence[Mask]) -> None:
        """See KeepLargest."""
        for mask in selected:
            labels[mask] = 0


@dataclass(frozen=True)
class FillHoles:
    """Give each listed label the background that it encloses: no 6-connected path without the label leaves the volume.

    Voxels of other labels that are enclosed keep theirs. Of several labels around a voxel, the first listed takes it.
    """

    labels: tuple[int, ...]

    name: ClassVar = "fill_holes"
    connectivity: ClassVar[Connectivity] = 6

    def masks(self, labels: Labels) -> Iterable[Mask]:
        """See KeepLargest."""
        return (labels != value for value in self.labels)

    def chosen(self, components: Components, grid: Grid) -> Mask:  # noqa: ARG002 - as RemoveSmall
        """See KeepLargest."""
        return ~components.at_border

    def change(self, labels: Labels, selected: Sequence[Mask]) -> None:
        """See KeepLargest."""
        for value, mask in zip(self.labels, selected, strict=True):
            labels[mask & (labels == 0)] = value


Postprocessing = KeepLargest | RemoveSmall | FillHoles


@dataclass(frozen=True)
class Changed:
    """The voxels that a step changed, and the components that they belong to."""

    step: str
    labels: tuple[int, ...]
    components: int
    voxels: int


def postprocess(
    steps: Sequence[Postprocessing],
    grid: Grid,
    slabs: Sequence[Box],
    *,
    axis: int,
    read: Callable[[Box], Labels],
    write: Callable[[Box, Labels], object],
    on_slab: Callable[[], object] = lambda: None,
) -> tuple[Changed, ...]:
    """Apply the steps in order to a label map on ``grid``, and return what each changed.

    Args:
        steps: of the card.
        grid: of the label map.
        slabs: boxes of whole planes that cover the grid in order along ``axis``.
        axis: of the slabs.
        read: returns the labels ``(x, y, z)`` in a slab.
        write: replaces the labels of a slab; called only for slabs that change.
        on_slab: called after each slab of each pass, twice a step at most.
    """
    changes = []
    for step in steps:
        finders = [ComponentFinder(axis, step.connectivity) for _ in step.masks(np.zeros((0, 0, 0), np.uint8))]
        for box in slabs:
            for finder, mask in zip(finders, step.masks(read(box)), strict=True):
                finder.add(mask)
            on_slab()
        found = [finder.result() for finder in finders]
        chosen = [step.chosen(components, grid) for components in found]
        voxels = 0
        if any(flags.any() for flags in chosen):
            selections = [c.selection(flags) for c, flags in zip(found, chosen, strict=True)]
            for box in slabs:
                voxels += _change(step, selections, box, read, write)
                on_slab()
        changes.append(Changed(step.name, step.labels, sum(int(flags.sum()) for flags in chosen), voxels))
    return tuple(changes)


def _change(
    step: Postprocessing,
    selections: Sequence[Selection],
    box: Box,
    read: Callable[[Box], Labels],
    write: Callable[[Box, Labels], object],
) -> int:
    """Change one slab and return the number of voxels that changed."""
    labels = read(box)
    changed = labels.copy(order="K")
    step.change(changed, [s.add(mask) for s, mask in zip(selections, step.masks(labels), strict=True)])
    voxels = int(np.count_nonzero(changed != labels))
    if voxels:
        write(box, changed)
    return voxels
