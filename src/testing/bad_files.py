"""Invalid NIfTI files, written byte by byte."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path

_IDENTITY_ROWS = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_UINT8, _COMPLEX64, _RGB24 = 2, 32, 128
_MM = 2


def nifti1_header(
    dim: Sequence[int] = (3, 4, 5, 6, 1, 1, 1, 1),
    *,
    datatype: int = _UINT8,
    bits: int = 8,
    pixdim: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1),
    qform_code: int = 0,
    sform_code: int = 1,
    sform_rows: Sequence[float] = _IDENTITY_ROWS,
    units: int = _MM,
    scaling: tuple[float, float] = (0.0, 0.0),
    offset: float = 352.0,
    magic: bytes = b"n+1\0",
    order: str = "<",
) -> bytes:
    """The 352 bytes before the voxels of a NIfTI-1 file; ``order`` is ``<`` (little-endian) or ``>``.

    Layout: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
    """
    block = bytearray(352)
    fields: tuple[tuple[int, str, Sequence[float]], ...] = (
        (0, "i", (348,)),
        (40, "8h", dim),
        (70, "2h", (datatype, bits)),
        (76, "8f", pixdim),
        (108, "3f", (offset, *scaling)),
        (123, "B", (units,)),
        (252, "2h", (qform_code, sform_code)),
        (280, "12f", sform_rows),
    )
    for position, layout, values in fields:
        struct.pack_into(order + layout, block, position, *values)
    block[344:348] = magic
    return bytes(block)


def bad_nifti_files(folder: Path) -> dict[str, Path]:
    """Write one file of each invalid kind to ``folder``; return the paths by fault.

    The paths of ``missing file`` and ``a folder`` are just that. Each is refused with one InputError.
    """
    voxels = bytes(range(120))
    contents = _not_volumes() | _broken_streams(voxels) | _unusable_headers(voxels)
    paths = {}
    for number, (fault, (suffix, content)) in enumerate(contents.items()):
        paths[fault] = folder / f"bad_{number:02}{suffix}"
        paths[fault].write_bytes(content)
    paths["missing file"] = folder / "missing.nii.gz"
    paths["a folder"] = folder / "folder.nii"
    paths["a folder"].mkdir(exist_ok=True)
    return paths


def _not_volumes() -> dict[str, tuple[str, bytes]]:
    text = b"Dear reader, this is no volume at all.\n" * 20
    pair = nifti1_header(magic=b"ni1\0", offset=0)
    return {
        "empty file": (".nii", b""),
        "empty file named gz": (".nii.gz", b""),
        "noise": (".nii", bytes((i * i * 31 + 7) % 256 for i in range(1000))),
        "text named gz": (".nii.gz", text),
        "compressed text": (".nii.gz", gzip.compress(text, mtime=0)),
        "PNG": (".nii", b"\x89PNG\r\n\x1a\n" + bytes(600)),
        "MGH": (".mgz", gzip.compress(struct.pack(">4i", 1, 4, 5, 6) + bytes(600), mtime=0)),
        "Analyze 7.5": (".hdr", nifti1_header(magic=b"\0\0\0\0")),
        "header alone": (".nii", nifti1_header()[:200]),
        "hdr without img": (".hdr", pair),
        "img without hdr": (".img", bytes(120)),
    }


def _broken_streams(voxels: bytes) -> dict[str, tuple[str, bytes]]:
    # Noise does not compress, so that a cut in the middle falls into the voxels.
    noise = bytes((i * i * 31 + i * 7) % 251 for i in range(16 * 16 * 16))
    stream = gzip.compress(nifti1_header((3, 16, 16, 16, 1, 1, 1, 1)) + noise, mtime=0)
    huge = nifti1_header((3, 10_000, 10_000, 10_000, 1, 1, 1, 1)) + voxels
    bomb = gzip.compress(nifti1_header() + voxels + bytes(2**25), mtime=0)
    wrong_sum = bytearray(stream)
    wrong_sum[-8] ^= 0xFF
    return {
        "truncated": (".nii", nifti1_header() + voxels[:-1]),
        "truncated gz": (".nii.gz", stream[: len(stream) // 2]),
        "gz cut in its trailer": (".nii.gz", stream[:-4]),
        "gz that holds too little": (".nii.gz", gzip.compress(nifti1_header() + voxels[:-1], mtime=0)),
        "gz with a wrong checksum": (".nii.gz", bytes(wrong_sum)),
        "gz damaged in the middle": (".nii.gz", stream[:300] + bytes(100) + stream[400:]),
        "10^12 voxels claimed": (".nii", huge),
        "10^12 voxels claimed, gz": (".nii.gz", gzip.compress(huge, mtime=0)),
        "gzip bomb": (".nii.gz", bomb),
    }


def _unusable_headers(voxels: bytes) -> dict[str, tuple[str, bytes]]:
    singular = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    headers = {
        "1-D": nifti1_header((1, 120, 1, 1, 1, 1, 1, 1)),
        "4-D with components": nifti1_header((5, 4, 5, 2, 3, 2, 1, 1)),
        "6-D": nifti1_header((6, 4, 5, 2, 1, 1, 3, 1)),
        "zero-length axis": nifti1_header((3, 4, 0, 6, 1, 1, 1, 1)),
        "negative axis": nifti1_header((3, 4, -5, 6, 1, 1, 1, 1)),
        "no dimensions": nifti1_header((0, 4, 5, 6, 1, 1, 1, 1)),
        "too many dimensions": nifti1_header((9, 4, 5, 6, 1, 1, 1, 1)),
        "complex64": nifti1_header(datatype=_COMPLEX64, bits=64),
        "RGB": nifti1_header(datatype=_RGB24, bits=24),
        "unknown voxel type": nifti1_header(datatype=3333),
        "zero zoom": nifti1_header(pixdim=(1, 1, 0, 1, 1, 1, 1, 1)),
        "negative zoom": nifti1_header(pixdim=(1, 1, 1, -2, 1, 1, 1, 1)),
        "NaN zoom": nifti1_header(pixdim=(1, math.nan, 1, 1, 1, 1, 1, 1)),
        "no qform and no sform": nifti1_header(sform_code=0),
        "singular sform": nifti1_header(sform_rows=singular),
        "NaN in the sform": nifti1_header(sform_rows=(math.nan, *_IDENTITY_ROWS[1:])),
        "metres": nifti1_header(units=1),
        "infinite intercept": nifti1_header(scaling=(2.0, math.inf)),
        "voxels within the header": nifti1_header(offset=0),
        "voxels from a NaN on": nifti1_header(offset=math.nan),
    }
    padded = voxels + bytes(2000)  # enough for every type above, so that only the header is at fault
    return {fault: (".nii", header + padded) for fault, header in headers.items()}
