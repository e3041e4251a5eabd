"""Names of NIfTI files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....domain.volume_names import NIFTI, VolumeNames

NAMES = VolumeNames((NIFTI,))
HEADERS, IMAGES = zip(*NIFTI.pairs, strict=True)


def siblings(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the paths that the other half of a pair may have, the likeliest first: ``HEADERS`` or ``IMAGES``."""
    stem = path.name[: len(path.name) - len(NAMES.ending(path.name))]
    return [path.with_name(stem + form) for forms in (suffixes, map(str.upper, suffixes)) for form in forms]
