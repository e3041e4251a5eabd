"""A bioimage.io package: its description, of format 0.4 or 0.5, and the files that it names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ....domain.errors import ModelError
from ...archives import file_inside

DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")
_MOST_BYTES = 2**23
_AGAIN = "get the package again"
_KINDS = {"b": "batch", "c": "channel", "z": "z", "y": "y", "x": "x"}


@dataclass(frozen=True)
class Axis:
    """An axis: batch, channel, z, y or x (or another word), its sizes ``least + n * step``, and what it states."""

    kind: str
    least: int | None
    step: int = 0
    scale: float = 1.0
    unit: str | None = None
    halo: int = 0
    names: tuple[str, ...] = ()
    moved: bool = False  # an output's axis that is not that of the input, e.g. at half the size


@dataclass(frozen=True)
class Operation:
    """A step before or after the network."""

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Tensor:
    """An input or output of the network; ``data`` is what the package says about its values."""

    name: str
    axes: tuple[Axis, ...]
    operations: tuple[Operation, ...]
    test: NDArray[np.float32] | None
    data: Mapping[str, Any]

    def axis(self, kind: str) -> Axis:
        return next(axis for axis in self.axes if axis.kind == kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(axis.kind for axis in self.axes)


class Package:
    """A package's description and files, all below one folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        file_inside(self.folder, path.name)
        self.description = self._described()
        self.format = str(self.description.get("format_version", ""))
        if not re.match(r"0\.[45]\.", self.format) or self.description.get("type", "model") != "model":
            got = f"{self.description.get('type', 'something')} of format {self.format or 'unknown'}"
            raise self.refused("format_version", "a model of format 0.4 or 0.5", got, "update it with bioimageio.spec")

    def refused(self, field: str, expected: str, got: str, do: str = "import it with a card of your own") -> ModelError:
        return ModelError(f"{self.path.name}: {field}", expected=expected, got=" ".join(got.split()), do=do)

    def tensors(self, side: str) -> tuple[Tensor, ...]:
        """Return the tensors of ``inputs`` or ``outputs``."""
        try:
            entries = list(enumerate(self.description[side]))
            return tuple(self._tensor(side, number, entry) for number, entry in entries)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            got = f"{type(error).__name__} {error}"
            raise self.refused(side, "tensors as the format describes them", got, _AGAIN) from None

    def file(self, field: str, source: Any, sha256: Any) -> Path:
        """Return a file of the package. Raises ModelError for another place, no such file, or another checksum."""
        if isinstance(source, Mapping):
            source, sha256 = source.get("source"), source.get("sha256", sha256)
        if not isinstance(source, str) or not source or "://" in source or "\0" in source:
            do = "download the whole package as a zip: nothing is fetched"
            raise self.refused(field, "a file inside the package", repr(source), do)
        path = file_inside(self.folder, source)
        if not path.is_file():
            raise self.refused(field, "a file inside the package", f"no {source}", _AGAIN)
        if sha256 is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise self.refused(field, f"{source} with sha256 {sha256}", found, _AGAIN)
        return path

    def _described(self) -> dict[str, Any]:
        try:
            content = self.path.read_bytes()
            found = yaml.safe_load(content) if len(content) <= _MOST_BYTES else None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            got = getattr(error, "problem", None) or type(error).__name__
            raise self.refused("content", "YAML of plain data", got, _AGAIN) from None
        if not isinstance(found, dict):
            raise self.refused("content", "the description of a package", "something else", _AGAIN)
        return found

    def _tensor(self, side: str, number: int, entry: Mapping[str, Any]) -> Tensor:
        old = self.format.startswith("0.4")
        name = str(entry["name"] if old else entry.get("id", side[:-1]))
        axes = _old_axes(entry) if old else tuple(map(_axis, entry["axes"]))
        key = "preprocessing" if side == "inputs" else "postprocessing"
        operations = [
            Operation(str(o.get("id", o.get("name"))), dict(o.get("kwargs") or {})) for o in entry.get(key) or []
        ]
        given = entry.get("test_tensor")
        if old:
            tests = self.description.get(f"test_{side}") or []
            given = tests[number] if number < len(tests) else None
        test = None if given is None else self._array(f"test tensor of {name}", given)
        data = entry.get("data")
        return Tensor(name, axes, tuple(operations), test, data if isinstance(data, Mapping) else {})

    def _array(self, field: str, given: Any) -> NDArray[np.float32]:
        path = self.file(field, given, None)
        try:
            found = np.load(path, allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError
            return found.astype(np.float32)
        except (ValueError, OSError, EOFError, TypeError, MemoryError):
            raise self.refused(field, "an array of numbers (.npy)", path.name, _AGAIN) from None


def _axis(entry: Any) -> Axis:
    kind = str(entry["type"])
    identity = str(entry.get("id", kind))
    size, names = entry.get("size"), tuple(map(str, entry.get("channel_names") or ()))
    scale, halo, unit = float(entry.get("scale", 1.0)), int(entry.get("halo", 0)), entry.get("unit")
    least, step, moved = None, 0, False
    if isinstance(size, Mapping):
        moved = bool(size.get("offset", 0))
        least, step = (int(size["min"]), int(size["step"])) if "min" in size else (None, 0)
    elif size is not None:
        least = int(size)
    kind = identity if kind == "space" else kind
    return Axis(kind, len(names) or least, step, scale, None if unit is None else str(unit), halo, names, moved)


def _old_axes(entry: Mapping[str, Any]) -> tuple[Axis, ...]:
    kinds = [_KINDS.get(letter, letter) for letter in str(entry["axes"])]
    shape, halo = entry["shape"], entry.get("halo") or [0] * len(kinds)
    if isinstance(shape, Mapping) and "min" in shape:
        sizes = list(zip(map(int, shape["min"]), map(int, shape["step"]), strict=True))
        return tuple(Axis(k, least, step, halo=int(h)) for k, (least, step), h in zip(kinds, sizes, halo, strict=True))
    if isinstance(shape, Mapping):
        pairs = list(zip(shape["scale"], shape["offset"], strict=True))
        space = [kind not in ("batch", "channel") for kind in kinds]
        moved = [inside and (scale != 1 or bool(offset)) for inside, (scale, offset) in zip(space, pairs, strict=True)]
        return tuple(Axis(k, None, halo=int(h), moved=m) for k, h, m in zip(kinds, halo, moved, strict=True))
    assert isinstance(shape, Sequence)
    return tuple(Axis(k, int(size), halo=int(h)) for k, size, h in zip(kinds, shape, halo, strict=True))
