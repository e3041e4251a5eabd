"""Results of nnU-Net v2 on disk: which trainer's folder, which folds, which files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....domain.errors import ModelError, UsageError
from ....ports.importer import ImportChoices
from ...archives import file_inside, unpack

_PLANS, _DATASET, _FOLDS = "plans.json", "dataset.json", "fold_"
# A trainer's folder lies in a dataset's, and that among nnU-Net's results.
_DEPTH = 2
_MOST_JSON_BYTES = 2**28


@dataclass(frozen=True)
class Results:
    """The parts of a trainer's folder that an import takes."""

    folder: Path
    folds: tuple[str, ...]
    checkpoints: tuple[Path, ...]
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @property
    def configuration(self) -> str:
        """Configuration in the folder's name, ``TRAINER__PLANS__CONFIGURATION``."""
        return self.folder.name.rpartition("__")[2]


def holds_results(source: Path) -> bool:
    """Return whether a folder or a zip looks like results of nnU-Net v2."""
    try:
        if source.is_dir():
            return next(_trainer_folders(source), None) is not None
        if not source.is_file() or not zipfile.is_zipfile(source):
            return False
        with zipfile.ZipFile(source) as archive:
            names = [name.rpartition("/")[::2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, OSError):
        return False
    plans, folds = {top for top, name in names if name == _PLANS}, {top for top, _ in names}
    return any(fold.rpartition("/")[2].startswith(_FOLDS) and fold.rpartition("/")[0] in plans for fold in folds)


def open_results(source: Path, choices: ImportChoices, folder: Path) -> Results:
    """Choose the trainer's folder, the folds and their checkpoints; a zip is unpacked into ``folder``.

    Raises:
        ModelError: a file is missing or damaged, leads out of the folder, or the zip is unsafe.
        UsageError: several configurations and none chosen, or the chosen one or a chosen fold does not exist.
    """
    top = source if source.is_dir() else unpack(source, folder)
    chosen = _chosen(source, sorted(_trainer_folders(top)), choices.configuration)
    name = f"checkpoint_{choices.checkpoint}.pth"
    folds = _folds(chosen, choices.folds, name)
    paths = tuple(file_inside(chosen, f"{_FOLDS}{fold}", name) for fold in folds)
    return Results(chosen, folds, paths, read_json(chosen, _PLANS), read_json(chosen, _DATASET))


def read_json(folder: Path, *parts: str) -> Mapping[str, Any]:
    """Read a JSON object below a folder.

    Raises:
        ModelError: missing, too large, not a JSON object, or outside the folder.
    """
    path, do = file_inside(folder, *parts), "copy the folder again from where nnU-Net wrote it"
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError("more than 256 MB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        got = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "something else")
        raise ModelError(path.name, expected="a JSON file of nnU-Net", got=got, do=do) from None
    if not isinstance(content, Mapping):
        raise ModelError(path.name, expected="a JSON object", got=type(content).__name__, do=do)
    return content


def _trainer_folders(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    if all((folder / name).is_file() for name in (_PLANS, _DATASET)) and any(folder.glob(f"{_FOLDS}*")):
        yield folder
    elif depth:
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.is_symlink():
                yield from _trainer_folders(inner, depth - 1)


def _chosen(source: Path, found: list[Path], configuration: str | None) -> Path:
    if not found:
        expected = f"a folder with {_PLANS}, {_DATASET} and {_FOLDS}0"
        raise ModelError(source.name, expected=expected, got="none", do="give nnU-Net's results folder")
    listed = ", ".join(sorted(_short_names(found)))
    if configuration is not None:
        found = [each for each in found if configuration in (each.name, each.name.rpartition("__")[2])]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        "configuration",
        expected=f"one of {listed}",
        got="none" if configuration is None else f"{configuration}" + ("" if not found else ", which fits several"),
        do="name one of them",
    )


def _short_names(found: list[Path]) -> list[str]:
    """Return the configurations, or the folders' whole names where trainers or plans differ too."""
    short = [each.name.rpartition("__")[2] for each in found]
    return short if len(set(short)) == len(short) else [each.name for each in found]


def _folds(folder: Path, wanted: tuple[str, ...] | None, checkpoint: str) -> tuple[str, ...]:
    present = sorted(path.name.removeprefix(_FOLDS) for path in folder.glob(f"{_FOLDS}*") if path.is_dir())
    trained = [fold for fold in present if (folder / f"{_FOLDS}{fold}" / checkpoint).is_file()]
    if wanted is not None:
        absent = [fold for fold in wanted if fold not in trained]
        if absent or not wanted:
            got, do = ", ".join(absent), "name folds that were trained to the end"
            expected = f"folds of {', '.join(trained) or 'none'}, which have {checkpoint}"
            raise UsageError("folds", expected=expected, got=got, do=do)
        return tuple(dict.fromkeys(wanted))
    # as nnU-Net does: the fold of all cases only if there is no other
    numbered = [fold for fold in trained if fold != "all"] or trained
    if not numbered:
        others = sorted({path.name for path in folder.glob(f"{_FOLDS}*/checkpoint_*.pth")})
        expected, do = f"{checkpoint} in a fold", "name the `checkpoint` that there is, final or best"
        raise ModelError(folder.name, expected=expected, got=", ".join(others), do=do)
    return tuple(numbered)
