"""ModelDirectory and LayeredModels keep the ModelRepository contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from voxport.adapters.models.folder import LayeredModels, ModelDirectory
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import ModelError, OutputError
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


class TestLayeredModels(TestModelDirectory):
    def make_repository(self) -> ModelRepository:
        (self.folder / "bundled").mkdir()
        bundled = ModelDirectory(self.folder / "bundled", OnnxModelFiles())
        return LayeredModels(super().make_repository(), bundled)


def layered(folder: Path, own: dict[str, str], bundled: dict[str, str]) -> LayeredModels:
    """Repositories with models by name and version."""
    made = []
    for place, models in (("own", own), ("bundled", bundled)):
        repository = ModelDirectory(folder / place, OnnxModelFiles())
        (folder / place).mkdir()
        for seed, (name, version) in enumerate(models.items()):
            path = folder / "upload.onnx"
            write_bare_affine(path, seed + 10 * (place == "own"))
            card = replace(affine_card(1, 2), name=name, version=version)
            repository.put(OnnxModelFiles().write(path, card, path))
        made.append(repository)
    return LayeredModels(*made)


def test_bundled_models_are_found_beside_the_own(tmp_path: Path) -> None:
    models = layered(tmp_path, {"nuclei": "1.0.0"}, {"vessels": "2.0.0"})
    assert [m.card.reference for m in models.list().models] == ["nuclei:1.0.0", "vessels:2.0.0"]
    assert models.get("vessels").path.parent.name == "bundled"


def test_the_highest_version_counts_wherever_it_is(tmp_path: Path) -> None:
    models = layered(tmp_path, {"vessels": "1.0.0"}, {"vessels": "2.0.0"})
    assert models.get("vessels").card.version == "2.0.0"
    assert models.get("vessels:1.0.0").path.parent.name == "own"


def test_an_own_model_hides_a_bundled_one_of_the_same_version(tmp_path: Path) -> None:
    models = layered(tmp_path, {"vessels": "1.0.0"}, {"vessels": "1.0.0"})
    assert [m.path.parent.name for m in models.list().models] == ["own"]
    models.remove("vessels")
    assert models.get("vessels").path.parent.name == "bundled"


def test_a_bundled_model_cannot_be_removed(tmp_path: Path) -> None:
    models = layered(tmp_path, {}, {"vessels": "1.0.0"})
    with pytest.raises(ModelError, match="comes with voxport"):
        models.remove("vessels")


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
