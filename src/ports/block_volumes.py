"""Volumes that several processes write, each of them other chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..domain.geometry.grid import Grid, Shape3
from ..domain.labels.label_map import LabelTable
from .volume_store import VolumeSink, VolumeSource


class BlockVolumes(Protocol):
    """Volumes in the making in a folder, under a name in it, that any process opens."""

    @property
    def chunk(self) -> Shape3:
        """Shape (x, y, z) of the chunks. Processes may write boxes of whole chunks at the same time."""

    def publishes(self, reference: str) -> bool:
        """Return whether a volume can be made under this reference without another copy."""

    def begin(
        self,
        folder: str,
        name: str,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> None:
        """Begin a volume of zeros, in place of an earlier one, to be published under a reference.

        The rest is as in VolumeStore.create. Raises OutputError.
        """

    def open(self, folder: str, name: str, reference: str, grid: Grid) -> VolumeSink:
        """Open a volume that was begun with the same arguments. ``commit`` takes it out of the folder.

        Raises:
            OutputError: there is none.
        """

    def discard(self, folder: str) -> None:
        """Delete the folder with all that is in it. Raises OutputError."""
