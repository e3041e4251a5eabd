"""Find a model by reference."""

from __future__ import annotations

from pathlib import Path

from ...ports.model import Model, ModelFiles
from ...ports.model_repository import ModelRepository

_FILE_SUFFIXES = (".onnx", ".pt", ".pth", ".ts", ".ckpt")


def find_model(reference: str, card: Path | None, files: ModelFiles, repository: ModelRepository) -> Model:
    """Return the model file at a path, or the repository's model of a name.

    Raises:
        ModelError: it is missing or invalid.
    """
    path = Path(reference).expanduser()
    return files.read(path, card) if _is_file_name(path) else repository.get(reference)


def names_a_model(reference: str) -> bool:
    """Return whether a reference has the form of a model: a model file's suffix, NAME or NAME:VERSION."""
    path = Path(reference).expanduser()
    return path.suffix.lower() in _FILE_SUFFIXES or not (_is_file_name(path) or "." in path.name.split(":")[0])


def _is_file_name(path: Path) -> bool:
    return path.suffix.lower() in _FILE_SUFFIXES or path.is_file() or len(path.parts) > 1
