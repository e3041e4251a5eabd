"""The header of a volume that is about to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from ....domain.geometry.grid import Grid
from .header import UNIT_BITS

_UNIT_CODES = {"unknown": 0, "mm": 2, "um": 3}
_ALIGNED = 2
_LARGEST_NIFTI1_EDGE = 2**15 - 1
# Copied raw, so that no bit of the input's place in the world changes. Its intent is not: it is of its values.
_KEPT_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class NewHeader:
    """The fields of a new volume, and what they mean; in native byte order and never scaled."""

    fields: Nifti1Header
    grid: Grid
    channels: int
    dtype: np.dtype[Any]

    @property
    def data_bytes(self) -> int:
        """Bytes of all voxels."""
        return self.grid.voxel_count * self.channels * self.dtype.itemsize

    def block(self, *, is_pair: bool) -> bytes:
        """The header's bytes: up to the first voxel of a single file, or as the .hdr of a pair."""
        fields = self.fields.copy()
        is_second = isinstance(fields, Nifti2Header)
        # Four zero bytes after the header: no extensions.
        size = int(fields["sizeof_hdr"]) + 4
        letter = b"i" if is_pair else b"+"
        fields["magic"] = b"n" + letter + (b"2\0\r\n\x1a\n" if is_second else b"1")
        fields["vox_offset"] = 0 if is_pair else size
        return bytes(fields.binaryblock).ljust(size, b"\0")


def new_header(grid: Grid, dtype: np.dtype[Any], channels: int, like: Nifti1Header | None) -> NewHeader:
    """A header for ``channels`` of ``dtype`` on ``grid``, placed as ``like`` is. ValueError for other dtypes."""
    native = dtype.newbyteorder("=")
    if native.kind not in "iuf" or native.itemsize > 8 or native == np.float16:
        raise ValueError(f"dtype: expected an integer type, float32 or float64, got {dtype}")
    edges = grid.shape if channels == 1 else (*grid.shape, channels)
    is_second = isinstance(like, Nifti2Header) or max(edges) > _LARGEST_NIFTI1_EDGE
    if like is None and not is_second:
        is_second = not _fits_single_precision(grid)
    fields: Nifti1Header = (Nifti2Header if is_second else Nifti1Header)()
    fields["dim"] = [len(edges), *edges, *[1] * (7 - len(edges))]
    fields.set_data_dtype(native)
    fields["scl_slope"], fields["scl_inter"] = np.nan, np.nan
    fields["descrip"] = b"voxport"
    if like is None:
        _place(fields, grid)
    else:
        for name in _KEPT_FIELDS:
            fields[name] = like[name]
        fields["pixdim"][:4] = like["pixdim"][:4]
        fields["xyzt_units"] = int(like["xyzt_units"]) & UNIT_BITS
    return NewHeader(fields, grid, channels, native)


def _place(fields: Nifti1Header, grid: Grid) -> None:
    fields["pixdim"][1:4] = grid.spacing
    fields["sform_code"] = _ALIGNED
    for name, row in zip(("srow_x", "srow_y", "srow_z"), grid.affine, strict=False):
        fields[name] = row
    fields["xyzt_units"] = _UNIT_CODES[grid.unit]


def _fits_single_precision(grid: Grid) -> bool:
    """Whether the affine, rounded as NIfTI-1 holds it, still puts every voxel within 1e-3 of its place."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = grid.affine.astype(np.float32).astype(np.float64)
    try:
        return Grid(grid.shape, rounded, grid.unit).same_space(grid)
    except ValueError:
        return False
