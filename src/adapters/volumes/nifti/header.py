"""Checked values of a NIfTI header.

Field names and codes: https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and nifti-2 (nifti2.h).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ....domain.errors import InputError, VoxportError
from ....domain.geometry.grid import FloatArray, Grid
from ....domain.reading import LONGEST, SHORTEST, Reading
from ....domain.stored_array import StoredArray
from .quads import doubles, quad_dtype

HEADER_BYTES = 540  # of NIfTI-2, the longer of the two; NIfTI-1 takes 348
_NIFTI1_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")  # 348, little- and big-endian
UNIT_BITS = 0x07
_DAMAGED = "write the file again: its header is damaged"
_UNITS = {0: "unknown", 2: "mm", 3: "um"}
_METRE = 1
_QUATERNION_ROUNDING = 1e-4
_FLOAT128 = 1536
# Meaning of the axes by their number (nifti1.h: dim[4] is time, dim[5] are components); of four, the last are channels.
_AXES = {2: "XY", 3: "XYZ", 4: "XYZC", 5: "XYZTC"}


@dataclass(frozen=True)
class Header:
    """A header that can be used.

    ``fields`` are the raw fields; ``array`` is what they state of the voxels, x first; ``stored`` is the type in the
    file, in its byte order; ``dtype`` is the type once ``slope`` and ``inter`` are applied; ``offset`` counts bytes
    before the first voxel in the file that holds them.
    """

    fields: Nifti1Header
    array: StoredArray
    stored: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    is_pair: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def grid(self) -> Grid | None:
        """The grid that the header states by itself; None where it leaves something open."""
        try:
            return self.array.view(Reading(timepoint=0), "volume").grid
        except VoxportError:
            return None

    @property
    def value_count(self) -> int:
        return math.prod(self.array.shape)

    @property
    def end(self) -> int:
        """Bytes up to and including the last voxel, in the file that holds the voxels."""
        return self.offset + self.value_count * self.stored.itemsize

    def scaled(self, stored: NDArray[Any], order: Literal["K", "F"] = "K") -> NDArray[Any]:
        """Return a copy of stored values in ``dtype``, by slope and intercept; what overflows becomes Inf."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = doubles(stored) if self.stored.kind == "V" else np.array(stored, dtype=self.dtype, order=order)
            if (self.slope, self.inter) != (1.0, 0.0):
                values *= self.dtype.type(self.slope)
                values += self.dtype.type(self.inter)
        return values


@dataclass(frozen=True)
class _Place:
    """What a header states of the place in space: see StoredArray."""

    affine: FloatArray | None
    source: str
    unstated: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_header(block: bytes) -> bool:
    """Return whether a file that starts with ``block`` is a NIfTI header."""
    return _recognised(block) is not None


def read_header(block: bytes, subject: str, reading: Reading | None = None) -> Header:
    """Read the first ``HEADER_BYTES`` of a file, or all of a shorter one.

    Raises:
        InputError: not a NIfTI header, or that of a volume that cannot be segmented; for one without directions, unless
            ``reading`` states the voxel sizes.
    """
    found = _recognised(block)
    if found is None:
        raise _not_nifti(block, subject)
    kind, order, is_pair = found
    fields = kind(block[: kind.template_dtype.itemsize], order, check=False)
    shape = _shape(fields, subject)
    stored = _stored_dtype(fields, order, subject)
    place = _place(fields, len(shape), subject, is_sized=reading is not None and reading.spacing is not None)
    unit, unit_notes = _read_unit(fields, subject)
    slope, inter = _scaling(fields, subject)
    native = np.dtype(np.float64) if stored.kind == "V" else stored.newbyteorder("=")
    quad_notes = ("values of 128 bits are read as 64 bits",) if stored.kind == "V" else ()
    array = StoredArray(
        shape,
        native if (slope, inter) == (1.0, 0.0) else _scaled_dtype(native, slope, inter),
        _AXES[len(shape)],
        spacing=dict.fromkeys(place.unstated, math.nan),
        unit=unit,
        sources=dict.fromkeys("XYZ", place.source),
        affine=place.affine,
        chunk=(*shape[:2], *(1 for _ in shape[2:])),
        conflicts=place.conflicts,
        notes=(*unit_notes, *place.notes, *quad_notes),
    )
    return Header(fields, array, stored, slope, inter, _offset(fields, is_pair, subject), is_pair)


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


