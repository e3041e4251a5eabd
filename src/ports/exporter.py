"""Port for the export of checkpoints to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..domain.cards.model_card import ModelCard


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: its file, and how to build the network that the weights belong to.

    ``network`` is a mapping with ``_target_`` (e.g. ``SegResNet`` or ``package.Class``) and the arguments of the
    class; empty for a TorchScript file that brings its own code. Given with one, only its weights are taken.
    ``_output_``, the name or index of an output, chooses the one with the logits where the network gives several.
    """

    path: Path
    network: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """An ONNX file fresh from the exporter: whether it takes any size, where it came from, and notes for the user."""

    path: Path
    dynamic: bool
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()


class ModelExporter(Protocol):
    """Exports networks to ONNX."""

    def export(self, checkpoint: Checkpoint, card: ModelCard, destination: Path) -> Exported:
        """Write the network as ONNX, with dynamic N, x, y and z where it can, else at the card's patch.

        Raises:
            ModelError: the checkpoint cannot be read, does not fit the network, or cannot be exported.
        """
