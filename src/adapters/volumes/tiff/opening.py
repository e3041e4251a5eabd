"""Opening of TIFF files: which image of a file, at which level, and what the file states of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ....domain.errors import InputError, UsageError, VoxportError
from ....domain.reading import Reading
from ....domain.stored_array import StoredArray
from ...arrays import ArraySource, check_voxels, package
from ...stored_files import head, open_file, sha256
from .imagej import imagej_sizes, tag_sizes
from .instruments import instrument_sizes
from .ome import OmeFile, OmeImage, read_ome
from .planes import EXTRA, SeriesReader
from .stated import Stated

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHOLE = "a whole TIFF file"
_COPY = "copy it again"
# What tifffile logs of a file whose chain of pages is broken, before it goes on with the pages that it found.
_BROKEN_CHAIN = ("page offset", "tag list", "offset to page", "circular", "corrupted file")
_MOST_NAMED = 6
_LEAST_PAGE_BYTES = 16


def open_tiff(path: Path, reading: Reading, max_voxels: int) -> ArraySource:
    """Open a file for reading; see VolumeStore.open."""
    name = path.name or str(path)
    tifffile = package("tifffile", EXTRA, name)
    file = open_file(path, name)
    start = head(file, len(MAGIC[0]), name)
    file.close()
    if start not in MAGIC:
        raise InputError(name, expected="a TIFF file", got="other content" if start else "an empty file", do=_COPY)
    with _readable(name) as logged:
        # the two kinds name files elsewhere; they hold OME-XML or a description of ImageJ as well
        tiff = tifffile.TiffFile(path, is_ndtiff=False, is_mmstack=False)
        try:
            return _opened(tiff, reading, max_voxels, name, logged)
        except BaseException:
            tiff.close()
            raise


def set_of(path: Path) -> list[Path]:
    """Return the files of the set of OME-TIFF that a file belongs to, beside it; none where it cannot be read."""
    try:
        tifffile = package("tifffile", EXTRA, path.name)
        with _readable(path.name), tifffile.TiffFile(path, is_ndtiff=False, is_mmstack=False) as tiff:
            files = read_ome(tiff.ome_metadata).files if tiff.ome_metadata else ()
    except VoxportError:
        return []
    inside = [file for file in sorted(files) if PurePosixPath(file).name == file]
    return [path.parent / file for file in inside] if len(files) > 1 else []  # one alone is this one, maybe renamed


def _opened(tiff: Any, reading: Reading, max_voxels: int, name: str, logged: list[str]) -> ArraySource:
    ome = _ome(tiff, name)
    found = _images(tiff, name, logged)
    series = _series(found, reading.series, name)
    level = reading.level or 0
    if level >= len(series.levels):
        raise UsageError("level", expected=f"0 to {len(series.levels) - 1}", got=str(level), do="choose another")
    reader = SeriesReader(series.levels[level], name)
    image = ome.image(found.index(series), series.name, len(found)) if ome is not None else None
    stated = _stated(tiff, image, series)
    axes, notes = series.levels[level].axes.upper(), stated.notes
    if reader.keyframe.photometric == 0:
        notes = (*notes, f"{name} shows 0 as white; values are taken as stored")
    stored = StoredArray(
        reader.shape, reader.dtype, axes, stated.spacing, stated.unit, stated.sources, stated.origin,
        channel_names=stated.channel_names, chunk=reader.chunk, conflicts=stated.conflicts, notes=notes,
        choices=("series", "level"),
    )  # fmt: skip
    view = (_at_level(stored, series, level) if level else stored).view(reading, name)
    check_voxels(view, max_voxels, name)
    return ArraySource(view, reader.fetch, lambda: sha256(reader.descriptors), tiff.close)


def _images(tiff: Any, name: str, logged: list[str]) -> list[Any]:
    """Return tifffile's series that are not empty. Raises InputError for a file that is cut short, or has none."""
    size = tiff.filehandle.size
    if any(tag.valueoffset + tag.valuebytecount > size for tag in tiff.pages.first.tags):
        raise InputError(name, expected=_WHOLE, got=f"{size} bytes, of which a tag is beyond the end", do=_COPY)
    found = [series for series in tiff.series if series.shape and 0 not in series.shape]
    if broken := next((text for text in logged if any(word in text for word in _BROKEN_CHAIN)), None):
        said = _said(broken.rpartition("> ")[2])
        raise InputError(name, expected=_WHOLE, got=f"a broken chain of pages ({said})", do=_COPY)
    if not found:
        raise InputError(name, expected="a TIFF file with an image", got="none", do=_COPY)
    return found


