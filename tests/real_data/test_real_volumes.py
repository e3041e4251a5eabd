"""Real volumes and real networks through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from voxport.entrypoints.cli.main import app

from tests.cli.conftest import make_model

pytestmark = [pytest.mark.real_data, pytest.mark.no_cover]  # the tracer would cost more than it tells

CARD = Path(__file__).resolve().parents[1] / "data" / "meshnet-gwm.card.yaml"
VOLUMES = (
    "brain/t1_crop.nii.gz",
    "ct_mr/example_ct_sm.nii.gz",
    "ct_mr/example_mr_sm.nii.gz",
    "octa/tubenet_octa_image.nii.gz",
    "two_photon/burgess2014_lowerRes_hiSNR_image.nii.gz",
    "two_photon/poon2015_BBB_Leakage_image.nii.gz",
)


def voxport(*arguments: object) -> None:
    """The command line, in this process."""
    app(args=[str(a) for a in arguments], standalone_mode=False)


def labels_of(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_real_volumes_mask_lies_on_its_own_grid(real_data: Path, tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model.onnx", patch=(64, 64, 32), overlap=0)
    voxport("segment", real_data / name, "-m", model, "-o", tmp_path / "mask.nii.gz", "--quiet")
    given, mask = nib.load(real_data / name), nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == given.shape
    for field in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "pixdim", "xyzt_units", "intent_code"):
        assert mask.header[field].tobytes() == given.header[field].tobytes(), field


def test_a_foreign_network_finds_the_brains_tissues_whole_and_in_tiles(real_data: Path, tmp_path: Path) -> None:
    """Whole by one runtime, in tiles by another.

    MeshNet sees 47 voxels around; tiles of 176 with an overlap of 96 give each voxel 48 of context.
    """
    scan, network = real_data / "brain" / "t1_crop.nii.gz", real_data / "brain" / "meshnet_gwm_11.onnx"
    common = ("segment", scan, "-m", network, "--card", CARD, "--quiet")
    voxport(*common, "-o", tmp_path / "whole.nii.gz", "--runtime", "onnx", "--precision", "fp32")
    another = ("--runtime", "openvino", "--precision", "fp32")
    tiles = ("--patch", "176,176,176", "--overlap", "0.54", "--blending", "halo")
    voxport(*common, "-o", tmp_path / "tiled.nii.gz", *another, *tiles)
    whole, tiled = labels_of(tmp_path / "whole.nii.gz"), labels_of(tmp_path / "tiled.nii.gz")
    assert (whole == tiled).mean() >= 0.9999
    values = labels_of(scan)
    outside, white, grey = (float(values[whole == label].mean()) for label in (0, 1, 2))
    assert white > grey > outside
    # an adult brain has 400 to 800 ml of white and 500 to 900 ml of grey matter; voxels are 1 mm wide
    assert 400e3 < np.count_nonzero(whole == 1) < 800e3
    assert 500e3 < np.count_nonzero(whole == 2) < 900e3


def test_onnx_and_torch_give_the_same_labels_on_a_real_volume(real_data: Path, tmp_path: Path) -> None:
    """A SegResNet from a saved state dict: exported and scored by ONNX Runtime, and scored by PyTorch."""
    import torch
    from monai.networks.nets import SegResNet

    arguments: dict[str, Any] = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 2}
    arguments |= {"blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
    torch.manual_seed(0)
    torch.save(SegResNet(**arguments).state_dict(), tmp_path / "segresnet.pt")
    card = {
        "schema": "voxport/model-card/1",
        "name": "random-segresnet",
        "version": "1.0.0",
        "input": {
            "channels": [{"name": "fluorescence"}],
            "intensity": [{"clip_percentiles": [1, 99.5]}, {"rescale": [0, 1]}],
        },
        "tiling": {"patch": [96, 96, 32], "divisor": 8},
        "output": {"activation": "softmax", "labels": [{"value": 1, "name": "vessel"}]},
        "provenance": {"network": {"_target_": "SegResNet", **arguments}},
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    checkpoint, model = tmp_path / "segresnet.pt", tmp_path / "segresnet.onnx"
    network = ("--network", "SegResNet", "--network-args", json.dumps(arguments))
    voxport("export", checkpoint, "--card", tmp_path / "card.yaml", "-o", model, *network, "--quiet")
    scan = real_data / "octa" / "tubenet_octa_image.nii.gz"
    voxport("segment", scan, "-m", model, "-o", tmp_path / "onnx.nii.gz", "--quiet")
    given = ("-m", checkpoint, "--card", tmp_path / "card.yaml", "--runtime", "torch")
    voxport("segment", scan, *given, "-o", tmp_path / "torch.nii.gz", "--quiet")
    onnx, source = labels_of(tmp_path / "onnx.nii.gz"), labels_of(tmp_path / "torch.nii.gz")
    assert (onnx == source).mean() >= 0.99999
    assert 0.01 < onnx.mean() < 0.99
    voxport("verify", model, "--against", checkpoint, "--quiet")
    voxport("verify", model, "--quiet")
