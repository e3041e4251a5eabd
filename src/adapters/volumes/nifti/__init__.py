"""NIfTI volumes on disk: NIfTI-1 and -2, single files and .hdr/.img pairs, compressed or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.errors import InputError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....ports.volume_store import VolumeSource
from ...disk import scratch_folder
from ...spool import check_new_volume
from .files import NAMES
from .header import is_header
from .sink import NiftiSink, new_header
from .source import NiftiSource, files_of, open_source, volume_of_image

__all__ = ["NiftiStore", "volume_of_image"]


class NiftiStore:
    """Volumes as NIfTI files; a reference is a path.

    Read: NIfTI-1 and -2, ``.nii``, ``.nii.gz`` and ``.hdr``/``.img`` pairs (either name), any byte order, every real
    voxel type; 4-D volumes have their last axis as channels. Content decides, not the name.
    Written: ``.nii``, ``.nii.gz`` (the same bytes for the same volume) and pairs.

    Args:
        scratch: folder for inflated copies of compressed volumes; they have no name and vanish when closed.
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = NAMES

    def __init__(self, scratch: Path | None = None, max_voxels: int = 2**33) -> None:
        self._scratch = scratch
        self.max_voxels = max_voxels

    def recognises(self, reference: str) -> bool:
        """Return whether a file holds a NIfTI header, or the voxels of a pair, by its content."""
        path = Path(reference)
        try:
            with ExitStack() as stack:
                _, block = files_of(path, path.name or reference, stack)
        except InputError:
            return False
        return is_header(block)

    def places(self, reference: str) -> tuple[str, ...]:
        """Return the real paths of a volume's files; for a pair, in any case of letters that is read or written."""
        return tuple(dict.fromkeys(os.path.realpath(path) for path in NAMES.files(reference)))

    def open(self, reference: str, reading: Reading | None = None) -> NiftiSource:
        """Open a volume for reading; see VolumeStore.open. Raises LimitError also without space to inflate it."""
        scratch = scratch_folder(self._scratch)
        return open_source(Path(reference), scratch, self.max_voxels, reading or Reading())

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,  # noqa: ARG002 - the format has no place for names and colours
    ) -> NiftiSink:
        """Begin a volume filled with zeros; see VolumeStore.create.

        The header's sform, qform, codes and unit are those of ``like``; without it, or where it comes from another
        store, the affine becomes an sform of code 2 (aligned). Names and labels are not stored.
        """
        check_new_volume(grid, channels, channel_names, like)
        known = like.header.fields if isinstance(like, NiftiSource) and like.header.grid == grid else None
        return NiftiSink(Path(reference), new_header(grid, np.dtype(dtype), channels, known))
