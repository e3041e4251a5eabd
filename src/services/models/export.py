"""Export a checkpoint to a self-describing ONNX file, if it agrees with its source network."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.errors import OutputError
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
    padded to it, unless the card says otherwise.

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
    if tiling.padding.to is None:
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
