"""Files on their way to disk: checked, written beside their destination, renamed; nothing is left of a failure."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

from ..domain.errors import OutputError, UsageError
from ..domain.volume_names import NIFTI, SENT_MASKS, ZIP, mask_format
from .errors import RemoteError
from .folders import is_zarr_folder, new_folder, unzip_folder

_HEADER_BYTES = 540
_CHUNK_BYTES = 2**20


def chunks(stored: IO[bytes], *, inflate: bool, url: str) -> Iterator[bytes]:
    """Yield the stored, or inflated, bytes of a gzip-compressed NIfTI volume, which is read to its end.

    Raises:
        RemoteError: not a volume, damaged, or longer than its header states.
    """
    try:
        yield from _inflated(stored, url) if inflate else _as_stored(stored, url)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise _wrong(url, "a gzip stream that is damaged") from None


def _as_stored(stored: IO[bytes], url: str) -> Iterator[bytes]:
    chunk = stored.read(_CHUNK_BYTES)
    # 31: a gzip stream, with any window
    _promised_bytes(zlib.decompressobj(31).decompress(chunk, _HEADER_BYTES), url)
    while chunk:
        yield chunk
        chunk = stored.read(_CHUNK_BYTES)


def _inflated(stored: IO[bytes], url: str) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stored) as stream:
        chunk = stream.read(_CHUNK_BYTES)
        promised, count = _promised_bytes(chunk, url), 0
        while chunk:
            count += len(chunk)
            if count > promised:
                raise _wrong(url, "one that is longer than its header says")
            yield chunk
            chunk = stream.read(_CHUNK_BYTES)
    if count < promised:
        raise _wrong(url, "one that is shorter than its header says")


def _promised_bytes(head: bytes, url: str) -> int:
    """Return the length of a single-file volume from its header, 348 bytes of NIfTI-1 or 540 of NIfTI-2."""
    order = next((o for o in "<>" if head[:4] in (struct.pack(f"{o}i", 348), struct.pack(f"{o}i", 540))), None)
    if order is not None and head[344:348] == b"n+1\0":
        dimensions = struct.unpack_from(f"{order}8h", head, 40)
        (bits,), (offset,) = struct.unpack_from(f"{order}h", head, 72), struct.unpack_from(f"{order}f", head, 108)
    elif order is not None and head[4:8] == b"n+2\0" and len(head) >= _HEADER_BYTES:
        dimensions = struct.unpack_from(f"{order}8q", head, 16)
        (bits,), (offset,) = struct.unpack_from(f"{order}h", head, 14), struct.unpack_from(f"{order}q", head, 168)
    else:
        raise _wrong(url, "something else under its name")
    if not (1 <= dimensions[0] <= 7 and min(dimensions[1 : dimensions[0] + 1]) > 0 and bits > 0 and offset >= 0):
        raise _wrong(url, "one whose header makes no sense")
    voxels: int = prod(dimensions[1 : dimensions[0] + 1])
    return int(offset) + voxels * int(bits) // 8


def _wrong(url: str, got: str) -> RemoteError:
    return RemoteError.wrong_answer(url, expected="a NIfTI volume", got=got)


# Suffixes of each output's destination; those of the mask are those of formats.
_ENDINGS: dict[str, tuple[str, ...]] = {
    "mask": tuple(f".{form}" for form in SENT_MASKS),
    "probabilities": NIFTI.single,
    "uncertainty": NIFTI.single,
    "statistics": (".json", ".csv"),
    "preview": (".png",),
    "report": (".json",),
}


def check_destinations(destinations: dict[str, Path], inputs: Iterable[Path]) -> None:
    """Check the path of each output before anything is sent.

    Raises:
        UsageError: an unknown output, a wrong suffix, a repeated path, or an input's.
        OutputError: a folder is missing or cannot be written.
    """
    check_outputs(destinations)
    taken = {path.resolve(): "an input" for path in inputs}
    for output, path in destinations.items():
        fits = mask_format(path.name) is not None if output == "mask" else path.name.endswith(_ENDINGS[output])
        if not fits:
            endings = " or ".join(_ENDINGS[output])
            raise UsageError(str(path), expected=f"a name in {endings} for the {output}", got="another", do="rename it")
        if path.resolve() in taken:
            got = taken[path.resolve()]
            raise UsageError(str(path), expected="a name of its own for each output", got=got, do="rename one")
        taken[path.resolve()] = "another output"
    for output, path in destinations.items():
        check_place(path, is_folder=output == "mask" and _is_folder(path))


def check_outputs(outputs: Iterable[str]) -> None:
    """Raise UsageError for an unknown output."""
    for output in outputs:
        if output not in _ENDINGS:
            raise UsageError("outputs", expected=f"some of {', '.join(_ENDINGS)}", got=str(output), do="correct it")


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Raise an OSError as the OutputError of a file."""
    try:
        yield
    except OSError as error:
        raise OutputError.cannot_write(str(what), error) from None