@contextmanager
def _readable(name: str) -> Iterator[list[str]]:
    """Give the lines that tifffile logs, which go no further; raise what it raises as InputError."""
    lines: list[str] = []
    here = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != here:
            return True
        lines.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(keep)
    try:
        yield lines
    except (VoxportError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - the parser raises errors of any class for damaged files
        raise InputError(name, expected=_WHOLE, got=_said(str(error)) or type(error).__name__, do=_COPY) from None
    finally:
        logger.removeFilter(keep)


def _said(text: str) -> str:
    return " ".join(text.split())[:100]


def _ome(tiff: Any, name: str) -> OmeFile | None:
    """Return the OME-XML. Raises InputError where it is damaged, or names files that are not beside this one."""
    text = tiff.ome_metadata
    if not text:
        return None
    try:
        ome = read_ome(text)
    except ValueError as error:
        raise InputError(name, expected="well-formed OME-XML", got=_said(str(error)), do=_COPY) from None
    if ome.metadata_file:
        other = _said(ome.metadata_file)
        do = f"give {other} instead, if it is a TIFF file, or convert the set into one OME-TIFF"
        raise InputError(name, expected="the OME-XML of the image", got=f"a pointer to {other}", do=do)
    for file in sorted(ome.files):
        inside = PurePosixPath(file).name == file and "\\" not in file and file not in (".", "..")
        if inside and len(ome.files) == 1:  # this one, maybe renamed
            continue
        if not inside or not (Path(tiff.filehandle.dirname) / file).is_file():
            do = "put all files of the set into one folder"
            raise InputError(name, expected=f"{_said(file)} beside it", got="none", do=do)
    _check_claims(ome, Path(tiff.filehandle.dirname), tiff.filehandle.size, name)
    return ome


def _check_claims(ome: OmeFile, folder: Path, size: int, name: str) -> None:
    """Raise InputError where OME-XML claims more planes than its files have room for: tifffile would make a list."""
    sizes = [(folder / file).stat().st_size for file in ome.files] if len(ome.files) > 1 else [size]
    claimed = max((image.most_planes for image in ome.images), default=0)
    if claimed > sum(sizes) // _LEAST_PAGE_BYTES:
        raise InputError(name, expected=f"room for {claimed} planes", got=f"{sum(sizes)} bytes", do=_COPY)


def _series(found: list[Any], chosen: str | None, name: str) -> Any:
    """Return the series that the user means; the only one of full size without."""
    if chosen is not None:
        named = [series for series in found if series.name == chosen]
        if len(named) == 1:
            return named[0]
        if chosen.isascii() and chosen.isdigit() and int(chosen) < len(found):
            return found[int(chosen)]
    else:
        full = [series for series in found if not series.keyframe.is_reduced] or found
        if len(full) == 1:
            return full[0]
    shown = [f"{at} ({'x'.join(map(str, s.shape))}{', ' + _said(s.name) if s.name else ''})"
             for at, s in enumerate(found[:_MOST_NAMED])]  # fmt: skip
    shown += ["..."] if len(found) > _MOST_NAMED else []
    if chosen is None:
        do = "choose one with `series`, by its number or name"
        raise InputError(name, expected="one image", got=f"{len(found)}: {', '.join(shown)}", do=do)
    raise UsageError("series", expected=f"one of {', '.join(shown)}", got=chosen[:40], do="choose another")


def _stated(tiff: Any, image: OmeImage | None, series: Any) -> Stated:
    """Return what the file states of a series; OME-XML goes before ImageJ's description, this before tags."""
    instrument = instrument_sizes(tiff)
    imagej = imagej_sizes(tiff.imagej_metadata, tiff.pages[0]) if tiff.is_imagej and tiff.imagej_metadata else None
    tags = tag_sizes(series.keyframe)
    statements = [s for s in (image.stated() if image else None, instrument, imagej) if s is not None]
    if not statements:
        return tags
    best = next((statement for statement in statements if statement.spacing), statements[0])
    for other in (*statements, tags):
        best = best.against(other)
    names = next((statement.channel_names for statement in statements if statement.channel_names), ())
    return replace(best, channel_names=names)


def _at_level(stored: StoredArray, series: Any, level: int) -> StoredArray:
    """Return a level of a pyramid with the voxel sizes of its array; the levels cover the same space."""
    full = dict(zip(series.axes, series.shape, strict=True))
    spacing, origin = dict(stored.spacing), list(stored.origin)
    for at, letter in enumerate("XYZ"):
        position = stored.axes.find(letter)
        if position < 0 or letter not in spacing:
            continue
        factor = _factor(full.get(letter, 1), stored.shape[position])
        origin[at] += spacing[letter] * (factor - 1) / 2
        spacing[letter] *= factor
    note = f"voxel sizes at level {level} follow from those at level 0 and the shapes of both"
    place = (origin[0], origin[1], origin[2])
    return replace(stored, spacing=spacing, origin=place, notes=(*stored.notes, note))


def _factor(full: int, reduced: int) -> float:
    """Return how many voxels became one: a whole number where it explains the edge with rounding."""
    whole = round(full / reduced)
    return whole if reduced in (full // whole, -(-full // whole)) else full / reduced
