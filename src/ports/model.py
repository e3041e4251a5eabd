"""Port for model files: weights with their card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ..domain.cards.model_card import ModelCard


@dataclass(frozen=True)
class Model:
    """A model file and its card. ``format`` is onnx, or checkpoint for a file that only a framework can load.

    ``weights_sha256`` leaves out the metadata that the card is embedded in, so that it does not change with the
    certificate; for a file without embedded metadata it equals ``sha256``. ``card_inside``: the card was read from the
    file itself.
    """

    path: Path
    card: ModelCard
    sha256: str
    weights_sha256: str
    format: Literal["onnx", "checkpoint"] = "onnx"
    card_inside: bool = False


class ModelFiles(Protocol):
    """Reads and writes model files. Safe for concurrent callers."""

    def read(self, path: Path, card: Path | None = None) -> Model:
        """The model at ``path``, with the card given, embedded, or beside it (``NAME.card.yaml``), in that order.

        Raises:
            ModelError: no such file, not a model, no card or not a valid one, or a certificate for other weights.
        """

    def read_card(self, path: Path) -> ModelCard:
        """A card from a YAML or JSON file. Raises ModelError."""

    def write(self, weights: Path, card: ModelCard, destination: Path) -> Model:
        """Copy the weights to ``destination`` with the card embedded in place of any other; all or nothing.

        Raises:
            ModelError: ``weights`` cannot carry a card.
            OutputError: ``destination`` cannot be written.
        """
