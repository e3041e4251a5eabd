"""A dataset of an HDF5 file as a stored array: found without leaving the file, with the axes and sizes it states."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError, UsageError
from ....domain.reading import LENGTH_UNITS, Reading, length_unit
from ....domain.stored_array import StoredArray
from ...arrays import Index, real_dtype
from ...read_only import INSIDE, listed

_DIMENSIONS = range(2, 6)
_MOST_OBJECTS = 10_000
_MOST_LINKS = 100
_LABELS = {"channel": "C", "channels": "C", "time": "T"} | {letter.lower(): letter for letter in "XYZCT"}
_ELEMENT_SIZE = "element_size_um"  # of Fiji's HDF5 plug-in; along z, y and x


@dataclass(frozen=True)
class Pieces:
    """A stored array, and how its values are read from the datasets that hold it."""

    array: StoredArray
    fetch: Callable[[Index], NDArray[Any]]


def dataset_pieces(h5py: Any, file: Any, name: str, reading: Reading, subject: str) -> Pieces:
    """Return a dataset by its path; without one, the only dataset that can be a volume.

    Raises:
        InputError: none, several, or one that is no volume, that needs other files, or that cannot be decompressed.
    """
    name = name or _only_dataset(h5py, file, subject)
    dataset = find(h5py, file, name, subject)
    if not isinstance(dataset, h5py.Dataset):
        raise _choose(_datasets(h5py, file), f"{name}, which is a group", subject)
    check_dataset(h5py, dataset, subject)
    if dataset.shape is None or len(dataset.shape) not in _DIMENSIONS:
        got = f"{len(dataset.shape or ())} in /{name}"
        raise InputError(subject, expected="2 to 5 dimensions", got=got, do="name another dataset")
    return Pieces(_stored(dataset, reading, subject), dataset.__getitem__)


def find(h5py: Any, file: Any, name: str, subject: str) -> Any:
    """Return an object of a file, through links that stay in the file. Raises InputError."""
    parts, found, links = name.split("/"), file, 0
    while parts:
        part = parts.pop(0)
        if not part or part == ".":
            continue
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if isinstance(link, h5py.SoftLink) and links < _MOST_LINKS:
            found, links = file if link.path.startswith("/") else found, links + 1
            parts = [*link.path.split("/"), *parts]
        elif isinstance(link, h5py.HardLink):
            found = found[part]
        elif link is None:
            raise _choose(_datasets(h5py, file), f"no {name}", subject)
        else:
            raise _elsewhere(f"a link at {part}", subject)
    return found


def check_dataset(h5py: Any, dataset: Any, subject: str) -> None:
    """Raise InputError for a dataset whose values lie in other files, or need a filter that is not there."""
    if dataset.is_virtual or dataset.external:
        raise _elsewhere("a virtual dataset" if dataset.is_virtual else "external storage", subject)
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, text = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import_module("hdf5plugin")  # registers the filters that it has
        if not h5py.h5z.filter_avail(code):
            got = f"filter {code} ({text.decode(errors='replace')[:40] or 'no name'})"
            do = "pip install hdf5plugin, or write the dataset again with gzip"
            raise InputError(subject, expected="a compression that HDF5 has", got=got, do=do)


def chunk_of(dataset: Any) -> tuple[int, ...]:
    """Return the shape of a dataset's chunk; of a plane of its last axes where it has none."""
    shape = dataset.shape
    return tuple(dataset.chunks or (*(1 for _ in shape[:-2]), *shape[-2:]))


