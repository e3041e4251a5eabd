"""New NIfTI volumes. Voxels are written to a preallocated file beside the destination, which is renamed on commit."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from ....domain.errors import OutputError
from ....domain.geometry.grid import Grid
from ....domain.volume_names import NIFTI, PACKED
from ...disk import CHUNK_BYTES, flush, reserve, write_at
from ...spool import MappedSink, check_destination, check_file_name, written_dtype
from ...stored_files import COMPRESSION_LEVEL, FAST_COMPRESSION_LEVEL, deflated, release, sha256
from .files import NAMES
from .header import UNIT_BITS

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
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
    native = written_dtype(dtype)
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


class NiftiSink(MappedSink):
    """A volume being written; nothing appears under its name before ``commit``."""

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, header: NewHeader) -> None:
        self._path = path
        self._header = header
        self._suffix = NAMES.ending(path.name)
        self._parts: list[Path] = []
        self._descriptor = -1
        self._targets = _targets(path, self._suffix)
        for target in self._targets:
            _check_destination(target)
        # A pair's voxels stand alone; otherwise the spool is the .nii file itself.
        self._lead = b"" if self._is_pair else header.block(is_pair=False)
        try:
            with self._writing_errors():
                self._allocate()
        except BaseException:
            self.close()
            raise

    @property
    def _is_pair(self) -> bool:
        return len(self._targets) > 1

    def commit(self) -> str:
        """See VolumeSink.commit. The hash of a pair is that of header and voxels, in this order."""
        if self._hash is not None:
            return self._hash
        mapped = self._open_map()
        try:
            with self._writing_errors():
                digest = self._finish(mapped)
                for part, target in zip(tuple(self._parts), self._targets, strict=True):
                    part.replace(target)
                    self._parts.remove(part)
                with suppress(OSError):  # the volume is complete, also where the file system cannot flush a folder
                    flush(self._path.parent)
        except BaseException:
            self.close()
            raise
        self._hash = digest
        return digest

    def close(self) -> None:
        self._mapped = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        while self._parts:
            self._parts.pop().unlink(missing_ok=True)

    def _voxels(self, mapped: mmap.mmap) -> NDArray[Any]:
        header, lead = self._header, len(self._lead)
        shape = (*header.grid.shape, header.channels)
        return np.moveaxis(np.ndarray(shape, header.dtype, buffer=mapped, offset=lead, order="F"), 3, 0)

    def _allocate(self) -> None:
        size = len(self._lead) + self._header.data_bytes
        self._descriptor = self._new_part()
        if self._suffix == PACKED:
            # The raw voxels are never published; unlinked, they disappear with a killed process.
            self._parts.pop().unlink()
        reserve(self._descriptor, size)  # writing to a map on a full disk would kill the process
        write_at(self._descriptor, self._lead, 0)
        self._mapped = mmap.mmap(self._descriptor, size, access=mmap.ACCESS_WRITE)

    def _new_part(self) -> int:
        # 40 characters of the name: at most 160 bytes, well within the 255 that file systems allow.
        part = self._path.with_name(f".{self._path.name[:40]}.{secrets.token_hex(6)}.part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._parts.append(part)
        return descriptor

    def _finish(self, mapped: mmap.mmap) -> str:
        """Write the rest of the files and flush all to the disk; return their hash."""
        if self._suffix != PACKED:
            mapped.flush()
            os.fsync(self._descriptor)
            if not self._is_pair:
                return sha256([self._descriptor])
        with os.fdopen(self._new_part(), "wb") as file:
            if self._is_pair:
                file.write(self._header.block(is_pair=True))
            else:
                level = COMPRESSION_LEVEL if self._header.channels == 1 else FAST_COMPRESSION_LEVEL
                _compress(mapped, file, level)
            file.flush()
            os.fsync(file.fileno())
            return sha256([file.fileno(), self._descriptor] if self._is_pair else [file.fileno()])

    @contextmanager
    def _writing_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            size = len(self._lead) + self._header.data_bytes
            raise _output_error(self._path, error, size) from None


def _compress(mapped: mmap.mmap, file: IO[bytes], level: int) -> None:
    with deflated(file, level) as stream, memoryview(mapped) as content:
        for start in range(0, len(content), CHUNK_BYTES):
            stream.write(content[start : start + CHUNK_BYTES])
            release(mapped)


def _targets(path: Path, suffix: str) -> tuple[Path, ...]:
    """Return the volume's files; a pair's header last, so that a reader who finds it also finds the voxels."""
    header, image = NIFTI.pairs[0]
    if suffix not in (header, image):
        return (path,)
    stem, given = path.name[: -len(suffix)], path.name[-len(suffix) :]
    other = image if suffix == header else header
    sibling = path.with_name(stem + (other.upper() if given.isupper() else other))
    return (sibling, path) if suffix == header else (path, sibling)


def _check_destination(path: Path) -> None:
    if NAMES.ending(path.name) not in NAMES.writable:
        got = path.suffix or "no suffix"
        expected = f"a name in {NAMES.writable_text}"
        raise OutputError(path.name or str(path), expected=expected, got=got, do="name the output so")
    try:
        check_destination(path)
        check_file_name(path)
    except OSError as error:
        raise _output_error(path, error, 0) from None


def _output_error(path: Path, error: OSError, size: int) -> OutputError:
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        expected, got, do = f"room for {size} bytes in {path.parent}", reason, "free some room or write elsewhere"
    elif error.errno in _NO_PERMISSION:
        expected, got, do = f"a writable folder {path.parent}", reason, "get permission or write elsewhere"
    else:
        expected, got, do = f"a file that can be written in {path.parent}", reason, "check the disk or write elsewhere"
    return OutputError(path.name, expected=expected, got=got, do=do)
