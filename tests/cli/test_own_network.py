"""A network's class may be in a file of the current folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import yaml

from .conftest import environment

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
    (tmp_path / "my_networks.py").write_text(NETWORK)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
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
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "net.onnx").is_file()
