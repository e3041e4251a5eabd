"""Networks that benchmarks train and export, described as `voxport export` takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MONAI = "monai.networks.nets"
_NNUNET = "dynamic_network_architectures.architectures.unet"
_FEATURES, _KERNEL, _HALVED = [32, 64, 128, 256, 320, 320], [3, 3, 3], [2, 2, 2]
# as nnU-Net's planner writes them for 3-D images
_PLANNED: dict[str, Any] = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": len(_FEATURES),
    "features_per_stage": _FEATURES,
    "kernel_sizes": [_KERNEL] * len(_FEATURES),
    "strides": [[1, 1, 1], *[_HALVED] * (len(_FEATURES) - 1)],
    "conv_op": {"_class_": "torch.nn.Conv3d"},
    "conv_bias": True,
    "norm_op": {"_class_": "torch.nn.InstanceNorm3d"},
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": {"_class_": "torch.nn.LeakyReLU"},
    "nonlin_kwargs": {"inplace": True},
}
_CHANNELS: dict[str, Any] = {"in_channels": 1, "out_channels": 2}


@dataclass(frozen=True)
class Network:
    """A network: ``target`` is its class, ``divisor`` what the edges of its patches are multiples of."""

    title: str
    target: str
    arguments: Mapping[str, Any]
    divisor: int

    @property
    def described(self) -> dict[str, Any]:
        """Return the description that `build_network` takes."""
        return {"_target_": self.target, **self.arguments}


NETWORKS = {
    "segresnet": Network(
        "SegResNet-16",
        f"{_MONAI}.segresnet.SegResNet",
        {"spatial_dims": 3, **_CHANNELS, "init_filters": 16, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
        8,
    ),
    "plainconvunet": Network(
        "nnU-Net's PlainConvUNet",
        f"{_NNUNET}.PlainConvUNet",
        {**_PLANNED, "n_conv_per_stage": [2] * 6, "n_conv_per_stage_decoder": [2] * 5},
        32,
    ),
    "residualencoderunet": Network(
        "nnU-Net's ResidualEncoderUNet",
        f"{_NNUNET}.ResidualEncoderUNet",
        {**_PLANNED, "n_blocks_per_stage": [1, 3, 4, 6, 6, 6], "n_conv_per_stage_decoder": [1] * 5},
        32,
    ),
    "dynunet": Network(
        "DynUNet",
        f"{_MONAI}.dynunet.DynUNet",
        {
            "spatial_dims": 3,
            **_CHANNELS,
            "kernel_size": [3] * 5,
            "strides": [1, 2, 2, 2, 2],
            "upsample_kernel_size": [2] * 4,
        },
        16,
    ),
    "unet": Network(
        "MONAI's UNet",
        f"{_MONAI}.unet.UNet",
        {
            "spatial_dims": 3,
            **_CHANNELS,
            "channels": [16, 32, 64, 128, 256],
            "strides": [2, 2, 2, 2],
            "num_res_units": 2,
        },
        16,
    ),
    "swinunetr": Network(
        "SwinUNETR",
        f"{_MONAI}.swin_unetr.SwinUNETR",
        {**_CHANNELS, "feature_size": 24},
        32,
    ),
}


def export(name: str, patch: list[int], folder: Path, steps: int, threads: int) -> None:
    """Train a network on images like those of `material.blobs`; write ``network.pt`` and ``network.onnx``."""
    network = NETWORKS[name]
    card = {
        "schema": "voxport/model-card/1",
        "name": name,
        "version": "1.0.0",
        "input": {"channels": [{"name": "image"}], "intensity": [{"shift_scale": [0, 1 / 255]}]},
        "tiling": {"patch": patch, "divisor": network.divisor, "overlap": 0.5, "blending": "gaussian"},
        "output": {"activation": "softmax", "labels": [{"value": 1, "name": "foreground"}]},
    }
    (folder / "card.yaml").write_text(json.dumps(card), encoding="utf-8")
    train = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("training.py")), name, "network.pt"]
    train += ["--steps", str(steps), "--threads", str(threads)]
    # what benchmarks print is their result
    subprocess.run(train, cwd=folder, check=True, stdout=sys.stderr)
    export = ["export", "network.pt", "--card", "card.yaml", "-o", "network.onnx", "--quiet"]
    arguments = ["--network", network.target, "--network-args", json.dumps(network.arguments)]
    subprocess.run([sys.executable, "-m", "voxport", *export, *arguments], cwd=folder, check=True)
