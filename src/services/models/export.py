"""Export a checkpoint to a self-describing ONNX file, if it agrees with its source network."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.errors import OutputError, UsageError
from ...domain.parity import BOUNDS, Bounds
from ...ports.artifacts import ArtifactWriter
from ...ports.exporter import Checkpoint, Exported, ModelExporter
from ...ports.model import Model, ModelFiles
from ...ports.progress import ProgressListener
from ...ports.runtime import RuntimeOpener, RuntimeOptions
from .verify import Verification, certified, verify_against


@dataclass(frozen=True)
class ExportPorts:
    """Ports of `export_model`: ``source`` opens the checkpoint, ``target`` the ONNX file.

    ``openers`` are all available runtimes; those that hold are certified, below fp32 within ``bounds``.
    """

    exporter: ModelExporter
    files: ModelFiles
    artifacts: ArtifactWriter
    source: RuntimeOpener
    target: RuntimeOpener
    openers: Mapping[str, RuntimeOpener] = field(default_factory=dict)
    bounds: Bounds = BOUNDS


@dataclass(frozen=True)
class ExportResult:
    """The exported model, its parity, whether its spatial size is dynamic, and notes for the user."""

    model: Model
    verification: Verification
    dynamic: bool
    notes: tuple[str, ...] = ()


def export_model(
    checkpoint: Checkpoint, card: ModelCard, destination: Path, progress: ProgressListener, *, ports: ExportPorts
) -> ExportResult:
    """Export, compare with the source network, embed card and certificate, then write the file.

    A checkpoint without a network uses the one in the card's provenance, if any. Volumes smaller than the patch are
    padded to it, unless the card says otherwise or has a context.

    Raises:
        ModelError: the checkpoint cannot be exported, or the ONNX file differs.
        OutputError: ``destination`` cannot be written.
    """
    if destination.suffix != ".onnx":
        raise OutputError(str(destination), expected="a name that ends in .onnx", got=destination.name, do="rename it")
    ports.artifacts.check(str(destination))
    if "_target_" not in checkpoint.network:
        known = card.provenance.get("network", {})
        checkpoint = Checkpoint(checkpoint.path, {**known, **checkpoint.network})
    progress.stage("export")
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
        exported = ports.exporter.export(checkpoint, card, Path(folder) / "network.onnx")
        complete = _completed(card, checkpoint, exported)
        described = ports.files.write(exported.path, complete, Path(folder) / destination.name)
        verification = _proved(described, checkpoint, ports, progress)
        model = ports.files.write(described.path, certified(described, verification, ports.bounds), destination)
    return ExportResult(model, verification, exported.dynamic, exported.notes)


def _completed(card: ModelCard, checkpoint: Checkpoint, exported: Exported) -> ModelCard:
    provenance: dict[str, Any] = {**card.provenance, **exported.provenance}
    if checkpoint.network:
        provenance["network"] = dict(checkpoint.network)
    tiling = card.tiling
    if tiling.padding.to is None and tiling.context is None:
        tiling = replace(tiling, padding=replace(tiling.padding, to="patch"))
    return replace(card, tiling=tiling, provenance=provenance, parity=None)


def _proved(model: Model, checkpoint: Checkpoint, ports: ExportPorts, progress: ProgressListener) -> Verification:
    options = RuntimeOptions()
    source_card = with_network(model.card, checkpoint.network)
    source_model = Model(checkpoint.path, source_card, "", "", "checkpoint")
    with closing(ports.source(source_model, options)) as source, closing(ports.target(model, options)) as target:
        return verify_against(model, target, source, progress, openers=ports.openers, bounds=ports.bounds)


def with_network(card: ModelCard, network: Mapping[str, Any]) -> ModelCard:
    """Return the card with the network's definition in its provenance, for the torch runtime."""
    return replace(card, provenance={**card.provenance, "network": dict(network)}) if network else card


def describe_checkpoint(
    path: Path | None,
    network: str | None,
    network_args: str | None,
    bundle: Path | None,
    read_bundle: Callable[[Path], Checkpoint],
    output: str | None = None,
) -> Checkpoint:
    """Return the checkpoint and its network: from a bundle, ``network`` with JSON arguments, or TorchScript.

    ``output`` names the output with the logits, for a network with several.

    Raises:
        UsageError: conflicting options, or ``network_args`` is not a JSON object.
        ModelError: the bundle cannot be read.
    """
    if bundle is not None:
        if network is not None or network_args is not None:
            raise UsageError("bundle", expected="no `network` beside it", got="both", do="give one of them")
        found = read_bundle(bundle)
        path, described = path or found.path, dict(found.network)
    elif path is None:
        raise UsageError("checkpoint", expected="a file", got="none", do="name one, or a `bundle`")
    elif network is not None:
        described = {"_target_": network, **_arguments(network_args or "{}")}
    elif network_args is not None:
        raise UsageError("network_args", expected="a `network` with it", got="it alone", do="name the network")
    else:
        described = {}
    return Checkpoint(path, described if output is None else {**described, "_output_": output})


def slice_by_slice(checkpoint: Checkpoint, card: ModelCard) -> Checkpoint:
    """Return a checkpoint of a network for 2-D images, to be applied across the axis where the card's patch is 1.

    Raises:
        ModelError: the card has no such axis.
    """
    position = card.input.in_network_order(range(3)).index(card.slice_axis)
    return Checkpoint(checkpoint.path, {**checkpoint.network, "_slices_": "xyz"[position]})


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            "network_args",
            expected="a JSON object such as '{\"init_filters\": 8}'",
            got=f"{text} ({error.msg} at character {error.pos})",
            do="quote it for the shell",
        ) from None
    if not isinstance(arguments, dict):
        raise UsageError("network_args", expected="a JSON object", got=text, do='write {"name": value}')
    return arguments
