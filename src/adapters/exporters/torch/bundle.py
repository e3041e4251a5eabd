"""MONAI bundles, read as data without evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ....domain.errors import ModelError
from ....ports.exporter import Checkpoint

_INSTEAD = "give the checkpoint and its `network` instead"
_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")


def checkpoint_from_bundle(folder: Path) -> Checkpoint:
    """Return the checkpoint of a bundle: ``models/model.pt`` with ``network_def`` of ``configs/inference.json`` or
    ``.yaml``, else ``models/model.ts``.

    References such as ``@channels`` or ``@args#norm`` are resolved. ``$`` expressions are Python code and refused.

    Raises:
        ModelError: not a bundle, or its network needs evaluation of code.
    """
    weights, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    if not weights.is_file():
        if script.is_file():
            return Checkpoint(script)
        expected = "a MONAI bundle with models/model.pt or models/model.ts"
        got, do = "neither" if folder.is_dir() else "no such folder", "give the folder that holds configs and models"
        raise ModelError(folder.name, expected=expected, got=got, do=do)
    config = _config(folder)
    if "network_def" not in config:
        expected = "network_def in the bundle's inference configuration"
        raise ModelError(folder.name, expected=expected, got="none", do=_INSTEAD)
    network = _resolved("network_def", config["network_def"], config, folder, ())
    if not isinstance(network, Mapping) or "_target_" not in network:
        expected, got = "network_def to be a mapping with _target_", type(network).__name__
        raise ModelError(folder.name, expected=expected, got=got, do=_INSTEAD)
    return Checkpoint(weights, network)


def _config(folder: Path) -> Mapping[str, Any]:
    path = next((folder / "configs" / name for name in _CONFIGS if (folder / "configs" / name).is_file()), None)
    if path is None:
        raise ModelError(folder.name, expected="configs/inference.json or .yaml", got="neither", do=_INSTEAD)
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        line = next(iter(str(error).splitlines()), "something else")
        raise ModelError(path.name, expected="a JSON or YAML file", got=line, do="correct the file") from None
    if not isinstance(config, Mapping):
        raise ModelError(path.name, expected="a mapping", got=type(config).__name__, do="correct the file")
    return config


def _resolved(where: str, value: Any, config: Mapping[str, Any], folder: Path, seen: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _resolved(f"{where}::{k}", v, config, folder, seen) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(f"{where}::{i}", v, config, folder, seen) for i, v in enumerate(value)]
    if not isinstance(value, str) or value[:1] not in ("$", "@", "%"):
        return value
    if value[0] != "@":
        raise _refused(folder, where, f"{value!r}, which is code or a macro and is not run")
    if value in seen:
        raise _refused(folder, where, f"{value}, which refers to itself")
    return _resolved(where, _looked_up(value, where, config, folder), config, folder, (*seen, value))


def _looked_up(reference: str, where: str, config: Mapping[str, Any], folder: Path) -> Any:
    found: Any = config
    # MONAI writes both section#key (old) and section::key.
    for key in reference[1:].replace("#", "::").split("::"):
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise _refused(folder, where, f"{reference}, which the configuration lacks")
    return found


def _refused(folder: Path, where: str, got: str) -> ModelError:
    return ModelError(
        folder.name,
        expected=f"plain values in {where}",
        got=got,
        do="write the value in its place, or give the checkpoint and its `network`",
    )
