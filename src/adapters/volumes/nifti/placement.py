"""Where a NIfTI header puts its voxels: sform, qform and unit, checked.

The rules are those of https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h, "3D image orientation".
"""

from __future__ import annotations

from itertools import product

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

from ....domain.errors import InputError
from ....domain.geometry.grid import FloatArray, Grid

UNIT_BITS = 0x07
_UNITS = {0: "unknown", 2: "mm", 3: "um"}
_METRE = 1
# Beyond these an axis counts as having no length, or no end; squares still fit double precision.
_SPACING_RANGE = (1e-12, 1e12)


def read_affine(fields: Nifti1Header, subject: str) -> FloatArray:
    """The sform if it has a code, else the qform. InputError: neither, not finite, or singular."""
    affine: FloatArray | None
    if fields["sform_code"] > 0:
        name, affine = "sform", _sform(fields)
    elif fields["qform_code"] > 0:
        name, affine = "qform", _qform(fields)
    else:
        raise InputError(
            subject,
            expected="an orientation",
            got="a header with no qform and no sform",
            do="set one, e.g. with nibabel (img.set_sform) or fslorient, once you know which way the axes run",
        )
    if affine is None or not np.all(np.isfinite(affine)):
        raise InputError(
            subject,
            expected=f"a finite {name}",
            got="values that are not finite" if affine is not None else "a quaternion that is no rotation",
            do=f"correct the header's {name}",
        )
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    in_range = _SPACING_RANGE[0] <= lengths.min() and lengths.max() <= _SPACING_RANGE[1]
    if not in_range or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(
            subject,
            expected=f"an invertible {name}",
            got="a singular one: two of its axes coincide, or one has no length",
            do=f"correct the header's {name}",
        )
    return affine


def _sform(fields: Nifti1Header) -> FloatArray:
    rows = [np.asarray(fields[name], dtype=np.float64) for name in ("srow_x", "srow_y", "srow_z")]
    return np.array([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(fields: Nifti1Header) -> FloatArray | None:
    """The affine of the quaternion; None if there is no such rotation."""
    readable = fields.copy()
    # nifti1.h: "if pixdim[0] is 0 (which should not occur), treat it as 1".
    if readable["pixdim"][0] != -1:
        readable["pixdim"][0] = 1
    try:
        with np.errstate(all="ignore"):
            return np.asarray(readable.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None


def disagreement(fields: Nifti1Header, grid: Grid) -> tuple[str, ...]:
    """A note if sform and qform both have a code and put a voxel of ``grid`` more than 1e-3 voxels apart."""
    if fields["sform_code"] <= 0 or fields["qform_code"] <= 0:
        return ()
    other = _qform(fields)
    if other is None or not np.all(np.isfinite(other)):
        return ("the qform is unreadable; the sform is used",)
    corners = np.array(list(product(*((0, edge - 1) for edge in grid.shape))), dtype=np.float64)
    with np.errstate(all="ignore"):
        apart = grid.affine - other
        distances = np.linalg.norm(corners @ apart[:3, :3].T + apart[:3, 3], axis=1)
    voxels = float(distances.max()) / min(grid.spacing)
    return (f"sform and qform disagree by {voxels:.3g} voxels; the sform is used",) if voxels > 1e-3 else ()


def read_unit(fields: Nifti1Header, subject: str) -> tuple[str, tuple[str, ...]]:
    """The unit of lengths, and notes on it. InputError: metres, which no grid here is in."""
    code = int(fields["xyzt_units"]) & UNIT_BITS
    if code == _METRE:
        raise InputError(
            subject,
            expected="lengths in mm or um",
            got="metres",
            do="convert its affine and voxel sizes to mm and set xyzt_units",
        )
    if code not in _UNITS:
        return "unknown", (f"the header's spatial unit has the unknown code {code}",)
    return _UNITS[code], ()
