"""OnnxModelFiles keeps the ModelFiles contract, and handles checkpoints and foreign ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import yaml
from voxport.adapters.onnx_files import CARD_KEY, OnnxModelFiles
from voxport.domain.card_schema import write_card
from voxport.domain.errors import ModelError
from voxport.domain.model_card import ModelCard
from voxport.ports.model import ModelFiles
from voxport.testing.affine import affine_card
from voxport.testing.models import ModelFilesContract, write_bare_affine


class TestOnnxModelFiles(ModelFilesContract):
    def make_files(self) -> ModelFiles:
        return OnnxModelFiles()

    def bare_weights(self, path: Path) -> None:
        write_bare_affine(path)

    def embedded_card(self, path: Path) -> str | None:
        return {p.key: p.value for p in onnx.load(path).metadata_props}.get("voxport.card")

    def write_yaml(self, path: Path, card: ModelCard) -> None:
        path.write_text(yaml.safe_dump(write_card(card)))


def test_other_metadata_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"author": "someone"})
    onnx.save(proto, path)
    OnnxModelFiles().write(path, affine_card(1, 2), path)
    OnnxModelFiles().write(path, affine_card(1, 2), path)
    keys = [p.key for p in onnx.load(path).metadata_props]
    assert sorted(keys) == ["author", CARD_KEY]


def test_an_embedded_card_that_is_no_json_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {CARD_KEY: "{not json"})
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="valid model card"):
        OnnxModelFiles().read(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="weights inside"):
        OnnxModelFiles().read(path)


def test_a_checkpoint_is_read_with_the_card_beside_it_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"PK\x03\x04 anything")
    with pytest.raises(ModelError, match=r"net\.card\.yaml"):
        OnnxModelFiles().read(path)
    (tmp_path / "net.card.yaml").write_text(yaml.safe_dump(write_card(affine_card(1, 2))))
    model = OnnxModelFiles().read(path)
    assert model.format == "checkpoint"
    assert model.weights_sha256 == model.sha256
    with pytest.raises(ModelError, match="export it"):
        OnnxModelFiles().write(path, model.card, tmp_path / "out.onnx")


def test_a_card_with_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("schema: voxport/model-card/1\nname: [a\n")
    with pytest.raises(ModelError, match="line 3"):
        OnnxModelFiles().read_card(path)
