"""A network for 2-D images labels each slice as it does alone, along any axis and for both orders of axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import voxport
import yaml
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage
from voxport.adapters.importers.onnx_slices import OnnxSlicesImporter
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.application import Application
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.inference.patches import Padding, Tiling
from voxport.ports.importer import ImportChoices
from voxport.testing.affine import affine_card
from voxport.testing.importer import ModelImporterContract
from voxport.testing.progress import RecordingProgress

KERNEL = np.array([[0.5, 1, 0], [2, -3, 1], [0, 0.25, 1]], np.float32)  # without symmetry: turned slices are seen
CUT = 1.2


def write_network(path: Path, *, opset: int = 20, outputs: int = 1, pad: int = 1) -> None:
    """Two classes: label 1 where the correlation of a slice with KERNEL is above CUT."""
    weights = np.stack([np.zeros_like(KERNEL), KERNEL])[:, None]
    bias = np.array([CUT, 0], np.float32)
    names = [f"logits{i}" for i in range(outputs)]
    nodes = [helper.make_node("Conv", ["picture", "weights", "bias"], [name], pads=[pad] * 4) for name in names]
    graph = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in names],
        [numpy_helper.from_array(array, name) for name, array in (("weights", weights), ("bias", bias))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)


def flat_card(axis: int, axes: str = "XYZ") -> ModelCard:
    edges = [8, 8, 8]
    edges[axis] = 1
    tiling = Tiling((edges[0], edges[1], edges[2]), padding=Padding(to="divisor"), blending="constant")
    card = affine_card(1, 2, tiling=tiling, axes="ZYX" if axes == "ZYX" else "XYZ")
    return replace(card, name="flat")


def write_source(folder: Path, axis: int = 2, axes: str = "XYZ") -> Path:
    path = folder / "flat.onnx"
    write_network(path)
    (folder / "flat.card.yaml").write_text(yaml.safe_dump(write_card(flat_card(axis, axes))), encoding="utf-8")
    return path


class TestOnnxSlicesImporter(ModelImporterContract):
    def make_importer(self) -> OnnxSlicesImporter:
        return OnnxSlicesImporter(OnnxModelFiles())

    def make_source(self, folder: Path) -> Path:
        return write_source(folder)

    def damage(self, source: Path) -> None:
        source.write_bytes(source.read_bytes()[:40])


@pytest.mark.parametrize("axes", ["XYZ", "ZYX"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_slice_gets_the_labels_that_it_has_alone(tmp_path: Path, axis: int, axes: str) -> None:
    application = Application.build(models_dir=tmp_path / "models")
    source, model = write_source(tmp_path, axis, axes), tmp_path / "model.onnx"
    application.import_model(source, model, RecordingProgress())
    values = np.random.default_rng(axis).random((6, 7, 5), np.float32)
    # the network sees (y, x) where the card says ZYX
    kernel = KERNEL.T if axes == "ZYX" else KERNEL
    slices = [ndimage.correlate(piece, kernel, mode="constant") for piece in np.moveaxis(values, axis, 0)]
    expected = np.moveaxis(np.stack(slices) > CUT, 0, axis)
    with voxport.load(str(model)) as segmenter:
        found = segmenter(values, spacing=(1, 1, 1), unit="mm")
    np.testing.assert_array_equal(found.labels.array, expected)


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_graphs_of_old_and_new_opsets_are_wrapped(tmp_path: Path, opset: int) -> None:
    application = Application.build(models_dir=tmp_path / "models")
    source = write_source(tmp_path)
    write_network(source, opset=opset)
    done = application.import_model(source, tmp_path / "model.onnx", RecordingProgress())
    assert done.exported.verification.entry.holds()


def test_a_network_that_gives_smaller_slices_is_refused(tmp_path: Path) -> None:
    application = Application.build(models_dir=tmp_path / "models")
    source, target = write_source(tmp_path), tmp_path / "model.onnx"
    write_network(source, pad=0)
    with pytest.raises(ModelError, match="logits on the patch's grid"):
        application.import_model(source, target, RecordingProgress())
    assert not target.exists()


def test_a_card_without_a_thin_axis_is_refused_with_what_to_set(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    importer = OnnxSlicesImporter(OnnxModelFiles())
    card = replace(flat_card(2), tiling=Tiling((8, 8, 8)))
    with pytest.raises(ModelError, match="set that edge of the patch to 1"):
        importer.read(source, ImportChoices(card=card), tmp_path)


def test_one_of_several_outputs_is_chosen_by_name_or_index(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    write_network(source, outputs=2)
    importer = OnnxSlicesImporter(OnnxModelFiles())
    with pytest.raises(ModelError, match="logits0, logits1"):
        importer.read(source, ImportChoices(), tmp_path)
    for choice in ("logits1", "1"):
        found = importer.read(source, ImportChoices(output=choice), tmp_path)
        assert isinstance(found.network, Path)
        assert [value.name for value in onnx.load(found.network).graph.output] == ["voxport.logits"]


def test_there_is_no_other_run_to_compare_with(tmp_path: Path) -> None:
    importer = OnnxSlicesImporter(OnnxModelFiles())
    with pytest.raises(UsageError, match="leave the comparison out"):
        importer.segment(write_source(tmp_path), ImportChoices(), [], tmp_path / "mask.nii", tmp_path)