def text_of(value: Any) -> str:
    """Return an attribute as text: HDF5 has strings, bytes, and arrays of single characters."""
    if isinstance(value, np.ndarray):
        value = b"".join(np.atleast_1d(value).astype("S").tolist())
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _stored(dataset: Any, reading: Reading, subject: str) -> StoredArray:
    axes, spacing, unit, source = _tagged(dataset)
    axes = axes or _labelled(dataset)
    sizes = _element_size(dataset)
    conflicts: tuple[str, ...] = ()
    if sizes:
        if spacing and any(spacing.get(letter, size) != size for letter, size in sizes.items()):
            conflicts = (f"axistags {spacing}", f"{_ELEMENT_SIZE} {sizes}")
        order = "".join(letter for letter in reading.axes or axes if letter in "XYZ")
        if order not in ("", "ZYX", "YX") and len(set(sizes.values())) > 1:
            conflicts += (f"{_ELEMENT_SIZE}, which is along z, y and x", f"axes in the order {order}")
        spacing, unit, source = sizes, "um", _ELEMENT_SIZE
    return StoredArray(
        dataset.shape,
        real_dtype(dataset.dtype, subject),
        axes,
        spacing=spacing,
        unit=unit,
        sources=dict.fromkeys(spacing, source),
        chunk=chunk_of(dataset),
        conflicts=conflicts,
        choices=("series",),
    )


def _tagged(dataset: Any) -> tuple[str, dict[str, float], str, str]:
    """Return axes, voxel sizes and their unit as ilastik states them; empty for a dataset that is not ilastik's."""
    try:
        tags = json.loads(text_of(dataset.attrs["axistags"]))["axes"]
        keys = [str(tag["key"]).lower() for tag in tags]
        sizes = {_LABELS.get(key, "-"): float(tag.get("resolution", 0)) for key, tag in zip(keys, tags, strict=True)}
        units = {str(tag.get("description", "")) for key, tag in zip(keys, tags, strict=True) if key in "xyz"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return "", {}, "unknown", ""
    if len(keys) != len(dataset.shape):
        return "", {}, "unknown", ""
    axes = "".join(_LABELS.get(key, "-") for key in keys)
    stated = {letter: size for letter, size in sizes.items() if size > 0 and letter in "XYZ"}
    named = length_unit(units.pop()) if len(units) == 1 else None
    unit, factor = LENGTH_UNITS[named] if named else ("unknown", 1.0)
    return axes, {letter: size * factor for letter, size in stated.items()}, unit, "axistags"


def _labelled(dataset: Any) -> str:
    """Return the axes that the labels of the dimensions name; empty unless all are known."""
    with suppress(RuntimeError, UnicodeDecodeError):
        letters = [_LABELS.get(dimension.label.strip().lower(), "") for dimension in dataset.dims]
        if all(letters) and len(set(letters)) == len(letters):
            return "".join(letters)
    return ""


def _element_size(dataset: Any) -> dict[str, float]:
    with suppress(KeyError, TypeError, ValueError):
        z, y, x = (float(size) for size in np.ravel(dataset.attrs[_ELEMENT_SIZE]))
        return {"Z": z, "Y": y, "X": x}
    return {}


def _only_dataset(h5py: Any, file: Any, subject: str) -> str:
    found = _datasets(h5py, file)
    if len(found) != 1:
        raise _choose(found, str(len(found) or "none"), subject)
    return next(iter(found))


def _datasets(h5py: Any, file: Any) -> Mapping[str, str]:
    """Return the shape of each dataset that can be a volume, by path; links are not followed."""
    found: dict[str, str] = {}
    seen = 0

    def look(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if (
            isinstance(item, h5py.Dataset)
            and item.shape
            and len(item.shape) in _DIMENSIONS
            and item.dtype.kind in "biuf"
        ):
            found[name] = "x".join(map(str, item.shape))
        return True if seen >= _MOST_OBJECTS else None

    file.visititems(look)
    return found


def _choose(found: Mapping[str, str], got: str, subject: str) -> InputError | UsageError:
    if not found:
        return InputError(
            subject, expected="a dataset of 2 to 5 dimensions", got="none", do="give the file with the volume in it"
        )
    names = listed([f"/{name} ({shape})" for name, shape in found.items()])
    do = f"name it with `series`, e.g. /{next(iter(found))}, or behind the name of the file and {INSIDE[:1]}"
    return InputError(subject, expected=f"one of the datasets {names}", got=got, do=do)


def _elsewhere(what: str, subject: str) -> InputError:
    do = "write its values into one file, e.g. with h5py"
    return InputError(subject, expected="content of this file alone", got=f"{what} that names other files", do=do)
