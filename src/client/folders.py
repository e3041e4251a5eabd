"""Volumes of several files: packed to be sent, and unpacked where a server answers with one."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..domain.errors import InputError
from ..domain.volume_names import DICOM_MAGIC, DICOM_START, OME_ZARR, ZARR_FILES, ZIP
from .errors import RemoteError
from .headers import join_voxels

_SINCE = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip: the same files give the same bytes
_MODE = (stat.S_IFREG | 0o644) << 16
_LARGEST_ZIP32 = 2**31
_ENCRYPTED = 1


def pack_volume(path: Path, file: BinaryIO) -> str:
    """Write a volume of several files as one; return a name for it. A folder becomes a zip, see ``zip_folder``.

    Raises:
        InputError: see ``zip_folder`` and ``join_voxels``.
    """
    if path.is_dir():
        return zip_folder(path, file)
    join_voxels(path, file)
    return path.name


def zip_folder(folder: Path, file: BinaryIO) -> str:
    """Write a folder of a volume as a zip that is not compressed; return a name for it.

    An OME-Zarr is sent with all its files, a DICOM series with the DICOM files of the folder, at any depth. The same
    files give the same bytes. ``file`` need not be seekable.

    Raises:
        InputError: the folder is neither, or holds a link to a folder, or one that leads nowhere.
    """
    files = list(_files(folder))
    if is_zarr_folder(folder):
        known = folder.name.lower().endswith(OME_ZARR.folders)
        name = folder.name if known else f"image{OME_ZARR.folders[-1]}"
    else:
        name, files = "series", [path for path in files if _is_dicom(path)]
    if not files:
        do = "name the volume itself"
        raise InputError(
            str(folder), expected="a file, a DICOM series or an OME-Zarr", got="a folder of other files", do=do
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _SINCE)
            member.create_system, member.external_attr = 3, _MODE
            large = path.stat().st_size >= _LARGEST_ZIP32
            with path.open("rb") as content, archive.open(member, "w", force_zip64=large) as place:
                shutil.copyfileobj(content, place, 2**20)
    return name + ZIP


def unzip_folder(file: BinaryIO, folder: Path, url: str) -> None:
    """Unpack a zip that a server sent as a folder into an empty folder.

    Raises:
        RemoteError: a damaged zip, one that could inflate, or a name that leaves the folder.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check(archive, file.seek(0, 2), url)
            for member in archive.infolist():
                if not member.is_dir():
                    place = folder / member.filename
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as content, place.open("xb") as target:
                        shutil.copyfileobj(content, target, 2**20)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise _wrong(url, f"a damaged one ({type(error).__name__})") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _wrong(url, "one with a name that comes twice") from None


def new_folder(beside: Path) -> Path:
    """Make an empty hidden folder in a folder."""
    return Path(tempfile.mkdtemp(dir=beside, prefix=".voxport-", suffix=".part"))


def is_zarr_folder(path: Path) -> bool:
    """Return whether a folder is an OME-Zarr, which another may replace."""
    return path.is_dir() and any((path / marker).is_file() for marker in ZARR_FILES)


def _check(archive: zipfile.ZipFile, size: int, url: str) -> None:
    members = archive.infolist()
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or not path.parts:
            raise _wrong(url, "one with a name outside of it")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise _wrong(url, "one with compressed members")
        if member.flag_bits & _ENCRYPTED:
            raise _wrong(url, "one with encrypted members")
    if not members or sum(member.file_size for member in members) > size:
        raise _wrong(url, "one whose members overlap, or none")


def _wrong(url: str, got: str) -> RemoteError:
    return RemoteError.wrong_answer(url, expected="a zip of an OME-Zarr", got=got)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.is_file():  # left out, it would be missing voxels to the server
            do = "put the files themselves there"
            raise InputError(str(path), expected="a file", got="a link to a folder, or to nothing", do=do)
        if path.is_file():
            yield path


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(DICOM_START + len(DICOM_MAGIC))[DICOM_START:] == DICOM_MAGIC
