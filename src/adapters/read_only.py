"""Stores that write nothing, and names of volumes inside files. Adapters of volumes share this module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..domain.errors import OutputError
from ..domain.geometry.grid import Grid
from ..domain.labels.label_map import LabelTable
from ..domain.volume_names import PACKED, VolumeNames
from ..ports.volume_store import VolumeSink, VolumeSource
from .spool import check_new_volume

INSIDE = ":/"
_SHOWN = 6


class ReadOnlyStore:
    """Base of the stores that write nothing. A reference is a path, or ``FILE:/NAME`` for a volume inside a file.

    Args:
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names: VolumeNames

    def __init__(self, max_voxels: int = 2**33) -> None:
        self.max_voxels = max_voxels

    def places(self, reference: str) -> tuple[str, ...]:
        """Return the real path of the file."""
        return (os.path.realpath(split_inside(reference)[0]),)

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],  # noqa: ARG002
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,  # noqa: ARG002
    ) -> VolumeSink:
        """Raise OutputError."""
        check_new_volume(grid, channels, channel_names, like)
        path = split_inside(reference)[0]
        got = f"one in {self.names.ending(path.name) or path.suffix or 'none'}, which is read only"
        raise OutputError(
            path.name, expected="a name of a format that is written", got=got, do=f"name it e.g. {PACKED}"
        )


def split_inside(reference: str) -> tuple[Path, str]:
    """Return the path of a file, and the name of what is meant inside it; empty for none."""
    path, mark, name = reference.partition(INSIDE)
    while mark and not Path(path).is_file():
        more, mark, name = name.partition(INSIDE)
        path = f"{path}{INSIDE}{more}"
    return (Path(path), name.strip("/")) if mark else (Path(reference), "")


def listed(names: Sequence[str]) -> str:
    """Return names in words, the first of many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:60] for name in names[:_SHOWN]) + more
