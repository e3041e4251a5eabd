"""The cases of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...domain.cases import CaseFiles, CasePattern, is_volume, numbered_cases, without_clashes
from ...domain.errors import InputError, UsageError
from .folder import BatchFolder


def find_cases(
    folder: Path, out: BatchFolder, channels: int, pattern: CasePattern | None, outputs: Sequence[str]
) -> tuple[CaseFiles, ...]:
    """The cases of a folder and of all folders below it; hidden ones, and results, are left out.

    Args:
        folder: where volumes are.
        out: where results go.
        channels: how many the network takes.
        pattern: which files are one case; by the names that nnU-Net uses where it is None.
        outputs: the results of each case.

    Raises:
        InputError: no such folder, or no case in it.
        UsageError: results would go into the folder itself.
    """
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder of volumes", got="no folder", do="check the path")
    root = Path(os.path.realpath(folder))
    if root == out.path:
        raise UsageError("-o", expected="another folder than that of the volumes", got=str(folder), do="name another")
    names = list(_volumes(root, out.path))
    cases = numbered_cases(names, channels) if pattern is None else pattern.cases(names)
    if not cases:
        expected = "NIfTI volumes (.nii, .nii.gz)" if pattern is None else f"volumes that match {pattern.text}"
        got = f"{len(names)} volumes that do not" if names else "no volumes"
        raise InputError(str(folder), expected=expected, got=got, do="check the folder and the pattern")
    places = {case.name: [_place(out.place(case.name, output)) for output in outputs] for case in cases}
    return without_clashes(cases, places, (str(root / name) for name in names))


def _place(path: Path) -> str:
    """Where a file would really be, whatever lies there now."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - realpath gives a text


def _volumes(root: Path, out: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        got = (error.strerror or "an error").lower()
        raise InputError(str(error.filename), expected="a folder that can be read", got=got, do="check who may read it")

    for place, folders, files in os.walk(root, onerror=refuse):
        here = Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and here / name != out)
        for name in files:
            if name[0] != "." and is_volume(name) and (here / name).is_file():
                yield (here / name).relative_to(root).as_posix()
