"""ModelDirectory keeps the ModelRepository contract, and so does the reference in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.adapters.model_directory import ModelDirectory
from voxport.adapters.onnx_files import OnnxModelFiles
from voxport.domain.errors import OutputError
from voxport.domain.model_card import ModelCard
from voxport.ports.model import Model
from voxport.ports.model_repository import ModelRepository
from voxport.testing.affine import affine_card
from voxport.testing.models import ModelRepositoryContract, write_bare_affine


class TestModelDirectory(ModelRepositoryContract):
    def make_repository(self) -> ModelRepository:
        return ModelDirectory(self.folder / "models", OnnxModelFiles())

    def make_model(self, card: ModelCard, path: Path, seed: int = 0) -> Model:
        write_bare_affine(path, seed)
        return OnnxModelFiles().write(path, card, path)

    def break_one(self) -> str:
        (self.folder / "models" / "broken.onnx").write_bytes(b"no model")
        return "broken.onnx"


def test_a_file_that_was_put_there_by_hand_counts(tmp_path: Path) -> None:
    write_bare_affine(tmp_path / "any name.onnx")
    OnnxModelFiles().write(tmp_path / "any name.onnx", affine_card(1, 2), tmp_path / "any name.onnx")
    repository = ModelDirectory(tmp_path, OnnxModelFiles())
    assert repository.get("affine").path.name == "any name.onnx"
    repository.put(repository.get("affine"))
    assert [path.name for path in tmp_path.iterdir()] == ["affine-1.0.0.onnx"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    write_bare_affine(tmp_path / "model.onnx")
    model = OnnxModelFiles().write(tmp_path / "model.onnx", affine_card(1, 2), tmp_path / "model.onnx")
    with pytest.raises(OutputError, match="models"):
        ModelDirectory(tmp_path / "file" / "models", OnnxModelFiles()).put(model)
