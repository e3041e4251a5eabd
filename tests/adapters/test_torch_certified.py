"""Whole exports of network kinds that people have: written, proved in every runtime here, and of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.exporters.torch import TorchExporter
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.adapters.runtimes.torch import load_network, open_torch_runtime
from voxport.domain.inference.patches import Tiling
from voxport.ports.exporter import Checkpoint
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.services.models.export import ExportPorts, ExportResult, export_model
from voxport.testing.affine import affine_card
from voxport.testing.progress import RecordingProgress

# InstanceNorm is the default; the deepest features are a 16th of the image
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 8, 8, 8],
    "strides": [2, 2, 2, 2],
}


def open_onnx(model: Model, options: RuntimeOptions) -> InferenceRuntime:
    return open_onnx_runtime(model, options, OnnxRuntimeSettings(threads=2))


def exported(folder: Path, description: Mapping[str, Any], tiling: Tiling) -> ExportResult:
    import monai.networks.nets

    arguments = dict(description)
    torch.manual_seed(0)
    network = getattr(monai.networks.nets, arguments.pop("_target_"))(**arguments)
    torch.save(network.state_dict(), folder / "n.pt")
    ports = ExportPorts(
        TorchExporter(load_network), OnnxModelFiles(), LocalFiles(), open_torch_runtime, open_onnx, {"onnx": open_onnx}
    )
    checkpoint, card = Checkpoint(folder / "n.pt", description), affine_card(1, 2, tiling=tiling)
    return export_model(checkpoint, card, folder / "n.onnx", RecordingProgress(), ports=ports)


@pytest.mark.no_cover
def test_an_instance_norm_network_is_exported_with_its_true_divisor(tmp_path: Path) -> None:
    done = exported(tmp_path, UNET, Tiling((64, 64, 64), divisor=16))
    assert done.dynamic
    assert done.verification.entry.holds()
    assert min(min(probe.shape[2:]) for probe in done.verification.probes) == 32
