"""Zip archives and folders from others, read without leaving their folder. Importers share this module."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..domain.errors import ModelError
from .disk import output_errors

_MOST_FILES = 100_000
_MOST_BYTES = 2**36
# Weights hardly shrink in a zip, so a whole archive that grows more than this is a bomb; small ones may.
_MOST_GROWTH, _ALWAYS_BYTES = 100, 2**27
_AGAIN = "make the zip again from the folder"


def unpack(source: Path, folder: Path) -> Path:
    """Unpack a zip into an empty folder and return the folder of its content: a single top folder, if there is one.

    Raises:
        ModelError: not a zip, or one with links, encryption, names outside the folder, or too much content. Nothing
            is unpacked of an archive with such names.
        OutputError: ``folder`` cannot be written.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(source, members)
            for member in members:
                target = folder / member.filename
                with output_errors(folder):
                    target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as content, output_errors(folder), target.open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error, OSError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(source.name, expected="a whole zip archive", got=line, do=_AGAIN) from None
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def file_inside(folder: Path, *parts: str) -> Path:
    """Return the path of a file below ``folder``, which may be missing.

    Raises:
        ModelError: it lies, or a link leads, outside the folder.
    """
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        expected, do = f"files inside {folder.name}", "put the file itself in its place, e.g. with cp -rL"
        raise ModelError("/".join(parts), expected=expected, got="a path that leads out of it", do=do)
    return path


def _check(source: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        got = _fault(member)
        if got:
            expected = "a zip archive of plain files below one folder"
            raise ModelError(source.name, expected=expected, got=f"{member.filename!r}, {got}", do=_AGAIN)
    names = {member.filename.casefold() for member in members}
    if len(names) != len(members):
        raise ModelError(source.name, expected="each file once", got="the same name twice", do=_AGAIN)
    total, packed = sum(member.file_size for member in members), source.stat().st_size
    if len(members) > _MOST_FILES or total > min(_MOST_BYTES, max(_ALWAYS_BYTES, packed * _MOST_GROWTH)):
        got = f"{len(members)} files of {total} bytes in a zip of {packed}"
        raise ModelError(source.name, expected="a zip archive that holds a model", got=got, do="unpack it by hand")


def _fault(member: zipfile.ZipInfo) -> str:
    name = member.filename
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link"
    if member.flag_bits & 1:
        return "which is encrypted"
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or "\\" in name or ".." in path.parts:
        return "a path that leads out of the folder"
    return ""