def _shape(fields: Nifti1Header, subject: str) -> tuple[int, ...]:
    """Return two to five edges: x, y, z, time and components, as nifti1.h has them; of four, the last are channels."""
    count = int(fields["dim"][0])
    edges = [int(edge) for edge in fields["dim"][1 : 1 + max(0, count)]]
    text = " x ".join(map(str, edges))
    if not 1 <= count <= 7 or min(edges) < 1:
        got = f"dim = {count}: {text or 'none'}"
        raise InputError(subject, expected="1 to 7 dimensions of at least one voxel each", got=got, do=_DAMAGED)
    while len(edges) > 3 and edges[-1] == 1:
        edges.pop()
    if len(edges) not in _AXES:
        raise InputError(
            subject,
            expected="a volume of 2 to 5 dimensions: x, y, z, time and channels",
            got=f"{len(edges)}-D ({text})",
            do="stack lines into a volume" if len(edges) < 2 else "split it into 3-D or 4-D volumes",
        )
    return tuple(edges)


def _stored_dtype(fields: Nifti1Header, order: Literal["<", ">"], subject: str) -> np.dtype[Any]:
    code = int(fields["datatype"])
    if code == _FLOAT128:
        return quad_dtype(order)
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


def _place(fields: Nifti1Header, count: int, subject: str, *, is_sized: bool) -> _Place:
    """Return the sform if it has a code, else the qform.

    Raises InputError: not finite, or singular; neither, unless the user states the voxel sizes (``is_sized``).
    """
    zooms = [float(zoom) for zoom in fields["pixdim"][1:4]]
    bad = [at for at, zoom in enumerate(zooms) if not (math.isfinite(zoom) and zoom > 0)]
    if fields["sform_code"] > 0:
        return _sform(fields, count, zooms[:count], subject, agree=not any(at < count for at in bad))
    if fields["qform_code"] > 0:
        readable = fields.copy()
        for at in bad:
            readable["pixdim"][1 + at] = 1
        affine = _usable(_qform(readable), "qform", subject)
        return _Place(affine, "pixdim" if bad else "qform", tuple("XYZ"[at] for at in bad))
    if not is_sized:
        raise InputError(
            subject,
            expected="an orientation",
            got="a header with no qform and no sform",
            do="set one, e.g. with nibabel (img.set_sform) or fslorient, once you know which way the axes run; "
            "or give `spacing` and `unit`, which takes them as right, anterior and superior",
        )
    return _Place(None, "pixdim", notes=("the header states no directions: its axes are right, anterior and superior",))


def _sform(fields: Nifti1Header, count: int, zooms: Sequence[float], subject: str, *, agree: bool) -> _Place:
    """Return the sform. Voxel sizes in pixdim that are none (not ``agree``) are a conflict with it."""
    affine = np.asarray(fields.get_sform(), np.float64)
    is_flat = count == 2 and not affine[:3, 2].any()  # an image without a third axis
    if is_flat:
        with np.errstate(all="ignore"):
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / np.linalg.norm(normal)
    affine = _usable(affine, "sform", subject)
    unstated = ("Z",) if is_flat else ()
    if agree:
        return _Place(affine, "sform", unstated, notes=_disagreement(fields, affine, zooms))
    sizes, lengths = (" x ".join(f"{edge:g}" for edge in edges) for edges in (zooms, _lengths(affine)))
    return _Place(affine, "sform", unstated, (f"voxel sizes of {sizes} (pixdim)", f"of {lengths} (sform)"))


def _lengths(affine: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def _usable(affine: FloatArray | None, name: str, subject: str) -> FloatArray:
    """Return an affine that is finite and invertible. Raises InputError."""
    do = f"correct the header's {name}"
    if affine is None or not np.all(np.isfinite(affine)):
        got = "values that are not finite" if affine is not None else "a quaternion that is no rotation"
        raise InputError(subject, expected=f"a finite {name}", got=got, do=do)
    lengths = _lengths(affine)
    in_range = lengths.min() >= SHORTEST and lengths.max() <= LONGEST
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


def _disagreement(fields: Nifti1Header, affine: FloatArray, zooms: Sequence[float]) -> tuple[str, ...]:
    """Return a note if qform or pixdim differ from the sform used, by 1e-3 voxels or 1e-3 of a voxel size."""
    spacing = _lengths(affine)
    if fields["qform_code"] <= 0:
        if np.allclose(zooms, spacing[: len(zooms)], rtol=1e-3, atol=0):
            return ()
        stated, used = (" x ".join(f"{length:.4g}" for length in lengths) for lengths in (zooms, spacing))
        return (f"voxel sizes are {stated} by pixdim and {used} by the sform; the sform is used",)
    other = _qform(fields)
    if other is None or not np.all(np.isfinite(other)):
        return ("the qform is unreadable; the sform is used",)
    edges = [int(edge) for edge in fields["dim"][1:4]]
    corners = np.array(list(product(*((0, edge - 1) for edge in edges))), dtype=np.float64)
    with np.errstate(all="ignore"):
        apart = affine - other  # not of two grids, because the qform may be singular
        distances = np.linalg.norm(corners @ apart[:3, :3].T + apart[:3, 3], axis=1)
    voxels = float(distances.max()) / min(spacing)
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
