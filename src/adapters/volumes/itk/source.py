"""Open NRRD and MetaImage volumes. Voxels that are not plain bytes are decoded once, into a file without a name."""

from __future__ import annotations

import bz2
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from zlib_ng import gzip_ng, zlib_ng

from ....domain.errors import InputError
from ....domain.reading import Reading
from ...arrays import ArraySource, check_voxels
from ...disk import CHUNK_BYTES
from ...stored_files import (
    LARGEST_EXPANSION,
    MappedArray,
    StoredFile,
    check_length,
    map_file,
    open_file,
    reading_errors,
    sha256,
    unpack,
)
from . import meta_image, nrrd
from .layout import DAMAGED, Layout

_LARGEST_HEADER_BYTES = 2**24
_LONGEST_NUMBER = 4300  # characters; Python takes no longer integers
_AUTOMATIC = 47  # zlib's window bits: the largest window, a header of zlib or gzip


def recognised(start: bytes) -> bool:
    """Return whether a file that starts so is an NRRD or MetaImage header."""
    return bool(nrrd.MAGIC.match(start) or meta_image.MAGIC.match(start))


def read_layout(file: StoredFile, path: Path, subject: str) -> Layout:
    """Read the header at the start of a file. Raises InputError."""
    size, start = 2**14, os.pread(file.descriptor, 64, 0)
    if not recognised(start):
        got = "an empty file" if not start else f"something else (it starts with {start[:4].hex(' ')})"
        raise InputError(
            subject, expected="an NRRD or MetaImage header", got=got, do="name a volume, or write it again"
        )
    is_nrrd = nrrd.MAGIC.match(start) is not None
    while True:
        block = os.pread(file.descriptor, size, 0)
        end = nrrd.length(block) if is_nrrd else meta_image.length(block)
        if end is not None or size > min(file.size, _LARGEST_HEADER_BYTES):
            break
        size *= 4
    if end is None and file.size > _LARGEST_HEADER_BYTES:
        raise InputError(subject, expected="a header", got="no end of it", do=DAMAGED)
    return (nrrd.read if is_nrrd else meta_image.read)(block[:end], path, subject)


