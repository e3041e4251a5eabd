"""A network's class may be in a file of the current folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml
from onnx import numpy_helper

from .conftest import Command, environment

CARD = {
    "schema": "voxport/model-card/1",
    "name": "own",
    "version": "1.0.0",
    "input": {"channels": [{"name": "any"}]},
    "tiling": {"patch": [16, 16, 16]},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "label"}]},
}
NETWORK = """import torch


class Network(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.inner = torch.nn.Conv3d(1, classes, 3, padding=1)

    def forward(self, x):
        return self.inner(x)
"""


def test_export_finds_a_network_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "my_networks.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD), encoding="utf-8")
    inner = torch.nn.Conv3d(1, 2, 3, padding=1)
    torch.save({f"inner.{name}": value for name, value in inner.state_dict().items()}, tmp_path / "net.pt")
    # the console script, whose folder is on the path in place of the current one
    voxport = Path(sys.executable).with_name("voxport")
    options = ("--network", "my_networks.Network", "--network-args", '{"classes": 2}', "--quiet")
    result = subprocess.run(
        [str(voxport), "export", "net.pt", "--card", "card.yaml", "-o", "net.onnx", *options],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "net.onnx").is_file()


def test_a_changed_network_is_certified_anew_as_advised(voxport: Command, tmp_path: Path) -> None:
    """The card that is given lacks the network first, and the message says where it goes."""
    network = torch.nn.Conv3d(1, 2, 1)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD), encoding="utf-8")
    described = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(CARD | {"provenance": {"network": described}}), encoding="utf-8")
    assert (
        voxport(
            "export",
            "net.pt",
            "--card",
            "full.yaml",
            "-o",
            "net.onnx",
            "--network",
            "torch.nn.Conv3d",
            "--network-args",
            '{"in_channels": 1, "out_channels": 2, "kernel_size": 1}',
        ).returncode
        == 0
    )
    changed = onnx.load(tmp_path / "net.onnx")
    for tensor in changed.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1), tensor.name))
    onnx.save(changed, tmp_path / "net.onnx")
    torch.save({name: value + 1 for name, value in network.state_dict().items()}, tmp_path / "net.pt")
    refused = voxport("verify", "net.onnx", "--against", "net.pt")
    assert refused.returncode == 4
    assert "certify it anew with voxport verify, a --card without parity, and --against" in refused.stderr
    nameless = voxport("verify", "net.onnx", "--against", "net.pt", "--card", "card.yaml")
    assert "or both in the card: provenance: {network: {_target_: SegResNet" in nameless.stderr
    anew = voxport("verify", "net.onnx", "--against", "net.pt", "--card", "full.yaml")
    assert anew.returncode == 0, anew.stderr
    assert voxport("verify", "net.onnx").returncode == 0
