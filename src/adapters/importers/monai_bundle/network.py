"""The network of a bundle and its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ....domain.errors import ModelError
from ....ports.exporter import Checkpoint
from ...archives import file_inside
from .configuration import Component, Configuration, holds_configuration

_INSTEAD = "give the checkpoint and its `network` instead"
_MODULES = ("monai.networks.", "torch.nn.")


def checkpoint_from_bundle(folder: Path) -> Checkpoint:
    """Return the checkpoint of a bundle: its weights with ``network_def`` of the configuration, else ``model.ts``.

    Raises:
        ModelError: not a bundle, or its network needs evaluation of code.
    """
    if not folder.is_dir():
        raise _no_bundle(folder)
    script = _script(folder)
    if script is not None and not holds_configuration(folder):
        return Checkpoint(script)
    configuration = Configuration.read(folder)
    weights = _weights(folder, configuration)
    if weights is not None:
        return Checkpoint(weights, _network(configuration))
    if script is None:
        raise _no_bundle(folder)
    return Checkpoint(script)


def find_network(folder: Path, configuration: Configuration) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return the checkpoint of a bundle, and notes: TorchScript where the network of the weights needs code.

    Raises:
        ModelError: neither can be taken.
    """
    script, weights = _script(folder), _weights(folder, configuration)
    if weights is None:
        if script is None:
            raise _no_bundle(folder)
        return Checkpoint(script), (f"no weights beside {script.name}: the TorchScript network is taken",)
    try:
        network = _network(configuration)
        _check_own(configuration, network)
    except ModelError as error:
        if script is None:
            raise
        return Checkpoint(script), (f"{script.name} is taken instead of {weights.name}: {error}",)
    # It had no effect on the network, and newer versions of MONAI do not take it.
    if network["_target_"].rpartition(".")[2] == "SwinUNETR":
        network = {key: value for key, value in network.items() if key != "img_size"}
    return Checkpoint(weights, network), ()


def stated_argument(configuration: Configuration, *names: str) -> Any:
    """Return the first of these arguments that ``network_def`` states plainly; None if it does not."""
    try:
        component = configuration.component("network_def")
        return None if component is None else next((component.get(name) for name in names if component.has(name)), None)
    except ModelError:
        return None


def _network(configuration: Configuration) -> dict[str, Any]:
    if "network_def" not in configuration:
        expected = "network_def in the bundle's inference configuration"
        raise ModelError(configuration.name, expected=expected, got="none", do=_INSTEAD)
    network = configuration.value("network_def")
    if not isinstance(network, Mapping) or not isinstance(network.get("_target_"), str):
        got = type(network).__name__
        raise configuration.refused("network_def", "a mapping with _target_", got, _INSTEAD)
    return dict(network)


def _check_own(configuration: Configuration, network: Mapping[str, Any]) -> None:
    """Raise ModelError for a network, or a part of one, that is not a class of MONAI."""
    target = network["_target_"]
    if "." in target and not target.startswith(_MODULES):
        got = f"{target}, which is the bundle's own code and is not run"
        do = (
            "save the network as models/model.ts with torch.jit, or install its package and give the bundle to `export`"
        )
        raise configuration.refused("network_def", "a class of monai.networks.nets", got, do)
    if any(_has_target(value) for value in network.values()):
        got = "a component in a component"
        do = "save the network as models/model.ts with torch.jit"
        raise configuration.refused("network_def", "plain arguments", got, do)


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))


def _weights(folder: Path, configuration: Configuration) -> Path | None:
    """Return the file that the configuration loads, if it says so plainly, else ``models/model.pt``; None without."""
    for component in _loaders(configuration):
        try:
            given = str(component.get("load_path"))
        except ModelError:
            continue
        path = file_inside(folder, os.path.relpath(given, folder))
        if path.suffix != ".ts" and path.is_file():
            return path
    path = file_inside(folder, "models", "model.pt")
    return path if path.is_file() else None


def _loaders(configuration: Configuration) -> Iterator[Component]:
    for section in ("checkpointloader", "handlers"):
        try:
            components = configuration.components(section)
        except ModelError:
            continue
        yield from (each for each in components if each.word == "CheckpointLoader")


def _script(folder: Path) -> Path | None:
    path = file_inside(folder, "models", "model.ts")
    return path if path.is_file() else None


def _no_bundle(folder: Path) -> ModelError:
    expected = "a MONAI bundle with models/model.pt or models/model.ts"
    got, do = "neither" if folder.is_dir() else "no such folder", "give the folder that holds configs and models"
    return ModelError(folder.name, expected=expected, got=got, do=do)
