"""Import of MONAI bundles. No code of a bundle is run: its configuration is data, and expressions are parsed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ....domain.cards.model_card import ModelCard
from ....ports.importer import ImportChoices, Imported, ModelImporter
from ...archives import unpack
from .configuration import INFERENCE, METADATA, Configuration, holds_configuration, read_mapping
from .framework import run_bundle
from .inferer import network_divisor, read_inferer
from .network import checkpoint_from_bundle, find_network, stated_argument
from .postprocessing import read_postprocessing
from .preprocessing import read_preprocessing

__all__ = ["BundleImporter", "checkpoint_from_bundle"]

_VERSION = "1.0.0"


class BundleImporter(ModelImporter):
    """Imports a bundle: a folder, or a zip of one, with ``configs`` and ``models``."""

    name = "monai_bundle"

    def recognises(self, source: Path) -> bool:
        try:
            if source.is_dir():
                return holds_configuration(source)
            if not source.is_file() or not zipfile.is_zipfile(source):
                return False
            with zipfile.ZipFile(source) as archive:
                names = map(PurePosixPath, archive.namelist())
                return any(n.name in INFERENCE and n.parent.name == "configs" and len(n.parts) <= 3 for n in names)
        except (OSError, zipfile.BadZipFile, ValueError):
            return False

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        return _imported(_opened(source, folder), source, choices)

    def segment(
        self, source: Path, choices: ImportChoices, inputs: Sequence[Path], mask: Path, folder: Path
    ) -> tuple[str, str]:
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        bundle = _opened(source, unpacked)
        found = _imported(bundle, source, choices)
        assert not isinstance(found.network, Path)  # as _imported gives it
        return run_bundle(bundle, found.network.path, inputs, mask, found.card.output.table)


def _opened(source: Path, folder: Path) -> Path:
    return source if source.is_dir() else unpack(source, folder)


def _imported(folder: Path, source: Path, choices: ImportChoices) -> Imported:
    configuration = Configuration.read(folder)
    about = read_mapping(folder, METADATA) or {}
    checkpoint, notes = find_network(folder, configuration)
    network = dict(checkpoint.network)
    inputs, outputs = _format(about, "inputs", "image"), _format(about, "outputs", "pred")
    channels = _count(configuration, inputs, "in_channels")
    classes = _count(configuration, outputs, "out_channels", "num_classes")
    preprocessing = read_preprocessing(configuration, channels)
    tiling, more = read_inferer(configuration, network_divisor(network, inputs.get("spatial_shape")))
    postprocessing = read_postprocessing(configuration, classes)
    channel_names = _names(inputs)
    if choices.output is not None:
        network["_output_"] = choices.output
    card = ModelCard(
        choices.name or _slug(folder if source.is_dir() else Path(source.stem)),
        choices.version or _version(about),
        _text(about, "description", "task", "name"),
        "",
        _text(about, "intended_use"),
        preprocessing.input([channel_names.get(i) or f"channel {i}" for i in range(channels)]),
        preprocessing.tiling(tiling),
        postprocessing.output(_names(outputs), resampled=preprocessing.spacing is not None),
        {"framework": "monai", "bundle": folder.name, "monai_version": _text(about, "monai_version")},
        authors=tuple(filter(None, [_text(about, "authors")])),
        citation="; ".join(str(each) for each in about.get("references") or []),
    )
    missing = ("licence",) if card.intended_use else ("licence", "intended_use")
    notes = (*notes, *preprocessing.notes, *more, *postprocessing.notes)
    return Imported(card, type(checkpoint)(checkpoint.path, network), missing=missing, notes=notes)


def _count(configuration: Configuration, described: Mapping[str, Any], *names: str) -> int:
    """Return a number of channels: of the network, else of the metadata."""
    given = stated_argument(configuration, *names)
    found = described.get("num_channels") if given is None else given
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return found
    do = "state num_channels in network_data_format of configs/metadata.json"
    raise configuration.refused(f"network_def::{names[0]}", "a number of channels", repr(found), do)


def _format(about: Mapping[str, Any], side: str, name: str) -> Mapping[str, Any]:
    """Return the description of an input or output in the metadata; empty without one."""
    found: Any = about
    for key in ("network_data_format", side):
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    found = found.get(name, next(iter(found.values()), {})) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _names(described: Mapping[str, Any]) -> dict[int, str]:
    defined = described.get("channel_def")
    given = defined.items() if isinstance(defined, Mapping) else ()
    return {int(key): str(name) for key, name in given if str(key).isdecimal() and str(name).strip()}


def _text(about: Mapping[str, Any], *keys: str) -> str:
    return next((" ".join(about[key].split()) for key in keys if isinstance(about.get(key), str)), "")


def _version(about: Mapping[str, Any]) -> str:
    found = str(about.get("version", ""))
    return found if re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+-]*", found) else _VERSION


def _slug(folder: Path) -> str:
    return re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "bundle"
