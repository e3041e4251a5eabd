"""DICOM images on disk: a series in a folder or zip, or one file; label maps as DICOM segmentations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.volume_names import DICOM, VolumeNames
from ....ports.volume_store import VolumeSource
from ...disk import scratch_folder
from ...spool import SpooledSink, check_new_volume
from .files import recognised
from .segmentation import new_segmentation
from .source import DicomSource, open_source

__all__ = ["DicomSource", "DicomStore"]


class DicomStore:
    """Volumes as DICOM images; a reference is a path.

    Read: a folder, at any depth, or a zip of one, with one or several series; one file, of one frame or several. Other
    files in a folder are ignored. A file of one frame is a volume of one slice: the folder is the series.
    Written: DICOM segmentations (label maps) that refer to the series they were made from.

    Args:
        scratch: folder for the unpacked files of a zip; they have no name and vanish when closed.
        max_voxels: the most voxels that a volume may have to be opened.
    """

    names = VolumeNames((DICOM,))

    def __init__(self, scratch: Path | None = None, max_voxels: int = 2**33) -> None:
        self._scratch = scratch
        self.max_voxels = max_voxels

    def recognises(self, reference: str) -> bool:
        """Return whether a path is a DICOM file, a folder with one in it (not deeper), or a zip with one."""
        return recognised(Path(reference))

    def places(self, reference: str) -> tuple[str, ...]:
        return (os.path.realpath(reference),)

    def open(self, reference: str, reading: Reading | None = None) -> DicomSource:
        """Open a volume for reading; see VolumeStore.open. Raises LimitError also without space to unpack a zip."""
        return open_source(Path(reference), scratch_folder(self._scratch), self.max_voxels, reading or Reading())

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> SpooledSink:
        """Begin a DICOM segmentation; see VolumeStore.create.

        Raises:
            OutputError: ``like`` is no DICOM series, or the volume is no label map of at most 16 bits.
        """
        check_new_volume(grid, channels, channel_names, like)
        return new_segmentation(Path(reference), grid, np.dtype(dtype), channels, like, labels)
