"""A network with random weights, and the file that the real command makes of its checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.networks.nets.segresnet import SegResNet
from numpy.typing import NDArray

from tests.cli.conftest import environment

CARD = {
    "schema": "voxport/model-card/1",
    "name": "fresh",
    "version": "1.0.0",
    "description": "A SegResNet with random weights.",
    "licence": "Apache-2.0",
    "intended_use": "tests",
    "input": {"axes": "XYZ", "channels": [{"name": "any", "source": 0}], "intensity": [{"rescale": [0, 1]}]},
    "tiling": {"patch": [32, 32, 16], "divisor": 8, "overlap": 0.5},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "one"}, {"value": 2, "name": "two"}]},
}


@dataclass(frozen=True)
class Exported:
    """A network, and the file that ``voxport export`` made of its checkpoint."""

    network: SegResNet
    model: Path

    def labels(self, volume: NDArray[Any]) -> NDArray[np.int64]:
        """What PyTorch says of a volume of one tile."""
        scaled = (volume - volume.min()) / (volume.max() - volume.min())
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(scaled[None, None].astype(np.float32)))
        return np.asarray(logits[0].argmax(0).numpy())


def export_fresh(folder: Path) -> Exported:
    """Save a checkpoint in a folder, and export it there."""
    torch.manual_seed(11)
    arguments = {"init_filters": 8, "in_channels": 1, "out_channels": 3, "blocks_down": [1, 1, 2], "blocks_up": [1, 1]}
    network = SegResNet(**arguments).eval()
    torch.save(network.state_dict(), folder / "checkpoint.pt")
    (folder / "card.yaml").write_text(yaml.safe_dump(CARD), encoding="utf-8")
    command = [sys.executable, "-m", "voxport", "export", "checkpoint.pt", "--card", "card.yaml", "-o", "fresh.onnx"]
    command += ["--network", "SegResNet", "--network-args", json.dumps(arguments)]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, timeout=300, capture_output=True)
    return Exported(network, folder / "fresh.onnx")


def noise() -> NDArray[np.float32]:
    """A volume of one tile."""
    return np.random.default_rng(5).random((32, 32, 16), np.float32)
