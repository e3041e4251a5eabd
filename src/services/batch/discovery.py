"""Finding the cases of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...domain.cases import CaseFiles, CasePattern, numbered_cases, without_clashes
from ...domain.errors import InputError, UsageError
from ...domain.volume_names import DICOM
from ...ports.volume_store import VolumeStore
from .folder import BatchFolder


def find_cases(
    folder: Path,
    out: BatchFolder,
    channels: int,
    pattern: CasePattern | None,
    outputs: Sequence[str],
    volumes: VolumeStore,
) -> tuple[CaseFiles, ...]:
    """Find the cases of a folder and of all folders below it, hidden ones and the results' excepted.

    A case with a file that cannot be read, e.g. a link to nothing, is found too, with its problem. Without a pattern,
    the layout of ``out`` assigns files to cases. A pattern that states an ending also finds files whose endings
    ``volumes`` lacks.

    Raises:
        InputError: no such folder, or no case in it.
        UsageError: results would go into the folder itself.
    """
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder of volumes", got="no folder", do="check the path")
    root = Path(os.path.realpath(folder))
    if root == out.path:
        raise UsageError(
            "output", expected="another folder than that of the volumes", got=str(folder), do="name another"
        )
    pattern = pattern or out.layout.pattern(channels)
    takes_all = pattern is not None and pattern.ends_literally
    search = _Search(root, out.path, volumes, lambda name: takes_all or volumes.names.is_volume(name))
    names = sorted(path.relative_to(root).as_posix() for path in search.volumes_in(root))
    if names == ["."]:
        do = "use voxport segment, or name the folder above it"
        raise InputError(str(folder), expected="a folder of volumes", got="one volume", do=do)
    found = numbered_cases(names, channels, volumes.names) if pattern is None else pattern.cases(names)
    cases = tuple(case for case in map(out.layout.checked, found) if case is not None)
    if not cases:
        expected = f"volumes: {volumes.names.searched}" if pattern is None else f"volumes that match {pattern.text}"
        got = f"{len(names)} volumes that do not" if names else "no volumes"
        raise InputError(str(folder), expected=expected, got=got, do="check the folder and the pattern")
    cases = tuple(_checked(case, root) for case in cases)
    places = {case.name: [_place(out.place(case, output)) for output in outputs] for case in cases}
    return without_clashes(cases, places, (str(root / name) for name in names))


def _checked(case: CaseFiles, root: Path) -> CaseFiles:
    """Return the case, with a problem if one of its files is nothing that can be opened."""
    for name in case.files if case.problem is None else ():
        try:
            mode = (root / name).stat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                continue
            got, do = "something that is not a regular file", "remove it, or name a folder without it"
        except OSError as error:
            got, do = (error.strerror or str(error)).lower(), "check who may read it"
            if (root / name).is_symlink():
                got, do = f"a link to {(root / name).readlink()}, which is missing", f"fetch it: git annex get '{name}'"
        return replace(case, problem=InputError(name, expected="a file that can be read", got=got, do=do))
    return case


def _place(path: Path) -> str:
    """Where a file would really be, whatever lies there now."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - realpath gives a text


@dataclass(frozen=True)
class _Search:
    """A search for volumes below ``root``, and below folders elsewhere that it links to, but not in ``out``.

    A folder that ``volumes`` recognises, such as an OME-Zarr or a DICOM series, is one volume. A collection of volumes
    with the ending of one, such as a plate of OME-Zarr, is searched.
    """

    root: Path
    out: Path
    volumes: VolumeStore
    is_wanted: Callable[[str], bool]
    visited: set[Path] = field(default_factory=set)

    def volumes_in(self, folder: Path) -> Iterator[Path]:
        """Yield the volumes in a folder, which may be one itself."""
        self.visited.add(Path(os.path.realpath(folder)))
        folders, files = self._entries(folder)
        if self._is_volume(folder, files):
            yield folder
            return
        yield from (folder / name for name in files if self.is_wanted(name))
        for name in folders:
            found = self.volumes_in(folder / name) if self._is_new(folder / name) else iter(())
            if self.volumes.names.is_volume(name, is_folder=True):
                images = [path for path in found if path.parent != folder / name or self._has_volumes(path)]
                yield from images or [folder / name]  # a damaged one has a line of its own
            else:
                yield from found

    def _entries(self, folder: Path) -> tuple[list[str], list[str]]:
        """Return the names of a folder's folders and files, sorted, without hidden ones."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.name[0] != ".")
        except OSError as error:
            got, do = (error.strerror or "an error").lower(), "check who may read it"
            raise InputError(str(folder), expected="a folder that can be read", got=got, do=do) from None
        folders = [name for name in names if os.path.isdir(folder / name)]  # noqa: PTH112 - False for a loop of links
        return folders, [name for name in names if name not in set(folders)]

    def _has_volumes(self, folder: Path) -> bool:
        """Return whether volumes lie in a folder: the levels of an image do, and nothing does in a level."""
        return any(self.volumes.recognises(str(folder / name)) for name in self._entries(folder)[0])

    def _is_new(self, folder: Path) -> bool:
        real = Path(os.path.realpath(folder))
        is_seen = folder.is_symlink() and (real in self.visited or real.is_relative_to(self.root))
        return real != self.out and not is_seen

    def _is_volume(self, folder: Path, files: Sequence[str]) -> bool:
        """Whether a folder is one volume; not where it holds files of another format beside slices of DICOM."""
        names = self.volumes.names
        others = any(names.is_volume(name) and names.format(name) != DICOM.name for name in files)
        return not others and self.volumes.recognises(str(folder))
