"""Headers of new volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from ....domain.geometry.grid import Grid
from .header import UNIT_BITS

_LARGEST_NIFTI1_EDGE = 2**15 - 1
# Copied raw, so that no bit of the input's affines changes. The intent belongs to the input's values and is not copied.
_KEPT_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class NewHeader:
    """The header of a new volume, in native byte order and without scaling."""

    fields: Nifti1Header
    grid: Grid
    channels: int
    dtype: np.dtype[Any]

    @property
    def data_bytes(self) -> int:
        return self.grid.voxel_count * self.channels * self.dtype.itemsize

    def block(self, *, is_pair: bool) -> bytes:
        """Return the header's bytes: up to the first voxel of a single file, or as the .hdr of a pair."""
        fields = self.fields.copy()
        # Four zero bytes after the header: no extensions.
        size = int(fields["sizeof_hdr"]) + 4
        fields["magic"] = fields.pair_magic if is_pair else fields.single_magic
        fields["vox_offset"] = 0 if is_pair else size
        return bytes(fields.binaryblock).ljust(size, b"\0")


def new_header(grid: Grid, dtype: np.dtype[Any], channels: int, like: Nifti1Header | None) -> NewHeader:
    """Build the header of ``channels`` of ``dtype`` on ``grid``, with the affines of ``like`` if given.

    Raises:
        ValueError: not an integer type, float32 or float64.
    """
    native = dtype.newbyteorder("=")
    if native.kind not in "iuf" or native.itemsize > 8 or native == np.float16:
        raise ValueError(f"dtype: expected an integer type, float32 or float64, got {dtype}")
    edges = grid.shape if channels == 1 else (*grid.shape, channels)
    is_second = isinstance(like, Nifti2Header) or max(edges) > _LARGEST_NIFTI1_EDGE
    if like is None and not is_second:
        is_second = not _fits_single_precision(grid)
    fields: Nifti1Header = (Nifti2Header if is_second else Nifti1Header)()
    fields.set_data_shape(edges)
    fields.set_data_dtype(native)
    fields["scl_slope"], fields["scl_inter"] = np.nan, np.nan
    fields["descrip"] = b"voxport"
    if like is None:
        fields["pixdim"][1:4] = grid.spacing
        fields.set_sform(grid.affine, code="aligned")
        fields.set_xyzt_units("micron" if grid.unit == "um" else grid.unit)
    else:
        for name in _KEPT_FIELDS:
            fields[name] = like[name]
        fields["pixdim"][:4] = like["pixdim"][:4]
        fields["xyzt_units"] = int(like["xyzt_units"]) & UNIT_BITS
    return NewHeader(fields, grid, channels, native)


def _fits_single_precision(grid: Grid) -> bool:
    """Return whether the affine, rounded to float32, moves every voxel by less than 1e-3 voxels."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = grid.affine.astype(np.float32).astype(np.float64)
    try:
        return Grid(grid.shape, rounded, grid.unit).same_space(grid)
    except ValueError:
        return False
