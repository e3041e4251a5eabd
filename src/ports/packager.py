"""Port for packages: models as another framework takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .model import Model
from .runtime import InferenceRuntime


class Packager(Protocol):
    """Writes packages of models, with test tensors that the model itself gives."""

    def package(self, model: Model, runtime: InferenceRuntime, destination: Path) -> tuple[str, ...]:
        """Write a package and return what it cannot say of the card; ``runtime`` has the model loaded.

        Raises:
            ModelError: not an ONNX file, or a network that the package cannot describe.
            OutputError: ``destination`` cannot be written, or is no name for a package.
        """
