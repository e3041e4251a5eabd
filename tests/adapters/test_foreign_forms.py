"""Each form in which networks come gives the labels that torch gives directly, voxel for voxel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import voxport
from numpy.typing import NDArray
from voxport.application import Application
from voxport.contract.card import read_card
from voxport.ports.exporter import Checkpoint
from voxport.services.models.export import slice_by_slice
from voxport.testing.progress import RecordingProgress

# Pointwise in 3-D, so that neither tiles nor their overlap matter; 3x3 within a slice in 2-D.
_NETS = """
import torch
class Net(torch.nn.Module):
    def __init__(self, channels, end="logits", two_d=False):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, channels, 3, padding=1) if two_d else torch.nn.Conv3d(1, channels, 1)
        self.end = end
    def forward(self, x):
        logits = self.conv(x)
        return {
            "logits": lambda: logits,
            "sigmoid": lambda: torch.sigmoid(logits),
            "softmax": lambda: torch.softmax(logits, 1),
            "arg-max": lambda: logits.argmax(1, keepdim=True).to(torch.float32),
            "two": lambda: {"boundary": -logits, "mask": logits},
        }[self.end]()
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nets_for_voxport.py").write_text(_NETS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("nets_for_voxport", None)


class Form:
    """A network in one form: its weights in a file, and its output for a volume by torch."""

    def __init__(self, folder: Path, channels: int, **arguments: Any) -> None:
        import nets_for_voxport  # type: ignore[import-not-found]

        torch.manual_seed(3)
        self.folder = folder
        self.network = nets_for_voxport.Net(channels, **arguments).eval()
        with torch.no_grad():
            self.network.conv.weight.mul_(4)
        torch.save(self.network.state_dict(), folder / "net.pt")
        self.described = {"_target_": "nets_for_voxport.Net", "channels": channels, **arguments}
        self.values = np.random.default_rng(1).normal(0, 1, (9, 10, 11)).astype(np.float32)

    @torch.no_grad()
    def logits(self) -> NDArray[np.float32]:
        """The convolution's output ``(K, x, y, z)``."""
        image = torch.from_numpy(self.values)
        if isinstance(self.network.conv, torch.nn.Conv2d):
            return np.asarray(self.network.conv(image.permute(2, 0, 1)[:, None]).permute(1, 2, 3, 0))
        return np.asarray(self.network.conv(image[None, None])[0])

    def labels(
        self, output: dict[str, Any], patch: tuple[int, int, int] = (8, 8, 8), *, slices: bool = False, **network: Any
    ) -> Any:
        """The label map by voxport, from the exported file."""
        card = read_card(
            {
                "schema": "voxport/model-card/2",
                "name": "form",
                "version": "1.0.0",
                "input": {"channels": [{"name": "any"}]},
                "inference": {"patch": list(patch), "blending": "constant"},
                "output": output,
            }
        )
        source = Checkpoint(self.folder / "net.pt", {**self.described, **network})
        source = slice_by_slice(source, card) if slices else source
        target = self.folder / "net.onnx"
        Application.build(models_dir=self.folder / "models").export(source, card, target, RecordingProgress())
        with voxport.load(str(target), precision="fp32") as segmenter:
            return segmenter(self.values, spacing=(1, 1, 1), unit="mm").labels.array


def labels_of(*values: int, **channels: int) -> list[dict[str, Any]]:
    return [{"value": value, "name": f"label {value}"} for value in values] + [
        {"value": int(name[1:]), "name": name, "channel": channel} for name, channel in channels.items()
    ]


def test_one_of_two_outputs(tmp_path: Path) -> None:
    form = Form(tmp_path, 3, end="two")
    found = form.labels({"activation": "softmax", "labels": labels_of(1, 2)}, _output_="mask")
    np.testing.assert_array_equal(found, form.logits().argmax(axis=0))


def test_a_sigmoid_inside(tmp_path: Path) -> None:
    form = Form(tmp_path, 1, end="sigmoid")
    found = form.labels({"activation": "none", "labels": labels_of(1)})
    np.testing.assert_array_equal(found, form.logits()[0] >= 0)
    assert 0.1 < found.mean() < 0.9


def test_a_softmax_inside(tmp_path: Path) -> None:
    form = Form(tmp_path, 3, end="softmax")
    found = form.labels({"activation": "none", "labels": labels_of(1, 2)})
    np.testing.assert_array_equal(found, form.logits().argmax(axis=0))


def test_an_arg_max_inside(tmp_path: Path) -> None:
    form = Form(tmp_path, 4, end="arg-max")
    found = form.labels({"activation": "labels", "labels": labels_of(1, 2, 3)})
    np.testing.assert_array_equal(found, form.logits().argmax(axis=0))
    renumbered = form.labels({"activation": "labels", "labels": labels_of(l4=3, l9=1)})
    np.testing.assert_array_equal(renumbered, np.array([0, 9, 0, 4])[form.logits().argmax(axis=0)])


def test_labels_1_2_and_4(tmp_path: Path) -> None:
    form = Form(tmp_path, 4)
    found = form.labels({"activation": "softmax", "labels": labels_of(l1=1, l2=2, l4=3)})
    np.testing.assert_array_equal(found, np.array([0, 1, 2, 4])[form.logits().argmax(axis=0)])


def test_regions_with_priorities_of_their_own(tmp_path: Path) -> None:
    """Channels are TC, WT, ET; priority is ET before TC before WT."""
    form = Form(tmp_path, 3)
    found = form.labels({"activation": "sigmoid", "labels": labels_of(l2=1, l1=0, l4=2)})
    core, whole, enhancing = form.logits() >= 0
    np.testing.assert_array_equal(found, np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0))))


def test_a_network_for_2d_images(tmp_path: Path) -> None:
    form = Form(tmp_path, 2, two_d=True)
    found = form.labels({"activation": "softmax", "labels": labels_of(1)}, (16, 16, 1), slices=True)
    np.testing.assert_array_equal(found, form.logits().argmax(axis=0))
