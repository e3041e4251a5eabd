"""Headers of MetaImage and NRRD whose voxels lie in another file: joined into the one file that is sent."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import BinaryIO

from ..domain.errors import InputError
from ..domain.volume_names import META_IMAGE, NRRD

_MHD, _NHDR = META_IMAGE.beside[0][0], NRRD.beside[0][0]
_LONGEST = 2**20  # bytes of a header
_FILES = {
    _MHD: re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?", re.MULTILINE),
    _NHDR: re.compile(rb"^data ?file:[ \t]*([^\r\n]*)\r?\n?", re.MULTILINE | re.IGNORECASE),
}
_OFFSET = re.compile(rb"^[ \t]*HeaderSize[ \t]*=[ \t]*(?!0\s)", re.MULTILINE)


def join_voxels(header: Path, file: BinaryIO) -> None:
    """Write a header and the voxels that it names as one file; a file that names none as it is.

    ``file`` need not be seekable.

    Raises:
        InputError: the voxels lie in several files, in another folder, or behind bytes to skip in a MetaImage.
        OSError: a file cannot be read.
    """
    found = _named(header)
    voxels = header
    if found is not None and found[1] not in (b"", b"LOCAL"):
        content, name, start, end = found
        voxels = _beside(header, name.decode("utf-8", "replace").removeprefix("./"), content)
        if header.name.lower().endswith(_MHD):
            file.write(content[:start] + b"ElementDataFile = LOCAL\n")
        else:
            file.write((content[:start] + content[end:]).rstrip(b"\r\n") + b"\n\n")
    with voxels.open("rb") as stream:
        shutil.copyfileobj(stream, file, 2**20)


def _beside(header: Path, name: str, content: bytes) -> Path:
    is_plain = not any(mark in name for mark in "/\\\0%") and name.split()[0] not in (".", "..", "LIST")
    if not is_plain or (header.name.lower().endswith(_MHD) and _OFFSET.search(content)):
        do = f"write it as one file: voxport convert {header.name} -o FILE{NRRD.writable[0]}"
        raise InputError(header.name, expected="voxels in one whole file beside the header", got=name[:80], do=do)
    if not header.with_name(name).is_file():
        do = "keep header and voxels together"
        raise InputError(header.name, expected=f"its voxels in {name} beside it", got="no such file", do=do)
    return header.with_name(name)


def _named(header: Path) -> tuple[bytes, bytes, int, int] | None:
    """Return the start of a header, the file that it names, and where the field begins and ends; None without one."""
    pattern = next((known for ending, known in _FILES.items() if header.name.lower().endswith(ending)), None)
    if pattern is None:
        return None
    with header.open("rb") as file:
        content = file.read(_LONGEST)
    end = re.search(rb"\r?\n\r?\n", content)
    if header.name.lower().endswith(_NHDR) and end is not None:
        content = content[: end.start()]  # voxels may follow
    found = pattern.search(content)
    return None if found is None else (content, found[1].strip(), found.start(), found.end())
