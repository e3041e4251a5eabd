import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from voxport.adapters.runtimes.torch import TorchRuntime, load_network, open_torch_runtime
from voxport.domain.errors import ModelError, UsageError
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.testing.affine import Floats, affine_card, affine_model
from voxport.testing.runtime import RuntimeContract

SEGRESNET = {"_target_": "SegResNet", "init_filters": 8, "out_channels": 2, "blocks_down": [1, 1], "blocks_up": [1]}
CONV = {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 3, "kernel_size": 1}


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def conv(weights: Floats, bias: Floats) -> torch.nn.Conv3d:
    classes, channels = weights.shape
    network = torch.nn.Conv3d(channels, classes, 1)
    network.weight.data = torch.from_numpy(weights.reshape(classes, channels, 1, 1, 1).copy())
    assert network.bias is not None
    network.bias.data = torch.from_numpy(bias.copy())
    return network.eval()


def save_traced(network: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(network, example), path)  # type: ignore[no-untyped-call]


def opened(
    path: Path,
    network: Mapping[str, Any],
    options: RuntimeOptions | None = None,
    device: str = "cpu",
    channels: int = 2,
) -> TorchRuntime:
    card = affine_card(channels, 2, provenance={"network": network})
    return open_torch_runtime(affine_model(path, card, "checkpoint"), options or RuntimeOptions(), device)


class TestStateDict(RuntimeContract):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        classes, channels = weights.shape
        torch.save(conv(weights, bias).state_dict(), folder / "network.pt")
        return opened(folder / "network.pt", {**CONV, "in_channels": channels, "out_channels": classes}, options)


class TestTorchScript(RuntimeContract):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        save_traced(conv(weights, bias), torch.zeros(1, weights.shape[1], 2, 2, 2), folder / "network.ts")
        return opened(folder / "network.ts", {}, options, channels=weights.shape[1])


@pytest.fixture
def segresnet(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    from monai.networks.nets.segresnet import SegResNet

    torch.manual_seed(0)
    network = SegResNet(init_filters=8, out_channels=2, blocks_down=(1, 1), blocks_up=(1,)).eval()
    torch.save(network.state_dict(), tmp_path / "network.pt")
    return tmp_path / "network.pt", network


def test_a_monai_network_is_found_by_its_short_name(segresnet: tuple[Path, torch.nn.Module]) -> None:
    path, network = segresnet
    batch = np.random.default_rng(0).random((1, 1, 4, 6, 8), np.float32)
    runtime = opened(path, SEGRESNET)
    with torch.inference_mode():
        np.testing.assert_array_equal(runtime.infer(batch), network(torch.from_numpy(batch)).numpy())
    assert runtime.input_shape == (None, 1, None, None, None)


@pytest.mark.parametrize("nesting", ["state_dict", "model", "model_state_dict", "network", "network_weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_weights_are_found_where_trainers_put_them(tmp_path: Path, nesting: str, prefix: str) -> None:
    weights, bias = np.ones((3, 2), np.float32), np.arange(3, dtype=np.float32)
    state = {prefix + key: value for key, value in conv(weights, bias).state_dict().items()}
    torch.save({"epoch": 3, nesting: state, "optimizer": {"lr": 0.1}}, tmp_path / "n.pt")
    logits = opened(tmp_path / "n.pt", CONV).infer(np.ones((1, 2, 1, 1, 1), np.float32))
    assert logits.ravel().tolist() == [2, 3, 4]


def test_the_file_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    state = torch.nn.Conv3d(2, 3, 1).state_dict()
    torch.save(state, tmp_path / "n.pt", _use_new_zipfile_serialization=False)
    assert opened(tmp_path / "n.pt", CONV).infer(np.zeros((1, 2, 1, 1, 1), np.float32)).shape == (1, 3, 1, 1, 1)


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, how: str) -> None:
    trap = {"state_dict": Trap(tmp_path / "sprung")}
    if how == "pickle":
        (tmp_path / "n.pt").write_bytes(pickle.dumps(trap, protocol=2))
    else:
        torch.save(trap, tmp_path / "n.pt", _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "n.pt", CONV)
    assert not (tmp_path / "sprung").exists()
    assert "n.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
    if how == "torch":
        assert "mkdir" in caught.value.got


def test_a_whole_pickled_network_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv3d(2, 3, 1), tmp_path / "n.pt")
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.conv\.Conv3d.*state_dict\(\)"):
        opened(tmp_path / "n.pt", CONV)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x80", bytes(range(256)), b"PK\x03\x04" + bytes(60)])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "n.pt").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "n.pt", CONV)
    assert "n.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["weights", "script"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "n.pt"
    if kind == "weights":
        torch.save({"weight": torch.zeros(3000)}, path)
    else:
        save_traced(torch.nn.Conv3d(2, 3, 1), torch.zeros(1, 2, 2, 2, 2), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"n\.pt"):
        opened(path, CONV)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"epoch": 3}, [1, 2], {"model": {"model": {"lr": 1}}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "n.pt")
    with pytest.raises(ModelError, match="tensors by name"):
        opened(tmp_path / "n.pt", CONV)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ModelError, match="no such file"):
            load_network(path, CONV)


