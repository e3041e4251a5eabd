"""Checkpoints as trainers write them: the weights are found, what was done is said, and nothing in a file is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from voxport.adapters.runtimes.torch import load_network
from voxport.domain.errors import ModelError

CONV = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8],
    "strides": [2],
    "norm": "batch",
}
WEIGHTS = {"weight": torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1, 1), "bias": torch.tensor([0.5, 3.0])}


def prefixed(prefix: str, weights: dict[str, Any] = WEIGHTS) -> dict[str, Any]:
    return {prefix + key: value for key, value in weights.items()}


def saved(content: object, folder: Path, name: str = "n.ckpt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def assert_loads(path: Path) -> tuple[str, ...]:
    """Right weights: at an image of ones the logits are 2.5 and 2. Gives the notes."""
    network = load_network(path, CONV)
    assert network(torch.ones(1, 1, 1, 1, 1)).flatten().tolist() == [2.5, 2.0]
    notes: Any = network.notes
    return tuple(notes)


@pytest.mark.parametrize("prefix", ["model.", "net.", "_model.", "model._orig_mod.", "module.", "a.b.c."])
def test_a_lightning_file_gives_its_networks_weights_and_says_what_it_left_out(tmp_path: Path, prefix: str) -> None:
    state = {**prefixed(prefix), "loss.class_weights": torch.ones(2), "val_dice.total": torch.zeros(1)}
    content = {"state_dict": state, "epoch": 3, "optimizer_states": [], "pytorch-lightning_version": "2.4.0"}
    (note,) = assert_loads(saved(content, tmp_path))
    assert note == (
        f"n.ckpt: weights under state_dict, prefix {prefix} removed, "
        "2 other tensors left out (loss.class_weights, val_dice.total)"
    )


def test_tensors_of_other_parts_beside_a_whole_network_are_left_out_without_a_prefix(tmp_path: Path) -> None:
    state = {**WEIGHTS, "loss.class_weights": torch.ones(2), "ema_decay": torch.ones(1)}
    (note,) = assert_loads(saved({"state_dict": state}, tmp_path))
    assert note.endswith("2 other tensors left out (loss.class_weights, ema_decay)")


@pytest.mark.parametrize("key", ["model.3.weight", "model.0.conv.extra"])
def test_more_layers_of_the_networks_own_parts_are_another_network(tmp_path: Path, key: str) -> None:
    arguments: Any = {name: value for name, value in UNET.items() if name != "_target_"}
    weights = UNet(**arguments).state_dict()
    with pytest.raises(ModelError, match="1 unexpected") as refused:
        load_network(saved({**weights, key: torch.ones(2)}, tmp_path), UNET)
    assert key in refused.value.got


@pytest.mark.parametrize(
    "holder", ["state_dict", "network_weights", "model", "network", "net", "ema", "params", "weights", "params_ema"]
)
def test_weights_are_found_under_the_usual_names(tmp_path: Path, holder: str) -> None:
    content = {holder: dict(WEIGHTS), "step": 7}
    assert assert_loads(saved(content, tmp_path)) == (f"n.ckpt: weights under {holder}",)


def test_of_two_holders_the_one_not_taken_is_said(tmp_path: Path) -> None:
    other = {key: torch.zeros_like(value) for key, value in WEIGHTS.items()}
    (note,) = assert_loads(saved({"ema": other, "model": dict(WEIGHTS)}, tmp_path))
    assert note == "n.ckpt: weights under model (not ema)"


def test_weights_under_their_own_names_need_no_note(tmp_path: Path) -> None:
    assert assert_loads(saved(dict(WEIGHTS), tmp_path)) == ()


def test_nnu_nets_checkpoint_with_numpy_scalars_is_read(tmp_path: Path) -> None:
    content = {
        "network_weights": dict(WEIGHTS),
        "_best_ema": np.float64(0.87),
        "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.6)], "epochs": [np.int64(3), np.bool_(True)]},
        "init_args": {"device": torch.device("cpu"), "fold": 0},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    assert assert_loads(saved(content, tmp_path, "checkpoint_final.pth")) == (
        "checkpoint_final.pth: weights under network_weights",
    )


def test_numpy_scalars_as_numpy_1_wrote_them_are_read(tmp_path: Path) -> None:
    path = saved({"network_weights": dict(WEIGHTS), "_best_ema": np.float64(0.87)}, tmp_path)
    import zipfile

    older = tmp_path / "older.ckpt"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(older, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            copy.writestr(name.replace("n/", "older/"), content)
    assert_loads(older)


class Reduced:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_scalar_of_another_kind_is_refused(tmp_path: Path) -> None:
    for hostile in (
        np.array([1, "a"], dtype=object),
        np.dtype([("a", "f8"), ("b", "O")]),
        Reduced(np.dtype, "O"),
        Reduced(np.frombuffer, b"12345678"),
        Reduced(os.mkdir, str(tmp_path / "sprung")),
    ):
        path = saved({"network_weights": dict(WEIGHTS), "extra": hostile}, tmp_path)
        with pytest.raises(ModelError, match=r"n\.ckpt"):
            load_network(path, CONV)
    assert not (tmp_path / "sprung").exists()


def test_the_allow_list_lasts_for_one_file_only(tmp_path: Path) -> None:
    path = saved({"network_weights": dict(WEIGHTS), "_best_ema": np.float64(0.87)}, tmp_path)
    assert_loads(path)
    with pytest.raises(pickle.UnpicklingError, match="scalar"):
        torch.load(path, weights_only=True)


def test_two_networks_in_one_file_are_refused_unless_they_are_equal(tmp_path: Path) -> None:
    teacher = {key: value + 1 for key, value in WEIGHTS.items()}
    with pytest.raises(ModelError, match=r"2 sets of them, with the prefixes 'student\.', 'teacher\.'"):
        load_network(saved({"state_dict": prefixed("student.") | prefixed("teacher.", teacher)}, tmp_path), CONV)
    assert_loads(saved({"state_dict": prefixed("student.") | prefixed("teacher.")}, tmp_path))


def test_names_that_repeat_inside_a_network_are_no_prefix(tmp_path: Path) -> None:
    """MONAI's UNet calls its own parts ``model.``."""
    from monai.networks.nets.unet import UNet

    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,), norm="batch").eval()
    image = torch.rand(1, 1, 8, 8, 8)
    for prefix in ("", "model."):
        found = load_network(saved({"state_dict": prefixed(prefix, network.state_dict())}, tmp_path), UNET)
        assert torch.equal(found(image), network(image))


