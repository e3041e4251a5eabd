import json
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from voxport.adapters.exporters.torch import TorchExporter
from voxport.adapters.runtimes.torch import load_network
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Tiling
from voxport.ports.exporter import Checkpoint, Exported, ModelExporter
from voxport.testing.affine import Floats, affine_card
from voxport.testing.exporter import ModelExporterContract

SEGRESNET = {"_target_": "SegResNet", "init_filters": 8, "out_channels": 2}
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 8],
    "strides": [2, 2],
    "num_res_units": 1,
}
DYNUNET = {
    "_target_": "DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "deep_supervision": True,
    "deep_supr_num": 1,
}
SWIN = {
    "_target_": "SwinUNETR",
    "in_channels": 1,
    "out_channels": 2,
    "feature_size": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 1, 1],
}


@cache
def built(description: str) -> torch.nn.Module:
    from monai.networks import nets

    arguments = json.loads(description)
    torch.manual_seed(0)
    network: torch.nn.Module = getattr(nets, arguments.pop("_target_"))(**arguments)
    return network.eval()


def network_of(description: Mapping[str, Any]) -> torch.nn.Module:
    return built(json.dumps(description))


def checkpoint_of(description: Mapping[str, Any], folder: Path) -> Checkpoint:
    torch.save(network_of(description).state_dict(), folder / "network.pt")
    return Checkpoint(folder / "network.pt", description)


def script_of(network: torch.nn.Module, how: Literal["trace", "script"], path: Path) -> Checkpoint:
    with warnings.catch_warnings():
        # TracerWarning is what becomes a SystemError inside torch's tracer when warnings are errors.
        warnings.simplefilter("ignore")
        example = torch.zeros(1, 1, 16, 16, 16)
        if how == "trace":
            torch.jit.save(torch.jit.trace(network, example), path)  # type: ignore[no-untyped-call]
        else:
            torch.jit.save(torch.jit.script(network), path)
    return Checkpoint(path)


def export(checkpoint: Checkpoint, tiling: Tiling, axes: Literal["XYZ", "ZYX"] = "XYZ") -> Exported:
    card = affine_card(1, 2, tiling=tiling, axes=axes)
    return TorchExporter(load_network).export(checkpoint, card, checkpoint.path.with_name("model.onnx"))


def difference(exported: Exported, network: torch.nn.Module, shape: tuple[int, ...]) -> float:
    image = np.random.default_rng(sum(shape)).random(shape, np.float32)
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["scores"], {"image": image})
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    assert logits.shape == expected.shape
    return float(np.abs(logits - expected).max())


class TestTorchExporter(ModelExporterContract):
    def make_exporter(self) -> ModelExporter:
        return TorchExporter(load_network)

    def affine_checkpoint(self, folder: Path, weights: Floats, bias: Floats) -> Checkpoint:
        classes, channels = weights.shape
        kernel = torch.from_numpy(weights.reshape(classes, channels, 1, 1, 1).copy())
        torch.save({"weight": kernel, "bias": torch.from_numpy(bias.copy())}, folder / "network.pt")
        description = {
            "_target_": "torch.nn.Conv3d",
            "in_channels": channels,
            "out_channels": classes,
            "kernel_size": 1,
        }
        return Checkpoint(folder / "network.pt", description)


@pytest.mark.no_cover  # here and below: the tracer would double the time that PyTorch takes
@pytest.mark.parametrize(("description", "divisor"), [(SEGRESNET, 8), (UNET, 4), (DYNUNET, 4)])
def test_a_network_exports_with_dynamic_axes_and_scores_the_same(
    description: Mapping[str, Any], divisor: int, tmp_path: Path
) -> None:
    exported = export(checkpoint_of(description, tmp_path), Tiling((None, None, None), divisor=divisor))
    assert exported.dynamic
    for cases in (1, 2):
        for steps in ((3, 5, 3), (7, 1, 2), (1, 3, 9)):
            shape = (cases, 1, *(divisor * step for step in steps))
            assert difference(exported, network_of(description), shape) <= 1e-4


