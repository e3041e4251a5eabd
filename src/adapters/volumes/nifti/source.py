"""NIfTI volumes, on disk or in memory as images of nibabel.

Boxes of a file are read lazily through a read-only map, so that resident memory stays flat.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ....domain.errors import InputError
from ....domain.reading import Reading
from ....domain.stored_array import ArrayView
from ....domain.volume import Volume
from ...arrays import ArraySource, check_voxels
from ...stored_files import MappedArray, StoredFile, check_content, head, map_content, open_file, sha256
from .files import HEADERS, IMAGES, NAMES, siblings
from .header import HEADER_BYTES, Header, is_header, read_header
from .quads import is_extended

_SUBJECT = "image"
_QUADS_CHECKED = 2**16


class NiftiSource(ArraySource):
    """A stored volume, open for reading; see VolumeSource. ``dtype`` is float32 or float64 where the header scales."""

    def __init__(
        self, header: Header, mapped: mmap.mmap, files: Sequence[StoredFile], cleanup: ExitStack, view: ArrayView
    ) -> None:
        self.header = header
        values = MappedArray(mapped, header.array.shape, header.stored, offset=header.offset, copy=header.scaled)
        cleanup.callback(values.close)
        super().__init__(view, values.fetch, lambda: sha256(file.descriptor for file in files), cleanup.close)
        self.slowest_axis = _slowest(view)


def open_source(path: Path, scratch: Path, max_voxels: int, reading: Reading) -> NiftiSource:
    """Open the volume at ``path``, which may name either file of a pair.

    Raises:
        InputError: missing, damaged, or of a kind that cannot be segmented.
        LimitError: more than ``max_voxels``, all channels counted, or no space in ``scratch`` to inflate it.
    """
    subject = path.name or str(path)
    with ExitStack() as stack:
        files, block = files_of(path, subject, stack)
        header = read_header(block, subject, reading)
        if header.is_pair and len(files) == 1:
            files.append(_sibling(siblings(path, IMAGES), "voxels", subject, stack))
        elif not header.is_pair:
            del files[1:]
        data = files[-1]
        check_content(data, header.end, subject)
        view = header.array.view(reading, subject)
        check_voxels(view, max_voxels, subject)
        mapped = map_content(data, header.end, scratch, subject)
        _check_quads(header, mapped, subject)
        return NiftiSource(header, mapped, files, stack.pop_all(), view)


def files_of(path: Path, subject: str, stack: ExitStack) -> tuple[list[StoredFile], bytes]:
    """Return the header's file, then the voxels' where ``path`` names them; and the header's bytes."""
    given = stack.enter_context(closing(open_file(path, subject)))
    block = head(given, HEADER_BYTES, subject)
    if is_header(block) or NAMES.ending(path.name) not in IMAGES:
        return [given], block
    header = _sibling(siblings(path, HEADERS), "header", subject, stack)
    return [header, given], head(header, HEADER_BYTES, subject)


def _sibling(names: list[Path], what: str, subject: str, stack: ExitStack) -> StoredFile:
    for name in names:
        if name.is_file():
            return stack.enter_context(closing(open_file(name, subject)))
    raise InputError(
        subject, expected=f"its {what} in {names[0].name} beside it", got="no such file", do="keep both files together"
    )


def _slowest(view: ArrayView) -> int:
    """Return the axis of the volume that is stored last, because the first runs fastest; z where none is."""
    last = max(view.axes.find(letter) for letter in "XYZ")
    return "XYZ".find(view.axes[last]) if "Z" in view.axes else 2


def _check_quads(header: Header, mapped: mmap.mmap, subject: str) -> None:
    if header.stored.kind != "V":
        return
    sample = np.frombuffer(mapped, header.stored, min(header.value_count, _QUADS_CHECKED), header.offset)
    if is_extended(sample):
        do = "convert it to float64 on the machine that wrote it"
        raise InputError(subject, expected="128-bit numbers by IEEE 754", got="Intel's 80-bit ones", do=do)


def volume_of_image(image: Any) -> Volume:
    """Copy a NIfTI image of nibabel; the last axis of four is the channel.

    Raises:
        InputError: not a NIfTI image, or one whose file could not be segmented either.
    """
    if not isinstance(image, nib.Nifti1Pair):
        do = "give its array with affine= and unit=, or save it as NIfTI"
        raise InputError(_SUBJECT, expected="a NIfTI image of nibabel", got=type(image).__name__, do=do)
    stored = image.dataobj
    is_scaled = nib.is_proxy(stored) and hasattr(stored, "get_unscaled")
    raw = np.asanyarray(stored.get_unscaled() if is_scaled else stored)
    fields = _fields(image, raw)
    if is_scaled:
        fields["scl_slope"], fields["scl_inter"] = stored.slope, stored.inter
    header = read_header(fields.binaryblock, _SUBJECT)
    view = header.array.view(Reading(), _SUBJECT)
    values = header.scaled(raw, "F")  # as in a file
    values = values.reshape((*view.grid.shape, view.channels), order="F")
    return Volume(np.moveaxis(values, -1, 0), view.grid)


def _fields(image: Any, raw: np.ndarray[Any, Any]) -> Any:
    """Return the header that the image's single file would have, without scaling. Raises InputError."""
    fields = image.header.copy()
    try:
        fields.set_data_dtype(raw.dtype)
    except nib.spatialimages.HeaderDataError:
        do = "convert its array to integers, float32 or float64"
        raise InputError(_SUBJECT, expected="real numbers", got=str(raw.dtype), do=do) from None
    fields.set_data_shape(image.shape)
    if image.affine is not None and not np.allclose(fields.get_best_affine(), image.affine):
        fields.set_sform(image.affine, code="aligned")
        fields.set_qform(image.affine, code="unknown")
    fields["magic"] = b"n+2" if isinstance(fields, nib.Nifti2Header) else b"n+1"
    fields["vox_offset"] = fields["sizeof_hdr"] + 4
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    return fields
