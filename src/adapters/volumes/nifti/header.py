"""Checked values of a NIfTI header.

Field names and codes: https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and nifti-2 (nifti2.h).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.geometry.grid import FloatArray, Grid, shape3

HEADER_BYTES = 540  # of NIfTI-2, the longer of the two; NIfTI-1 takes 348
_NIFTI1_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")  # 348, little- and big-endian
UNIT_BITS = 0x07
_DAMAGED = "write the file again: its header is damaged"
_UNITS = {0: "unknown", 2: "mm", 3: "um"}
_METRE = 1
_QUATERNION_ROUNDING = 1e-4
# Beyond these an axis counts as having no length, or no end; squares still fit double precision.
_SPACING_RANGE = (1e-12, 1e12)


@dataclass(frozen=True)
class Header:
    """A header that can be used.

    ``fields`` are the raw fields; ``stored`` is the type in the file, in its byte order; ``dtype`` is the type once
    ``slope`` and ``inter`` are applied; ``offset`` counts bytes before the first voxel in the file that holds them.
    """

    fields: Nifti1Header
    grid: Grid
    channels: int
    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    is_pair: bool
    notes: tuple[str, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the stored array, x first."""
        return self.grid.shape if self.channels == 1 else (*self.grid.shape, self.channels)

    @property
    def value_count(self) -> int:
        return self.grid.voxel_count * self.channels

    @property
    def end(self) -> int:
        """Bytes up to and including the last voxel, in the file that holds the voxels."""
        return self.offset + self.value_count * self.stored.itemsize

    def scaled(self, stored: NDArray[Any], order: Literal["K", "F"] = "K") -> NDArray[Any]:
        """Return a copy of stored values in ``dtype``, by slope and intercept; what overflows becomes Inf."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(stored, dtype=self.dtype, order=order)
            if (self.slope, self.inter) != (1.0, 0.0):
                values *= self.dtype.type(self.slope)
                values += self.dtype.type(self.inter)
        return values


def is_header(block: bytes) -> bool:
    """Return whether a file that starts with ``block`` is a NIfTI header."""
    return _recognised(block) is not None


def read_header(block: bytes, subject: str) -> Header:
    """Read the first ``HEADER_BYTES`` of a file, or all of a shorter one.

    Raises:
        InputError: not a NIfTI header, or that of a volume that cannot be segmented.
    """
    found = _recognised(block)
    if found is None:
        raise _not_nifti(block, subject)
    kind, order, is_pair = found
    fields = kind(block[: kind.template_dtype.itemsize], order, check=False)
    shape, channels = _shape(fields, subject)
    stored = _stored_dtype(fields, subject)
    _check_zooms(fields, subject)
    affine = _read_affine(fields, subject)
    unit, unit_notes = _read_unit(fields, subject)
    grid = Grid(shape3(shape), affine, unit)
    slope, inter = _scaling(fields, subject)
    native = stored.newbyteorder("=")
    return Header(
        fields=fields,
        grid=grid,
        channels=channels,
        stored=stored,
        dtype=native if (slope, inter) == (1.0, 0.0) else _scaled_dtype(native, slope, inter),
        slope=slope,
        inter=inter,
        offset=_offset(fields, is_pair, subject),
        is_pair=is_pair,
        notes=(*unit_notes, *_disagreement(fields, grid)),
    )


def _recognised(block: bytes) -> tuple[type[Nifti1Header], Literal["<", ">"], bool] | None:
    """Return header class, byte order and whether the voxels are in a second file; None for other content."""
    for kind, size, at, single, pair in (
        (Nifti1Header, 348, 344, b"n+1\0", b"ni1\0"),
        (Nifti2Header, 540, 4, b"n+2\0", b"ni2\0"),
    ):
        magic = block[at : at + 4]
        if len(block) < size or magic not in (single, pair):
            continue
        if block[:4] == size.to_bytes(4, "little"):
            return kind, "<", magic == pair
        if block[:4] == size.to_bytes(4, "big"):
            return kind, ">", magic == pair
    return None


def _not_nifti(block: bytes, subject: str) -> InputError:
    got, do = f"something else (it starts with {block[:4].hex(' ')})", "name a volume, or convert it to NIfTI"
    if not block:
        got, do = "an empty file", "write or copy it again"
    elif block[:4] in _NIFTI1_SIZES and len(block) < 348:
        got, do = f"a header cut short after {len(block)} bytes", "write or copy it again"
    elif block[:4] in _NIFTI1_SIZES:
        got = "an Analyze 7.5 header, which does not state the orientation"
        do = "once you know which way its axes run, convert it with nibabel: i = nibabel.load(FILE); "
        do += "nibabel.save(nibabel.Nifti1Image(i.dataobj, AFFINE), NEW_FILE)"
    elif all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in block):
        got = "text"
    return InputError(subject, expected="a NIfTI-1 or NIfTI-2 volume", got=got, do=do)


def _shape(fields: Nifti1Header, subject: str) -> tuple[tuple[int, ...], int]:
    count = int(fields["dim"][0])
    edges = [int(edge) for edge in fields["dim"][1 : 1 + max(0, count)]]
    text = " x ".join(map(str, edges))
    if not 1 <= count <= 7 or min(edges) < 1:
        got = f"dim = {count}: {text or 'none'}"
        raise InputError(subject, expected="1 to 7 dimensions of at least one voxel each", got=got, do=_DAMAGED)
    while len(edges) > 3 and edges[-1] == 1:
        edges.pop()
    if len(edges) not in (3, 4):
        raise InputError(
            subject,
            expected="a 3-D volume, or a 4-D one whose last axis is the channel",
            got=f"{len(edges)}-D ({text})",
            do="stack 2-D slices into a volume" if len(edges) < 3 else "split it into 3-D or 4-D volumes",
        )
    return tuple(edges[:3]), edges[3] if len(edges) == 4 else 1


def _stored_dtype(fields: Nifti1Header, subject: str) -> np.dtype[Any]:
    code = int(fields["datatype"])
    known = code in data_type_codes
    dtype: np.dtype[Any] = fields.get_data_dtype() if known else np.dtype(np.void)
    if dtype.kind not in "iuf":
        raise InputError(
            subject,
            expected="one real number a voxel (an integer or floating-point type)",
            got=f"the voxel type {data_type_codes.label[code] if known else f'with the unknown code {code}'}",
            do="convert it to a real type, e.g. one file for each component",
        )
    return dtype


def _check_zooms(fields: Nifti1Header, subject: str) -> None:
    zooms = [float(zoom) for zoom in fields["pixdim"][1:4]]
    if not all(math.isfinite(zoom) and zoom > 0 for zoom in zooms):
        got, do = " x ".join(f"{zoom:g}" for zoom in zooms), "correct the header's pixdim"
        raise InputError(subject, expected="three positive voxel sizes (pixdim)", got=got, do=do)


def _scaling(fields: Nifti1Header, subject: str) -> tuple[float, float]:
    """Return slope and intercept; (1, 0) where the slope is 0 (nifti1.h) or not finite."""
    try:
        slope, inter = fields.get_slope_inter()
    except HeaderDataError:
        got, do = f"{float(fields['scl_inter']):g}", "correct the header's scaling"
        raise InputError(subject, expected="a finite scl_inter beside scl_slope", got=got, do=do) from None
    return (1.0, 0.0) if slope is None else (slope, inter)


def _scaled_dtype(native: np.dtype[Any], slope: float, inter: float) -> np.dtype[Any]:
    """Return float32 where its 24 bits hold every stored value and its range the scaling; float64 otherwise."""
    single = np.finfo(np.float32)
    holds = native == np.float32 or (native.kind in "iu" and native.itemsize <= 2)
    largest = 1.0 if native.kind == "f" else float(np.iinfo(native).max) + 1
    fits = float(single.tiny) <= abs(slope) and abs(slope) * largest + abs(inter) <= float(single.max)
    return np.dtype(np.float32 if holds and fits else np.float64)


def _offset(fields: Nifti1Header, is_pair: bool, subject: str) -> int:
    offset = float(fields["vox_offset"])
    least = 0 if is_pair else int(fields["sizeof_hdr"])
    if not math.isfinite(offset) or offset != int(offset) or offset < least:
        expected = f"voxels from a whole byte of at least {least} on (vox_offset)"
        raise InputError(subject, expected=expected, got=f"{offset:g}", do=_DAMAGED)
    return int(offset)


def _read_affine(fields: Nifti1Header, subject: str) -> FloatArray:
    """Return the sform if it has a code, else the qform. Raises InputError: neither, not finite, or singular."""
    affine: FloatArray | None
    if fields["sform_code"] > 0:
        name, affine = "sform", fields.get_sform()
    elif fields["qform_code"] > 0:
        name, affine = "qform", _qform(fields)
    else:
        raise InputError(
            subject,
            expected="an orientation",
            got="a header with no qform and no sform",
            do="set one, e.g. with nibabel (img.set_sform) or fslorient, once you know which way the axes run",
        )
    do = f"correct the header's {name}"
    if affine is None or not np.all(np.isfinite(affine)):
        got = "values that are not finite" if affine is not None else "a quaternion that is no rotation"
        raise InputError(subject, expected=f"a finite {name}", got=got, do=do)
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    in_range = _SPACING_RANGE[0] <= lengths.min() and lengths.max() <= _SPACING_RANGE[1]
    if not in_range or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        got = "a singular one: two of its axes coincide, or one has no length"
        raise InputError(subject, expected=f"an invertible {name}", got=got, do=do)
    return affine


def _qform(fields: Nifti1Header) -> FloatArray | None:
    """Return the affine of the quaternion; None if it is no rotation."""
    readable = fields.copy()
    # nifti1.h: "if pixdim[0] is 0 (which should not occur), treat it as 1".
    if readable["pixdim"][0] != -1:
        readable["pixdim"][0] = 1
    names = ("quatern_b", "quatern_c", "quatern_d")
    squared = sum(float(fields[name]) ** 2 for name in names)
    # A rotation by 180 degrees that was rounded when written. A larger quaternion_threshold of nibabel's would also
    # turn smaller rotations into 180 degrees.
    if 1 < squared <= 1 + _QUATERNION_ROUNDING:
        for name in names:
            readable[name] = float(fields[name]) / math.sqrt(squared)
    try:
        with np.errstate(all="ignore"):
            return np.asarray(readable.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None


def _disagreement(fields: Nifti1Header, grid: Grid) -> tuple[str, ...]:
    """Return a note if qform or pixdim differ from the sform used, by 1e-3 voxels or 1e-3 of a voxel size."""
    if fields["sform_code"] <= 0:
        return ()
    if fields["qform_code"] <= 0:
        zooms = np.array(fields["pixdim"][1:4], dtype=np.float64)
        if np.allclose(zooms, grid.spacing, rtol=1e-3, atol=0):
            return ()
        stated, used = (" x ".join(f"{length:.4g}" for length in lengths) for lengths in (zooms, grid.spacing))
        return (f"voxel sizes are {stated} by pixdim and {used} by the sform; the sform is used",)
    other = _qform(fields)
    if other is None or not np.all(np.isfinite(other)):
        return ("the qform is unreadable; the sform is used",)
    corners = np.array(list(product(*((0, edge - 1) for edge in grid.shape))), dtype=np.float64)
    with np.errstate(all="ignore"):
        apart = grid.affine - other  # not of two grids, because the qform may be singular
        distances = np.linalg.norm(corners @ apart[:3, :3].T + apart[:3, 3], axis=1)
    voxels = float(distances.max()) / min(grid.spacing)
    return (f"sform and qform disagree by {voxels:.3g} voxels; the sform is used",) if voxels > 1e-3 else ()


def _read_unit(fields: Nifti1Header, subject: str) -> tuple[str, tuple[str, ...]]:
    """Return the unit of lengths, and notes on it. Raises InputError for metres, which no grid has."""
    code = int(fields["xyzt_units"]) & UNIT_BITS
    if code == _METRE:
        do = "convert its affine and voxel sizes to mm and set xyzt_units"
        raise InputError(subject, expected="lengths in mm or um", got="metres", do=do)
    if code not in _UNITS:
        return "unknown", (f"the header's spatial unit has the unknown code {code}",)
    return _UNITS[code], ()