@pytest.mark.no_cover
def test_a_network_that_is_slow_to_export_gets_the_cards_patch_and_keeps_a_dynamic_batch(tmp_path: Path) -> None:
    exported = export(checkpoint_of(SWIN, tmp_path), Tiling((64, 32, 32), divisor=32))
    assert not exported.dynamic
    assert exported.provenance["dynamic"] is False
    for cases in (1, 2):
        assert difference(exported, network_of(SWIN), (cases, 1, 64, 32, 32)) <= 1e-4


@pytest.mark.parametrize("how", ["trace", "script"])
def test_a_torchscript_file_exports_with_dynamic_axes(how: Literal["trace", "script"], tmp_path: Path) -> None:
    exported = export(script_of(network_of(UNET), how, tmp_path / "n.ts"), Tiling((None, None, None), divisor=4))
    assert exported.dynamic
    for shape in ((1, 1, 12, 20, 28), (2, 1, 4, 36, 12)):
        assert difference(exported, network_of(UNET), shape) <= 1e-4


class SizeInside(torch.nn.Module):
    """Once it is traced it scores at the example's size, whatever the input's."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = [int(edge) for edge in image.shape[2:]]
        half = torch.nn.functional.avg_pool3d(image, 2)
        return torch.nn.functional.interpolate(half, size=size) * torch.arange(2).reshape(1, 2, 1, 1, 1)


def test_a_network_with_one_size_inside_is_exported_at_that_patch_only(tmp_path: Path) -> None:
    checkpoint = script_of(SizeInside(), "trace", tmp_path / "n.ts")
    exported = export(checkpoint, Tiling((16, 16, 16), divisor=2))
    assert not exported.dynamic
    for cases in (1, 3):
        assert difference(exported, SizeInside(), (cases, 1, 16, 16, 16)) <= 1e-4
    for patch in ((16, 16, None), (8, 16, 16)):
        with pytest.raises(ModelError, match="patch"):
            export(checkpoint, Tiling(patch, divisor=2))


def test_a_scripted_network_that_resizes_exports_once_its_network_is_named(tmp_path: Path) -> None:
    description = {
        "_target_": "SegResNet",
        "init_filters": 8,
        "out_channels": 2,
        "blocks_down": [1, 1],
        "blocks_up": [1],
    }
    checkpoint = script_of(network_of(description), "script", tmp_path / "n.ts")
    with pytest.raises(ModelError, match="name the network"):
        export(checkpoint, Tiling((8, 12, 16), divisor=2))
    exported = export(Checkpoint(checkpoint.path, description), Tiling((8, 12, 16), divisor=2))
    assert exported.dynamic
    assert difference(exported, network_of(description), (2, 1, 6, 4, 10)) <= 1e-4


def test_a_network_that_does_not_fit_the_card_is_refused_with_the_reason(tmp_path: Path) -> None:
    checkpoint = checkpoint_of({**UNET, "in_channels": 3}, tmp_path)
    for patch in ((8, 8, 8), (None, None, None)):
        with pytest.raises(ModelError, match="3 channels") as caught:
            export(checkpoint, Tiling(patch, divisor=4))
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["network.pt"]


def test_a_divisor_that_is_too_small_fixes_the_patch_in_the_networks_axes(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(UNET, tmp_path)
    exported = export(checkpoint, Tiling((8, 12, 16), divisor=1), axes="ZYX")
    assert not exported.dynamic
    sides = onnxruntime.InferenceSession(str(exported.path)).get_inputs()[0].shape
    assert sides[1:] == [1, 16, 12, 8]
    assert difference(exported, network_of(UNET), (2, 1, 16, 12, 8)) <= 1e-4
    with pytest.raises(ModelError, match="divisor"):
        export(checkpoint, Tiling((8, 12, None), divisor=1))


@pytest.fixture(scope="module")
def exported_unet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(checkpoint_of(UNET, tmp_path_factory.mktemp("unet")), Tiling((None, None, None), divisor=4))


def test_the_file_holds_no_paths_of_this_machine(exported_unet: Exported) -> None:
    content = exported_unet.path.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content
    model = onnx.load(exported_unet.path)
    assert not model.metadata_props
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_provenance_says_what_made_the_file(exported_unet: Exported) -> None:
    provenance = exported_unet.provenance
    assert provenance["network"] == UNET
    assert {"torch", "monai", "onnx", "onnxscript"} == set(provenance["versions"])
    assert provenance["opset"] == 20
    assert provenance["dynamic"] is True
    assert provenance["date"].endswith("+00:00")