def digest(path: Path) -> str:
    """Return the hash of a volume's files: the header's and, where the voxels lie in others, theirs."""
    with ExitStack() as stack:
        subject = path.name
        header = stack.enter_context(closing(open_file(path, subject)))
        return _digest(path, header, read_layout(header, path, subject), subject)


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside a header that hold its voxels; none where it is no header."""
    try:
        with closing(open_file(path, path.name)) as header:
            return tuple(file for file in read_layout(header, path, path.name).files if file != path)
    except InputError:
        return ()


def open_source(path: Path, scratch: Path, max_voxels: int, reading: Reading) -> ArraySource:
    """Open a volume by its header.

    Raises:
        InputError: missing, damaged, or of a kind that cannot be segmented.
        LimitError: more than ``max_voxels``, all channels counted, or no space in ``scratch`` to decode it.
    """
    subject = path.name or str(path)
    with ExitStack() as stack:
        header = stack.enter_context(closing(open_file(path, subject)))
        with reading_errors(subject):
            layout = read_layout(header, path, subject)
        view = layout.array.view(reading, subject)
        check_voxels(view, max_voxels, subject)
        files = [header] if layout.files == (path,) else []
        if not files and len(layout.files) == 1:
            files = [stack.enter_context(closing(_open_beside(layout.files[0], subject)))]
        mapped, offset = _mapped(layout, files, scratch, subject)
        values = MappedArray(mapped, layout.array.shape, layout.stored, offset=offset)
        hashed: Callable[[], str]
        if files:
            hashed = partial(sha256, [file.descriptor for file in dict.fromkeys((header, *files))])
        else:
            hashed = partial(str, _digest(path, header, layout, subject))
        stack.callback(values.close)
        return ArraySource(view, values.fetch, hashed, stack.pop_all().close)


def _digest(path: Path, header: StoredFile, layout: Layout, subject: str) -> str:
    if len(layout.files) == 1:
        with ExitStack() as stack:
            others = [path_ for path_ in layout.files if path_ != path]
            files = [stack.enter_context(closing(_open_beside(file, subject))) for file in others]
            return sha256(file.descriptor for file in (header, *files))
    each = hashlib.sha256(sha256([header.descriptor]).encode())
    for file in layout.files:
        with closing(_open_beside(file, subject)) as opened:
            each.update(sha256([opened.descriptor]).encode())
    return each.hexdigest()


def _open_beside(path: Path, subject: str) -> StoredFile:
    if not path.is_file():
        do = "keep header and voxels together"
        raise InputError(subject, expected=f"its voxels in {path.name} beside it", got="no such file", do=do)
    return open_file(path, subject)


def _mapped(layout: Layout, files: Sequence[StoredFile], scratch: Path, subject: str) -> tuple[mmap.mmap, int]:
    """Map the decoded voxels; also return the bytes before the first of them."""
    if files and layout.encoding == "raw":
        file = files[0]
        offset = file.size - layout.size if layout.offset < 0 else _start(layout, file) + layout.skip
        check_length(file.size - max(offset, 0), layout.size, subject)
        return map_file(file.descriptor, offset + layout.size, subject), offset
    if files:
        _check_encoded(layout, files[0].size, subject)
        chunks = _decoded(layout, files[0], layout.size)
    else:
        chunks = _joined(layout, subject)
    with reading_errors(subject):
        spool = unpack(chunks, layout.size, scratch, subject)
    try:
        return map_file(spool, layout.size, subject), 0
    finally:
        os.close(spool)


def _check_encoded(layout: Layout, size: int, subject: str) -> None:
    """Refuse voxels that the stored bytes cannot hold, before room is made for them; bzip2 has no such bound."""
    most = {"gzip": size * LARGEST_EXPANSION, "zlib": size * LARGEST_EXPANSION, "text": size * layout.stored.itemsize}
    if layout.encoding in most:
        check_length(most[layout.encoding], layout.size, subject, is_estimate=True)


def _joined(layout: Layout, subject: str) -> Iterator[bytes]:
    """Yield the decoded voxels of several files, an equal part from each."""
    share, rest = divmod(layout.size, len(layout.files))
    if rest:
        expected = f"a number of files that divides {layout.size} bytes of voxels"
        raise InputError(subject, expected=expected, got=f"{len(layout.files)}", do=DAMAGED)
    for path in layout.files:
        with closing(_open_beside(path, subject)) as file:
            count = 0
            for chunk in _decoded(layout, file, share):
                part = chunk[: share - count]
                count += len(part)
                yield part
            check_length(count, share, f"{path.name} of {subject}")


def _start(layout: Layout, file: StoredFile) -> int:
    """Return the offset of the encoded voxels: that of the layout, and the lines to skip."""
    offset = max(layout.offset, 0)
    with os.fdopen(os.dup(file.descriptor), "rb") as stream:
        stream.seek(offset)
        for _ in range(layout.lines):
            if not (line := stream.readline(CHUNK_BYTES)):
                break
            offset += len(line)
    return offset


def _decoded(layout: Layout, file: StoredFile, size: int) -> Iterator[bytes]:
    """Yield the decoded voxels of a file in chunks."""
    with os.fdopen(os.dup(file.descriptor), "rb") as stream:
        stream.seek(file.size - size if layout.offset < 0 else _start(layout, file))
        yield from _without(_DECODERS[layout.encoding](stream, layout), layout.skip)


def _without(chunks: Iterable[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _plain(stream: IO[bytes], _: Layout) -> Iterator[bytes]:
    return iter(lambda: stream.read(CHUNK_BYTES), b"")


def _gunzipped(stream: IO[bytes], layout: Layout) -> Iterator[bytes]:
    with gzip_ng.GzipNGFile(fileobj=stream, mode="rb") as unpacked:
        yield from _plain(unpacked, layout)


def _bunzipped(stream: IO[bytes], layout: Layout) -> Iterator[bytes]:
    with bz2.BZ2File(stream) as unpacked:
        yield from _plain(unpacked, layout)


def _inflated(stream: IO[bytes], layout: Layout) -> Iterator[bytes]:
    engine = zlib_ng.decompressobj(_AUTOMATIC)
    for chunk in _plain(stream, layout):
        yield engine.decompress(chunk, CHUNK_BYTES)
        while engine.unconsumed_tail:
            yield engine.decompress(engine.unconsumed_tail, CHUNK_BYTES)
        if engine.eof:
            return
    raise EOFError


def _parsed(stream: IO[bytes], layout: Layout) -> Iterator[bytes]:
    """Parse numbers as text, separated by spaces or commas."""
    rest = ""
    for chunk in _plain(stream, layout):
        *words, rest = (rest + chunk.decode("ascii", "replace").replace(",", " ") + "|").split()
        rest = rest.removesuffix("|")
        if len(rest) > _LONGEST_NUMBER:
            raise _no_numbers(layout)
        yield _bytes_of(words, layout)
    yield _bytes_of(rest.split(), layout)


def _bytes_of(words: Sequence[str], layout: Layout) -> bytes:
    try:  # as objects: an array of texts has room for the longest in each of its elements
        return np.array(words, dtype=object).astype(layout.stored).tobytes() if words else b""
    except (ValueError, OverflowError):
        raise _no_numbers(layout) from None


def _no_numbers(layout: Layout) -> InputError:
    expected = f"voxels as text, numbers of {layout.array.dtype}"
    return InputError(layout.files[0].name, expected=expected, got="something else", do=DAMAGED)


_DECODERS = {"raw": _plain, "gzip": _gunzipped, "zlib": _inflated, "bzip2": _bunzipped, "text": _parsed}
