"""FreeSurfer's MGH volumes, ``.mgh`` and ``.mgz``; read only."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from ....domain.errors import InputError
from ....domain.reading import Reading
from ....domain.stored_array import StoredArray
from ....domain.volume_names import MGH, VolumeNames
from ...arrays import ArraySource, check_voxels
from ...disk import scratch_folder
from ...read_only import ReadOnlyStore
from ...stored_files import MappedArray, check_content, head, map_content, open_file, sha256

# https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
_VERSION = b"\0\0\0\1"
_OFFSET = 284
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_DAMAGED = "write the file again: its header is damaged"


class MghStore(ReadOnlyStore):
    """Volumes as MGH files, compressed or not; a reference is a path. Lengths are in mm; frames are channels.

    Args:
        scratch: folder for inflated copies of compressed volumes; they have no name and vanish when closed.
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = VolumeNames((MGH,))

    def __init__(self, scratch: Path | None = None, max_voxels: int = 2**33) -> None:
        super().__init__(max_voxels)
        self._scratch = scratch

    def recognises(self, reference: str) -> bool:
        """Return whether a file starts as an MGH header: its version, and a known voxel type."""
        path = Path(reference)
        try:
            with closing(open_file(path, path.name)) as file:
                start = head(file, 24, path.name)
        except InputError:
            return False
        return len(start) == 24 and start[:4] == _VERSION and int.from_bytes(start[20:], "big") <= max(_TYPES)

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open a volume for reading; see VolumeStore.open. Raises LimitError also without space to inflate it."""
        path = Path(reference)
        subject = path.name or reference
        with ExitStack() as stack:
            file = stack.enter_context(closing(open_file(path, subject)))
            stored = _read(head(file, _OFFSET, subject), subject)
            view = stored.view(reading or Reading(), subject)
            check_voxels(view, self.max_voxels, subject)
            voxels = np.dtype(stored.dtype.newbyteorder(">"))
            scratch = scratch_folder(self._scratch)
            size = _OFFSET + int(np.prod(stored.shape, dtype=object)) * voxels.itemsize
            check_content(file, size, subject)
            mapped = map_content(file, size, scratch, subject)
            values = MappedArray(mapped, stored.shape, voxels, offset=_OFFSET)
            stack.callback(values.close)
            digest = partial(sha256, [file.descriptor])
            return ArraySource(view, values.fetch, digest, stack.pop_all().close)


def _read(block: bytes, subject: str) -> StoredArray:
    """Return what a header states. Raises InputError."""
    if len(block) < _OFFSET or block[:4] != _VERSION:
        got = f"a header cut short after {len(block)} bytes" if block[:4] == _VERSION else "something else"
        raise InputError(subject, expected="an MGH volume", got=got, do="name a volume, or copy it again")
    fields = MGHHeader(block, check=False)
    edges = tuple(int(edge) for edge in fields["dims"])
    if min(edges) < 1:
        got = "x".join(map(str, edges))
        raise InputError(subject, expected="axes of at least one voxel each", got=got, do=_DAMAGED)
    code = int(fields["type"])
    if code not in _TYPES:
        do = "convert it to a real type with mri_convert"
        raise InputError(subject, expected="one real number a voxel", got=f"the type {code}", do=do)
    shape = edges if edges[3] > 1 else edges[:3]
    stored = StoredArray(
        shape,
        np.dtype(_TYPES[code]).newbyteorder("="),
        "XYZC"[: len(shape)],
        unit="mm",
        sources=dict.fromkeys("XYZ", "delta"),
        chunk=(*shape[:2], *(1 for _ in shape[2:])),
    )
    if not int.from_bytes(block[28:30], "big", signed=True):  # goodRASFlag
        notes = (f"{subject} states no directions; its axes are taken as right, anterior and superior",)
        return replace(stored, notes=notes)
    with np.errstate(all="ignore"):
        return replace(stored, affine=np.asarray(fields.get_affine(), np.float64))
