"""Finding the cases of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...domain.cases import CaseFiles, CasePattern, numbered_cases, without_clashes
from ...domain.errors import InputError, UsageError
from ...domain.volume_names import VolumeNames
from .folder import BatchFolder


def find_cases(
    folder: Path,
    out: BatchFolder,
    channels: int,
    pattern: CasePattern | None,
    outputs: Sequence[str],
    endings: VolumeNames,
) -> tuple[CaseFiles, ...]:
    """Find the cases of a folder and of all folders below it, hidden ones and the results' excepted.

    A case with a file that cannot be read, e.g. a link to nothing, is found too, with its problem. Without a pattern,
    files are assigned to cases by nnU-Net's names. A pattern that states an ending also finds files that ``endings``
    lacks.

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
    takes_all = pattern is not None and pattern.ends_literally
    names = sorted(_files(root, out.path, lambda name: takes_all or endings.is_volume(name)))
    cases = numbered_cases(names, channels, endings) if pattern is None else pattern.cases(names)
    if not cases:
        expected = f"volumes: {endings.searched}" if pattern is None else f"volumes that match {pattern.text}"
        got = f"{len(names)} volumes that do not" if names else "no volumes"
        raise InputError(str(folder), expected=expected, got=got, do="check the folder and the pattern")
    cases = tuple(_checked(case, root) for case in cases)
    places = {case.name: [_place(out.place(case.name, output)) for output in outputs] for case in cases}
    return without_clashes(cases, places, (str(root / name) for name in names))


def _checked(case: CaseFiles, root: Path) -> CaseFiles:
    """Return the case, with a problem if one of its files is no file that can be opened."""
    for name in case.files if case.problem is None else ():
        try:
            if stat.S_ISREG((root / name).stat().st_mode):
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


def _files(root: Path, out: Path, is_wanted: Callable[[str], bool]) -> Iterator[str]:
    """Yield wanted files below a folder, and below folders elsewhere that it links to, as paths from the root."""

    def refuse(error: OSError) -> None:
        got = (error.strerror or "an error").lower()
        raise InputError(str(error.filename), expected="a folder that can be read", got=got, do="check who may read it")

    visited = {root}
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(place)
        kept = []
        for name in sorted(folders):
            real = Path(os.path.realpath(here / name))
            is_seen = (here / name).is_symlink() and (real in visited or real.is_relative_to(root))
            if name[0] != "." and real != out and not is_seen:
                visited.add(real)
                kept.append(name)
        folders[:] = kept
        yield from ((here / name).relative_to(root).as_posix() for name in files if name[0] != "." and is_wanted(name))
