"""Try the names of a run's results before anything is read or computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from ...domain.errors import UsageError
from ...domain.labels.label_file import check_label_file_name
from ...domain.labels.statistics_file import check_statistics_name
from ...domain.run import Outputs
from ...domain.volume_names import VolumeNames
from ...ports.artifacts import ArtifactWriter
from ...ports.volume_store import VolumeStore

_VOLUMES = ("mask", "probabilities", "uncertainty")


def check_outputs(
    inputs: Sequence[str],
    outputs: Outputs,
    *,
    volumes: VolumeStore,
    artifacts: ArtifactWriter,
    kept: Iterable[Path] = (),
) -> None:
    """Check the name of every result. No result may replace an input or a file of ``kept``, such as the model.

    Raises:
        UsageError: the ending of another format, or the place of an input, a kept file or another result, however it
            is spelled.
        OutputError: a place that cannot be written.
    """
    given = {f.name: getattr(outputs, f.name) for f in fields(outputs) if getattr(outputs, f.name) is not None}
    taken = {key: f"the input {i}" for i in inputs for key in _keys(volumes.places(i))}
    taken |= {key: f"{path}, which this run needs" for path in kept for key in _keys([str(path)])}
    for name, reference in given.items():
        keys = _keys(volumes.places(reference) if name in _VOLUMES else [reference])
        used = next((taken[key] for key in keys if key in taken), None) or _overlapped(name, reference, inputs, volumes)
        if used is not None:
            got = f"{reference}, the place of {used}"
            raise UsageError(name, expected="a place of its own", got=got, do="rename it")
        taken |= dict.fromkeys(keys, f"the {name}")
    for name, reference in given.items():
        _check_ending(name, reference, volumes)
        if name not in _VOLUMES or (volumes.names.formats and not _is_in_folders(reference, volumes.names)):
            artifacts.check(reference)


def _overlapped(name: str, reference: str, inputs: Sequence[str], volumes: VolumeStore) -> str | None:
    """Return the input that a result would hold, or lie inside of, except where volumes belong inside it."""
    place = Path(os.path.realpath(reference))
    belongs = name in _VOLUMES and volumes.names.is_inside(reference)
    for given in inputs:
        for other in map(Path, volumes.places(given)):
            is_folder = any(other.name.lower().endswith(known.folders) for known in volumes.names.formats)
            if place in other.parents or (is_folder and not belongs and other in place.parents):
                return f"the input {given}"
    return None


def _is_in_folders(reference: str, names: VolumeNames) -> bool:
    """Return whether a volume is a folder, or lies inside one; then its store alone can try the place."""
    return names.is_inside(reference) or any(names.ending(reference) in known.folders for known in names.formats)


def _check_ending(name: str, reference: str, volumes: VolumeStore) -> None:
    """UsageError where a name ends in what the result is not."""
    if name == "statistics":
        check_statistics_name(reference)
    elif name == "label_table":
        check_label_file_name(reference)
    elif name == "preview" and not reference.lower().endswith(".png"):
        raise UsageError(name, expected="a name in .png", got=reference, do="rename it")
    elif name == "html" and not reference.lower().endswith(".html"):
        raise UsageError(name, expected="a name in .html", got=reference, do="rename it")
    elif name in _VOLUMES and volumes.names.formats and volumes.names.ending(reference) not in volumes.names.writable:
        expected = f"a name in {volumes.names.writable_text}"
        raise UsageError(name, expected=expected, got=reference, do="rename it")


def _keys(places: Iterable[str]) -> list[object]:
    """Return what identifies places: the file under them, by any of its names, and their real paths.

    Two names that differ by case alone are one file on many file systems.
    """
    keys: list[object] = []
    for place in places:
        keys.append(os.path.realpath(place).casefold())
        try:
            found = Path(place).stat()
        except OSError:
            continue
        keys.append((found.st_dev, found.st_ino))
    return keys