def test_counters_of_batches_may_be_missing_and_nothing_else(tmp_path: Path) -> None:
    network = load_network(saved(unet_state(), tmp_path), UNET)
    state = {key: value for key, value in unet_state().items() if not key.endswith("num_batches_tracked")}
    image = torch.rand(1, 1, 8, 8, 8)
    assert len(state) < len(unet_state())
    assert torch.equal(load_network(saved(state, tmp_path), UNET)(image), network(image))
    del state[next(key for key in state if key.endswith("running_mean"))]
    with pytest.raises(ModelError, match=r"1 missing \(.*running_mean\)"):
        load_network(saved(state, tmp_path), UNET)


def unet_state() -> dict[str, Any]:
    from monai.networks.nets.unet import UNet

    torch.manual_seed(0)
    return dict(
        UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,), norm="batch").state_dict()
    )


@pytest.mark.parametrize("name", ["n.safetensors", "n.pt"])
def test_safetensors_are_read_whatever_their_name(tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    save_file(prefixed("model."), tmp_path / name)
    assert assert_loads(tmp_path / name) == (f"{name}: prefix model. removed",)


def test_damaged_safetensors_are_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "n.safetensors"
    path.write_bytes(save(dict(WEIGHTS))[:-4])
    with pytest.raises(ModelError, match=r"n\.safetensors: expected a safetensors file") as caught:
        load_network(path, CONV)
    assert "\n" not in str(caught.value)


def test_safetensors_without_the_package_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file
    from voxport.domain.errors import UsageError

    save_file(dict(WEIGHTS), tmp_path / "n.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(UsageError, match=r"expected the package safetensors.*voxport\[torch\]"):
        load_network(tmp_path / "n.safetensors", CONV)