@contextmanager
def spool(folder: Path) -> Iterator[BinaryIO]:
    """Open an unlinked file in a folder. Raises OutputError."""
    with writing(folder):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below, whatever its last write says
    try:
        yield file
    finally:
        # what a failed write left in the buffer fails again
        with suppress(OSError):
            file.close()


def _is_folder(mask: Path) -> bool:
    """Whether a mask of this name is a folder, sent as a zip."""
    form, low = mask_format(mask.name), mask.name.lower()
    return form is not None and SENT_MASKS[form].ending.endswith(ZIP) and not low.endswith(ZIP)


class Download:
    """A file that is hidden until it is committed to ``destination``, whose folder is then created.

    ``folder`` is a temporary one on the same file system; by default the destination's. A context manager.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, destination: Path, folder: Path | None = None) -> None:
        self.destination = destination
        self._sha256 = hashlib.sha256()
        with writing(destination):
            place = destination.parent if folder is None else folder
            descriptor, name = tempfile.mkstemp(dir=place, prefix=".voxport-", suffix=".part")
        self._file, self._path = os.fdopen(descriptor, "wb"), Path(name)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *error: object) -> None:
        self._path.unlink(missing_ok=True)
        # what was to be kept is on the disk; the rest of a failed write may fail again
        with suppress(OSError):
            self._file.close()

    def fill(self, content: Iterable[bytes]) -> None:
        """Write and flush the content. Raises OutputError, and the errors of ``content``."""
        for chunk in content:
            self._sha256.update(chunk)
            with writing(self.destination):
                self._file.write(chunk)
        with writing(self.destination):
            self._file.flush()
            os.fsync(self._file.fileno())

    def entry(self) -> dict[str, str]:
        """Name and sha256, as in a report."""
        return {"name": str(self.destination), "sha256": self._sha256.hexdigest()}

    def commit(self) -> None:
        """Rename to the destination. Raises OutputError."""
        with writing(self.destination):
            self.destination.parent.mkdir(exist_ok=True)
            self._path.chmod(0o644)
            self._path.replace(self.destination)


class FolderDownload(Download):
    """A zip of an OME-Zarr, which is unpacked and becomes the folder ``destination``.

    An OME-Zarr of this name is replaced.
    """

    def __init__(self, destination: Path, folder: Path | None, url: str) -> None:
        super().__init__(destination, folder)
        with writing(destination):
            self._unpacked = new_folder(self._path.parent)
        self._url = url

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        shutil.rmtree(self._unpacked, ignore_errors=True)

    def fill(self, content: Iterable[bytes]) -> None:
        """Write and unpack the content. Raises OutputError, RemoteError, and the errors of ``content``."""
        super().fill(content)
        with writing(self.destination), self._path.open("rb") as file:
            unzip_folder(file, self._unpacked / "new", self._url)

    def commit(self) -> None:
        """Rename to the destination. Raises OutputError."""
        with writing(self.destination):
            self.destination.parent.mkdir(exist_ok=True)
            if is_zarr_folder(self.destination):
                self.destination.rename(self._unpacked / "old")
            (self._unpacked / "new").rename(self.destination)


def commit_all(downloads: Iterable[Download], last: Path) -> None:
    """Commit all files, one of them last. Raises OutputError."""
    for download in sorted(downloads, key=lambda d: d.destination == last):
        download.commit()


def check_place(path: Path, *, is_folder: bool = False) -> None:
    """Raise OutputError unless a file, or an OME-Zarr, of this name can be written."""
    if not path.parent.is_dir():
        raise OutputError.cannot_write(str(path), "no such folder")
    if path.is_dir() and not (is_folder and is_zarr_folder(path)):
        raise OutputError.cannot_write(str(path), "a folder of that name")
    with writing(path), suppress(FileNotFoundError):
        path.lstat()  # finds names that are too long
    # Only opening a file detects read-only mounts and full quotas.
    with spool(path.parent):
        pass