def test_weights_of_another_network_are_listed_by_kind_with_counts(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 1, 1, 1, 1), "other": torch.zeros(1)}, tmp_path / "n.pt")
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "n.pt", CONV)
    assert "1 missing (bias)" in caught.value.got
    assert "1 unexpected (other)" in caught.value.got
    assert "weight (3, 1, 1, 1, 1) instead of (3, 2, 1, 1, 1)" in caught.value.got


def test_many_differences_are_counted_and_few_are_named(segresnet: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(ModelError) as caught:
        opened(segresnet[0], {**SEGRESNET, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]})
    assert ", ..." in caught.value.got
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("NoSuchNet", "no NoSuchNet in monai"),
        ("no_such_package.Net", "no_such_package"),
        ("os.system", "which is none"),
        ("builtins.exec", "which is none"),
        ("subprocess.Popen", "which is none"),
        ("torch.load", "which is none"),
        ("torch.nn.functional", "which is none"),
        ("os.system('x')", "torch.nn.Module"),
        ("", "torch.nn.Module"),
        (None, "torch.nn.Module"),
        (3, "torch.nn.Module"),
    ],
)
def test_a_target_that_is_no_network_is_refused(tmp_path: Path, target: object, said: str) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "n.pt")
    with pytest.raises(ModelError, match=r"torch\.nn\.Module") as caught:
        opened(tmp_path / "n.pt", {"_target_": target})
    assert said in str(caught.value)


def test_arguments_that_the_network_does_not_take_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "n.pt")
    with pytest.raises(ModelError, match="init_filtres"):
        opened(tmp_path / "n.pt", {"_target_": "SegResNet", "init_filtres": 8})
    with pytest.raises(ModelError, match="downloads"):
        opened(tmp_path / "n.pt", {"_target_": "FlexibleUNet", "in_channels": 1, "pretrained": True})


def test_weights_without_a_network_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), tmp_path / "n.pt")
    with pytest.raises(ModelError, match="`network`"):
        opened(tmp_path / "n.pt", {})


def test_a_named_network_takes_the_weights_of_a_torchscript_file(tmp_path: Path) -> None:
    network = torch.nn.Conv3d(2, 3, 1)
    save_traced(network, torch.zeros(1, 2, 2, 2, 2), tmp_path / "n.ts")
    found = load_network(tmp_path / "n.ts", CONV)
    assert not any(isinstance(module, torch.jit.ScriptModule) for module in found.modules())
    image = torch.rand(1, 2, 3, 3, 3)
    assert torch.equal(found(image), network(image))


def test_the_only_output_of_the_images_size_is_the_logits(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(3, 2, 1, 1, 1), "conv.bias": torch.zeros(3)}, tmp_path / "n.pt")
    package = tmp_path / "several_outputs_for_voxport"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, kind):\n"
        "        super().__init__()\n"
        "        self.conv, self.kind = torch.nn.Conv3d(2, 3, 1), kind\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x)\n"
        "        return {'list': [y, y[..., ::2]], 'dict': {'out': (y,), 'aux': x[..., ::2]}, 'empty': [],\n"
        "                'flat': y[:, 0], 'labels': y.argmax(1, keepdim=True)}[self.kind]\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        runtimes = {
            kind: opened(tmp_path / "n.pt", {"_target_": f"{package.name}.Net", "kind": kind})
            for kind in ("list", "dict", "empty", "flat", "labels")
        }
    batch = np.ones((1, 2, 2, 2, 2), np.float32)
    assert runtimes["list"].infer(batch).shape == runtimes["dict"].infer(batch).shape == (1, 3, 2, 2, 2)
    for kind in ("empty", "flat", "labels"):
        with pytest.raises(ModelError, match="network output"):
            runtimes[kind].infer(batch)


def test_a_size_that_the_network_cannot_take_is_a_model_error(segresnet: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(ModelError, match=r"\(1, 1, 5, 5, 5\)"):
        opened(segresnet[0], SEGRESNET).infer(np.zeros((1, 1, 5, 5, 5), np.float32))


def test_threads_are_torchs_and_none_leaves_them_alone(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), tmp_path / "n.pt")
    torch.set_num_threads(2)
    opened(tmp_path / "n.pt", CONV)
    assert torch.get_num_threads() == 2
    opened(tmp_path / "n.pt", CONV, RuntimeOptions(threads=1))
    assert torch.get_num_threads() == 1


def test_a_device_that_is_not_here_is_a_usage_error(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), tmp_path / "n.pt")
    for device in ("cuda:99", "meta", "gpu"):
        with pytest.raises(UsageError, match=device):
            opened(tmp_path / "n.pt", CONV, device=device)
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert opened(tmp_path / "n.pt", CONV, device="auto").device == expected


def test_a_card_whose_network_is_no_mapping_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), tmp_path / "n.pt")
    card = affine_card(2, 3, provenance={"network": "SegResNet"})
    with pytest.raises(ModelError, match=r"provenance\.network"):
        open_torch_runtime(affine_model(tmp_path / "n.pt", card, "checkpoint"), RuntimeOptions())


def test_importing_the_adapters_imports_no_torch() -> None:
    code = (
        "import sys, voxport.adapters.runtimes.torch, voxport.adapters.exporters.torch\n"
        "print([m for m in ('torch', 'monai', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
