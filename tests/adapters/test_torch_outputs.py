"""Of several outputs the right one is taken or none: with heads in closed form, every voxel tells which it was."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from voxport.adapters.exporters.torch import TorchExporter
from voxport.adapters.runtimes.torch import load_network
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Tiling
from voxport.ports.exporter import Checkpoint
from voxport.testing.affine import affine_card

# head k of an image x is (x + k, -x - k), so that each voxel says which head it is of
_NET = """
import torch
class Heads(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.one, self.kind = torch.nn.Parameter(torch.ones(1)), kind
    def head(self, x, k):
        y = x * self.one + k
        return torch.cat([y, -y], 1)
    def forward(self, x):
        a, b, c = (self.head(x, k) for k in range(3))
        half, quarter = a[..., ::2, ::2, ::2], a[..., ::4, ::4, ::4]
        return {
            "three full": [a, b, c], "dict": {"main": a, "aux": b}, "nested": {"out": (a, b)},
            "falling": [a, half, quarter], "rising": [quarter, half, a], "with nothing": (a, None),
            "with a vector": {"class": a.mean((2, 3, 4)), "seg": b}, "only halves": [half, half],
        }[self.kind]
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "heads_for_voxport.py").write_text(_NET, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("heads_for_voxport", None)


def loaded(folder: Path, kind: str, choice: object = None) -> torch.nn.Module:
    torch.save({"one": torch.ones(1)}, folder / "n.pt")
    chosen = {} if choice is None else {"_output_": choice}
    return load_network(folder / "n.pt", {"_target_": "heads_for_voxport.Heads", "kind": kind, **chosen})


def head_of(network: torch.nn.Module) -> int:
    """Which head it is, by every voxel."""
    image = torch.rand(2, 1, 4, 8, 12)
    logits = network(image)
    heads = [k for k in range(3) if torch.equal(logits, torch.cat([image + k, -image - k], 1))]
    assert len(heads) == 1
    return heads[0]


@pytest.mark.parametrize(("kind", "head"), [("falling", 0), ("rising", 0), ("with nothing", 0), ("with a vector", 1)])
def test_the_only_output_of_the_images_size_is_taken(tmp_path: Path, kind: str, head: int) -> None:
    assert head_of(loaded(tmp_path, kind)) == head


@pytest.mark.parametrize(
    ("kind", "listed"),
    [
        ("three full", r"3 of them in: 0 \(2, 2, 4, 8, 12\), 1 \(2, 2, 4, 8, 12\), 2 \("),
        ("dict", r"2 of them in: 0 main \(2, 2, 4, 8, 12\), 1 aux \("),
        ("nested", r"2 of them in: 0 out.0 \(2, 2, 4, 8, 12\), 1 out.1 \("),
        ("only halves", r"0 of them in: 0 \(2, 2, 2, 4, 6\), 1 \("),
    ],
)
def test_several_outputs_or_none_of_the_images_size_are_refused_with_a_list(
    tmp_path: Path, kind: str, listed: str
) -> None:
    with pytest.raises(ModelError, match=listed):
        head_of(loaded(tmp_path, kind))


@pytest.mark.parametrize(
    ("kind", "choice", "head"),
    [
        *[("three full", choice, int(choice)) for choice in (0, 1, 2, "0", "1", "2")],
        ("dict", "main", 0),
        ("dict", "aux", 1),
        ("dict", "1", 1),
        ("nested", "out.1", 1),
    ],
)
def test_an_output_is_chosen_by_its_name_or_index(tmp_path: Path, kind: str, choice: Any, head: int) -> None:
    assert head_of(loaded(tmp_path, kind, choice)) == head


@pytest.mark.parametrize(("kind", "choice"), [("three full", "3"), ("dict", "seg"), ("nested", "out")])
def test_a_choice_that_names_no_single_output_is_refused_with_a_list(tmp_path: Path, kind: str, choice: str) -> None:
    with pytest.raises(ModelError, match=f"got {choice} of 0 "):
        head_of(loaded(tmp_path, kind, choice))


@pytest.mark.parametrize(("kind", "choice", "head"), [("three full", 2, 2), ("falling", None, 0), ("dict", "aux", 1)])
def test_the_exported_file_gives_the_chosen_output_at_every_voxel(
    tmp_path: Path, kind: str, choice: Any, head: int
) -> None:
    loaded(tmp_path, kind)
    chosen = {} if choice is None else {"_output_": choice}
    description = {"_target_": "heads_for_voxport.Heads", "kind": kind, **chosen}
    card = affine_card(1, 2, tiling=Tiling((16, 16, 16), divisor=4))
    exported = TorchExporter(load_network).export(Checkpoint(tmp_path / "n.pt", description), card, tmp_path / "n.onnx")
    assert exported.dynamic
    assert json.dumps(exported.provenance["network"])
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((2, 1, 8, 12, 4), np.float32)
    (logits,) = session.run(None, {"image": image})
    np.testing.assert_array_equal(logits, np.concatenate([image + head, -image - head], 1))


def test_a_scripted_network_with_several_outputs_is_exported_with_the_chosen_one(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.cat([image, -image], 1), torch.cat([image + 1, -image - 1], 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Two()), tmp_path / "n.ts")
    card = affine_card(1, 2, tiling=Tiling((16, 16, 16), divisor=4))
    with pytest.raises(ModelError, match="2 of them in"):
        TorchExporter(load_network).export(Checkpoint(tmp_path / "n.ts"), card, tmp_path / "n.onnx")
    TorchExporter(load_network).export(Checkpoint(tmp_path / "n.ts", {"_output_": 1}), card, tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 1, 8, 12, 4), np.float32)
    (logits,) = session.run(None, {"image": image})
    np.testing.assert_array_equal(logits, np.concatenate([image + 1, -image - 1], 1))


@pytest.mark.no_cover
def test_monais_deep_supervision_is_refused_until_its_final_head_is_named(tmp_path: Path) -> None:
    from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

    torch.manual_seed(0)
    features = (4, 4, 8, 8, 8, 4)
    network = BasicUNetPlusPlus(spatial_dims=3, in_channels=1, features=features, deep_supervision=True).eval()
    torch.save(network.state_dict(), tmp_path / "n.pt")
    description = {
        "_target_": "BasicUNetPlusPlus",
        "spatial_dims": 3,
        "in_channels": 1,
        "features": list(features),
        "deep_supervision": True,
    }
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        with pytest.raises(ModelError, match="4 of them in: 0"):
            load_network(tmp_path / "n.pt", description)(image)
        final = load_network(tmp_path / "n.pt", {**description, "_output_": 3})(image)
        assert torch.equal(final, network(image)[-1])
