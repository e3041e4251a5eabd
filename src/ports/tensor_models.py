"""Keeping ONNX files of any kind by name and version, with what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Plain = Mapping[str, Any]


class Serialisable(Protocol):
    """A model in memory, such as ``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes of an ONNX file."""


@dataclass(frozen=True)
class TensorModel:
    """An ONNX file in a store, and the data saved with it.

    ``signatures`` has a mapping for each method; of ``run``, ``batchable``, ``batch_dim`` and ``max_batch_size`` count.
    ``labels`` are short texts to sort by. ``custom_objects`` is data that a service needs, such as class names.
    """

    name: str
    version: str
    path: Path
    sha256: str
    signatures: Plain = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Plain = field(default_factory=dict)
    custom_objects: Plain = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"


class TensorModelStore(Protocol):
    """A place that keeps ONNX files. Reading a model runs nothing that was stored with it."""

    def save_model(
        self,
        name: str,
        model: str | Path | Serialisable,
        signatures: Plain | None = None,
        labels: Mapping[str, str] | None = None,
        custom_objects: Plain | None = None,
        metadata: Plain | None = None,
    ) -> TensorModel:
        """Keep a copy of an ONNX file, or of a model in memory, under a new version of ``name``, or ``name:version``.

        ``signatures`` are ``{"run": {"batchable": False}}`` for None. JSON must be able to hold ``custom_objects`` and
        ``metadata``.

        Raises:
            ModelError: the file is not an ONNX model, or has its weights in other files.
            UsageError: a name, a label or data that the store cannot keep.
            OutputError: the store cannot be written.
        """

    def get(self, tag: str) -> TensorModel:
        """The model ``name:version``, or the newest of ``name`` or ``name:latest``. Raises UnknownModelError."""

    def list(self) -> tuple[TensorModel, ...]:
        """All models, by name, the newest version of each last. Models with a card are not among them."""
