"""Networks that go slice by slice, ensembles, and arguments that are classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from voxport.adapters.exporters.torch import TorchExporter
from voxport.adapters.runtimes.torch import load_network
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.inference.patches import Tiling
from voxport.ports.exporter import Checkpoint
from voxport.testing.affine import affine_card

FLAT: dict[str, Any] = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8],
    "strides": [2],
}
PLAIN: dict[str, Any] = {
    "_target_": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": {"_class_": "torch.nn.modules.conv.Conv3d"},
    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "norm_op": {"_class_": "torch.nn.InstanceNorm3d"},
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": {"_class_": "torch.nn.LeakyReLU"},
}


def checkpoint(description: dict[str, Any], path: Path, seed: int = 0) -> Path:
    from monai.networks import nets

    torch.manual_seed(seed)
    arguments = {key: value for key, value in description.items() if key[0] != "_"}
    torch.save(nets.UNet(**arguments).state_dict(), path)
    return path


@pytest.mark.parametrize(("axis", "place"), [("x", 2), ("y", 3), ("z", 4)])
def test_a_network_for_images_takes_a_volume_slice_by_slice(tmp_path: Path, axis: str, place: int) -> None:
    path = checkpoint(FLAT, tmp_path / "net.pt")
    flat, sliced = load_network(path, FLAT), load_network(path, {**FLAT, "_slices_": axis})
    shape = [2, 1, 8, 8, 8]
    shape[place] = 3
    image = torch.rand(shape)
    with torch.inference_mode():
        expected = torch.stack([flat(image.select(place, number)) for number in range(3)], place)
        torch.testing.assert_close(sliced(image), expected)


def test_a_network_takes_the_axes_in_its_own_order(tmp_path: Path) -> None:
    path = checkpoint({**FLAT, "spatial_dims": 3}, tmp_path / "net.pt")
    network = {**FLAT, "spatial_dims": 3}
    image = torch.rand(1, 1, 4, 6, 8)
    with torch.inference_mode():
        expected = load_network(path, network)(image.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)
        torch.testing.assert_close(load_network(path, {**network, "_transpose_": [2, 0, 1]})(image), expected)


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 1], "xyz", 3])
def test_another_order_than_of_three_axes_is_refused(tmp_path: Path, order: object) -> None:
    with pytest.raises(ModelError, match="_transpose_ to order 0, 1, 2"):
        load_network(checkpoint(FLAT, tmp_path / "net.pt"), {**FLAT, "_transpose_": order})


def test_members_are_a_list_of_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="_members_ to list files"):
        load_network(checkpoint(FLAT, tmp_path / "net.pt"), {**FLAT, "_members_": "1.pt"})


def test_another_axis_for_the_slices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="_slices_ to be x, y or z, got w"):
        load_network(checkpoint(FLAT, tmp_path / "net.pt"), {**FLAT, "_slices_": "w"})


def test_a_network_for_images_is_exported_for_any_number_of_slices(tmp_path: Path) -> None:
    path = checkpoint(FLAT, tmp_path / "net.pt")
    network = {**FLAT, "_slices_": "x"}
    card = affine_card(1, 2, tiling=Tiling((2, 16, 16), divisor=(1, 2, 2)))
    exported = TorchExporter(load_network).export(Checkpoint(path, network), card, tmp_path / "net.onnx")
    assert exported.dynamic
    image = torch.rand(1, 1, 5, 12, 20)
    with torch.inference_mode():
        expected = load_network(path, network)(image).numpy()
    np.testing.assert_allclose(scores(exported.path, image), expected, atol=1e-5)


def test_the_graph_of_several_checkpoints_gives_the_mean_of_their_logits(tmp_path: Path) -> None:
    network = {**FLAT, "spatial_dims": 3}
    paths = [checkpoint(network, tmp_path / f"{seed}.pt", seed) for seed in range(3)]
    given = Checkpoint(paths[0], {**network, "_members_": ["1.pt", "2.pt"]})
    card = affine_card(1, 2, tiling=Tiling((8, 8, 8), divisor=(2, 2, 2)))
    exported = TorchExporter(load_network).export(given, card, tmp_path / "net.onnx")
    image = torch.rand(1, 1, 8, 12, 10)
    with torch.inference_mode():
        expected = sum(load_network(path, network)(image).numpy() for path in paths) / 3
    np.testing.assert_allclose(scores(exported.path, image), expected, atol=1e-5)
    assert [each["file"] for each in exported.provenance["source"]["members"]] == ["1.pt", "2.pt"]


def scores(path: Path, image: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"image": image.numpy()})[0]


def test_an_argument_names_a_class(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="missing"):  # it was built
        load_network(tmp_path / "empty.pt", PLAIN)


@pytest.mark.parametrize("name", ["os.system", "torch.load", "torch.hub.load", "subprocess.Popen", "builtins.eval", 5])
def test_a_class_of_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it ran"))
    torch.save({"other": torch.zeros(1)}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match=f"_class_ to be a class of torch.nn or .*, got {name}"):
        load_network(tmp_path / "empty.pt", {**PLAIN, "conv_op": {"_class_": name}})


class Absent:
    """Finds no package of nnU-Net's networks."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "dynamic_network_architectures":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_package_of_nnunets_networks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dynamic_network_architectures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    torch.save({"other": torch.zeros(1)}, tmp_path / "empty.pt")
    with pytest.raises(UsageError, match=r"the package dynamic_network_architectures, .*voxport\[nnunet\]"):
        load_network(tmp_path / "empty.pt", {**PLAIN, "conv_op": None, "norm_op": None, "nonlin": None})


def test_what_a_module_of_torch_nn_imports_is_not_its_class(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match=r"got torch\.nn\.modules\.module\.OrderedDict"):
        load_network(tmp_path / "empty.pt", {**PLAIN, "conv_op": {"_class_": "torch.nn.modules.module.OrderedDict"}})
