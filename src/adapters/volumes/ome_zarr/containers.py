"""Where zarr nodes lie: folders, zip archives and URLs. Only metadata is read here, without the package zarr."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ....domain.errors import InputError
from ....domain.volume_names import ZARR_FILES
from ...arrays import package
from ...spool import tree_sha256

# Of one file of metadata. Those of real volumes have a few kilobytes.
_MOST_BYTES = 2**26
_SHOWN = 40
EXTRA = "microscopy"


@dataclass(frozen=True)
class Node:
    """A zarr group or array: its format (2 or 3), attributes, and, of an array, its metadata."""

    path: str
    zarr_format: int
    attributes: Mapping[str, Any]
    array: Mapping[str, Any] | None = None

    @property
    def ome(self) -> Mapping[str, Any]:
        """The attributes of OME-NGFF: under ``ome`` from version 0.5 on."""
        nested = self.attributes.get("ome")
        return nested if isinstance(nested, dict) else self.attributes


@dataclass(frozen=True, eq=False)
class ZarrFiles(ABC):
    """Files of a zarr hierarchy.

    Args:
        subject: the name to use in errors.
        inside: path of the node that the reference names, from the root of the files.
    """

    subject: str
    inside: str = field(default="", kw_only=True)

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Return a small file; None where there is none. Raises OSError or ValueError for one that is unreadable."""

    @abstractmethod
    def store(self) -> Any:
        """Return a store of zarr, for reading."""

    @abstractmethod
    def digest(self, node: Node, array: str) -> str:
        """Return the hash of an image: its attributes, and what is stored of the array that is read."""

    def stamp(self, array: str) -> object:
        """Return what changes when an array is replaced by another one."""
        return array

    def node(self, path: str) -> Node | None:
        """Return the group or array at a path; None where there is none. Raises InputError for unreadable metadata."""
        checked(path, self.subject)
        own = self._json(path, "zarr.json")
        if own is not None:
            attributes = own.get("attributes")
            is_array = own.get("node_type") == "array"
            return Node(path, 3, attributes if isinstance(attributes, dict) else {}, own if is_array else None)
        array, group, attributes = (self._json(path, name) for name in (".zarray", ".zgroup", ".zattrs"))
        if array is None and group is None and attributes is None:
            return None
        return Node(path, 2, attributes or {}, array)

    def _json(self, path: str, name: str) -> dict[str, Any] | None:
        key = joined(path, name)
        try:
            content = self.read(key)
            found = None if content is None else json.loads(content)
        except (OSError, ValueError, RecursionError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            got = f"{key} that is not: {str(error)[:80] or type(error).__name__}".replace("\n", " ")
            raise InputError(self.subject, expected="metadata in JSON", got=got, do="write the volume again") from None
        if found is not None and not isinstance(found, dict):
            got = f"{key} with {type(found).__name__}"
            raise InputError(self.subject, expected="a JSON object", got=got, do="write the volume again")
        return found


@dataclass(frozen=True, eq=False)
class Folder(ZarrFiles):
    """A hierarchy in a folder."""

    root: Path

    def read(self, key: str) -> bytes | None:
        try:
            with (self.root / key).open("rb") as file:
                return _limited(file.read(_MOST_BYTES + 1), key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def store(self) -> Any:
        return package("zarr.storage", EXTRA, self.subject).LocalStore(self.root, read_only=True)

    def digest(self, node: Node, array: str) -> str:
        return combined(node, tree_sha256(self.root / array))

    def stamp(self, array: str) -> object:
        for name in ("zarr.json", ".zarray"):
            try:
                found = (self.root / array / name).stat()
            except OSError:
                continue
            return found.st_dev, found.st_ino, found.st_mtime_ns
        return None


@dataclass(frozen=True, eq=False)
class Archive(ZarrFiles):
    """A hierarchy in a zip archive, read in place: no file of it is ever extracted."""

    path: Path

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        with zipfile.ZipFile(self.path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}

    @cached_property
    def root(self) -> str:
        """Path of the hierarchy within the archive: empty, or that of the only folder at the top."""
        tops = {name.split("/", 1)[0] for name in self._sizes}
        has_root = any(name in self._sizes for name in ZARR_FILES)
        return "" if has_root or len(tops) != 1 else tops.pop()

    def read(self, key: str) -> bytes | None:
        if key not in self._sizes:
            return None
        with zipfile.ZipFile(self.path) as archive, archive.open(key) as file:
            return _limited(file.read(_MOST_BYTES + 1), key)

    def store(self) -> Any:
        return package("zarr.storage", EXTRA, self.subject).ZipStore(self.path, mode="r", read_only=True)

    def digest(self, node: Node, array: str) -> str:  # noqa: ARG002 - the whole file counts
        return tree_sha256(self.path)

    def check_sizes(self, array: str, chunk_bytes: int) -> None:
        """Raise InputError for a chunk that would inflate to more than it can hold."""
        most = 2 * chunk_bytes + 2**20
        for name, size in self._sizes.items():
            if name.startswith(f"{array}/") and size > most:
                got = f"{size} in {name}"
                raise InputError(self.subject, expected=f"at most {most} bytes a chunk", got=got, do="write it again")


@dataclass(frozen=True, eq=False)
class Remote(ZarrFiles):
    """A hierarchy under a URL that fsspec opens."""

    url: str

    @cached_property
    def _system(self) -> tuple[Any, str]:
        fsspec = package("fsspec.core", EXTRA, self.subject)
        try:
            system, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            got = str(error)[:120].replace("\n", " ")
            do = "correct it, or install the package that it names"
            raise InputError(self.subject, expected="a URL that fsspec opens", got=got, do=do) from None
        return system, root

    def read(self, key: str) -> bytes | None:
        system, root = self._system
        try:
            return _limited(system.cat_file(f"{root}/{key}", start=0, end=_MOST_BYTES + 1), key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            raise
        except Exception as error:  # each protocol has errors of its own
            raise OSError(f"{type(error).__name__}: {error}") from error

    def store(self) -> Any:
        return package("zarr.storage", EXTRA, self.subject).FsspecStore.from_url(self.url, read_only=True)

    def digest(self, node: Node, array: str) -> str:
        """Hash attributes, the array's metadata, and the names and sizes (and ETags) of its files, where listed.

        Chunks are not read for it: that would fetch the volume once more.
        """
        system, root = self._system
        digest = hashlib.sha256()
        for name in ("zarr.json", ".zarray"):
            digest.update(self.read(joined(array, name)) or b"")
        try:
            listed = system.find(f"{root}/{array}", detail=True)
        except Exception:  # noqa: BLE001 - a server that does not list files
            listed = {}
        for name in sorted(listed):
            digest.update(f"{name}\0{listed[name].get('size')}\0{listed[name].get('ETag', '')}\0".encode())
        return combined(node, digest.hexdigest())


def is_url(reference: str) -> bool:
    """Return whether a reference is a URL, which only a person names on purpose."""
    return "://" in reference


def files_of(reference: str) -> ZarrFiles | None:
    """Return the files of a reference; None where no folder and no zip archive lies under it."""
    if is_url(reference):
        return Remote(_subject(reference), reference.rstrip("/"))
    path = Path(reference)
    subject = path.name or reference
    try:
        if path.is_dir():
            return Folder(subject, path)
        file = next((above for above in (path, *path.parents) if above.is_file()), None)
        if file is None or not _is_zip(file):
            return None
        archive = Archive(subject, file)
        return Archive(subject, file, inside=joined(archive.root, path.relative_to(file).as_posix()))
    except (OSError, ValueError):
        return None
    except zipfile.BadZipFile:
        return Archive(subject, file) if file is not None and _starts_as_zarr(file) else None


def check_whole(files: ZarrFiles) -> None:
    """Raise InputError for a zip archive without its directory, e.g. a truncated one."""
    if isinstance(files, Archive):
        try:
            _ = files.root
        except (zipfile.BadZipFile, OSError, ValueError):
            do = "copy it again: its end is missing"
            raise InputError(files.subject, expected="a whole zip archive", got="a damaged one", do=do) from None


def joined(*parts: str) -> str:
    """Return a path inside a hierarchy; parts that are empty or ``.`` do not count."""
    return "/".join(part.strip("/") for part in parts if part.strip("/") not in ("", "."))


def checked(path: str, subject: str) -> str:
    """Return a path of a file's own metadata. Raises InputError for one that leads out of the hierarchy."""
    if ".." in PurePosixPath(path).parts or path.startswith("/") or "\\" in path or "\0" in path:
        do = "write the volume again"
        raise InputError(subject, expected="paths inside the volume", got=repr(path[:_SHOWN]), do=do)
    return path


def combined(node: Node, content: str) -> str:
    """Return the hash of a node's attributes and of a hash."""
    attributes = json.dumps(node.attributes, sort_keys=True)
    return hashlib.sha256(f"{attributes}\0{content}".encode()).hexdigest()


def _limited(content: bytes, key: str) -> bytes:
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{key} has more than {_MOST_BYTES} bytes")
    return content


def _subject(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1][:_SHOWN] or url[:_SHOWN]


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _starts_as_zarr(path: Path) -> bool:
    """Return whether the first names in a zip archive are those of zarr; for one without its directory."""
    with path.open("rb") as file:
        head = file.read(2**16)
    return any(name.encode() in head for name in ZARR_FILES)


def real(reference: str) -> str:
    """Return the place of a reference, links resolved; a URL as it is."""
    return reference.rstrip("/") if is_url(reference) else os.path.realpath(reference)
