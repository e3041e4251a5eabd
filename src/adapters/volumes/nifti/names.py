"""The names that NIfTI volumes go by on disk."""

from __future__ import annotations

from pathlib import Path

WRITABLE = (".nii.gz", ".nii", ".hdr", ".img")
_HEADERS = (".hdr", ".hdr.gz")
_IMAGES = (".img", ".img.gz")
_ALL = (*_HEADERS, *_IMAGES, ".nii.gz", ".nii")


def suffix_of(path: Path) -> str:
    """The volume suffix of a name, in lower case; empty if it has none."""
    return next((suffix for suffix in _ALL if path.name.lower().endswith(suffix)), "")


def is_image(path: Path) -> bool:
    """Whether the name is that of a pair's voxels."""
    return suffix_of(path) in _IMAGES


def header_names(path: Path) -> list[Path]:
    """Where the header of a pair may be, given any name of the pair; the likeliest first."""
    return _siblings(path, _HEADERS)


def image_names(path: Path) -> list[Path]:
    """Where the voxels of a pair may be, given any name of the pair; the likeliest first."""
    return _siblings(path, _IMAGES)


def _siblings(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    own = suffix_of(path)
    stem = path.name[: len(path.name) - len(own)]
    names = [path.with_name(stem + suffix) for suffix in suffixes]
    return names + [path.with_name(stem + suffix.upper()) for suffix in suffixes]
