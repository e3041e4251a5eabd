"""BentoTensorModels keeps its contract in a real BentoML store, and runs nothing that lies there."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.models.bento import BentoStore, BentoTensorModels
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.ports.tensor_models import TensorModelStore
from voxport.testing.affine import affine_card
from voxport.testing.models import write_bare_affine
from voxport.testing.tensor_models import TensorModelStoreContract
from voxport.testing.tensors import write_sum_onnx


class TestBentoTensorModels(TensorModelStoreContract):
    def make_store(self, folder: Path) -> TensorModelStore:
        return BentoTensorModels(folder)


class _Marks:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_pickled_objects_of_other_programs_are_never_read(tmp_path: Path) -> None:
    network, mark = tmp_path / "network.onnx", tmp_path / "mark"
    write_sum_onnx(network)
    store = BentoTensorModels(tmp_path / "store")
    saved = store.save_model("sums:1", network)
    (saved.path.parent / "custom_objects.pkl").write_bytes(pickle.dumps(_Marks(mark)))
    (saved.path.parent / "voxport.json").unlink()
    assert store.get("sums").custom_objects == {}
    assert not mark.exists()


def test_each_kind_of_model_is_listed_by_its_own_store_and_none_is_broken(tmp_path: Path) -> None:
    network, image_network = tmp_path / "sum.onnx", tmp_path / "affine.onnx"
    write_sum_onnx(network)
    write_bare_affine(image_network, 0)
    files = OnnxModelFiles()
    models, tensors = BentoStore(files, FileLocks(), tmp_path / "store"), BentoTensorModels(tmp_path / "store")
    tensors.save_model("sums:1", network)
    models.put(files.write(image_network, affine_card(2, 3), image_network))
    assert [model.tag for model in tensors.list()] == ["sums:1"]
    listing = models.list()
    assert [model.card.name for model in listing.models] == ["affine"]
    assert listing.broken == ()


@pytest.mark.parametrize("missing", ["model.yaml", "saved_model.onnx"])
def test_an_entry_that_is_half_gone_hides_no_other(tmp_path: Path, missing: str) -> None:
    network = tmp_path / "network.onnx"
    write_sum_onnx(network)
    store = BentoTensorModels(tmp_path / "store")
    (store.save_model("broken:1", network).path.parent / missing).unlink()
    store.save_model("sums:1", network)
    assert [model.tag for model in store.list()] == ["sums:1"]
