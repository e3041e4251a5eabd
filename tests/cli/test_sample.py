"""``voxport segment --sample``: the bundled model on the bundled volume, with nothing else at hand."""

from __future__ import annotations

import json
from importlib.metadata import requires
from pathlib import Path

import nibabel as nib
import numpy as np

from .conftest import Command


def test_the_sample_is_segmented_into_the_current_folder(voxport: Command, tmp_path: Path) -> None:
    result = voxport("segment", "--sample")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "sample_mask.nii.gz",
        "sample_preview.png",
        "sample_statistics.json",
    ]
    mask = nib.load(tmp_path / "sample_mask.nii.gz")
    assert mask.header.get_xyzt_units()[0] == "micron"
    labels = np.asarray(mask.dataobj)
    assert 0.02 < labels.mean() < 0.6
    statistics = json.loads((tmp_path / "sample_statistics.json").read_text(encoding="utf-8"))
    assert statistics["labels"][0]["voxels"] == int(labels.sum())
    for word in ("vessel", "sample_preview.png", "voxport segment YOUR.nii.gz"):
        assert word in result.stdout


def test_what_is_installed_without_extras_runs_the_bundled_model_in_openvino(voxport: Command, tmp_path: Path) -> None:
    given = (requirement for requirement in requires("voxport") or () if "extra ==" not in requirement)
    assert any(requirement.startswith("openvino") for requirement in given)
    assert voxport("segment", "--sample", "--report", "r.json").returncode == 0
    runtime = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["runtime"]
    assert (runtime["name"], runtime["reason"]) == ("openvino", "the fastest of those that the certificate covers")


def test_the_bundled_model_is_certified_and_small(voxport: Command) -> None:
    (listed,) = json.loads(voxport("models", "list", "--json").stdout)["models"]
    assert listed["name"] == "two-photon-vessels"
    assert {"onnx fp32", "openvino fp32"} <= set(listed["certified"])
    assert voxport("verify", "two-photon-vessels").returncode == 0
    verified = json.loads(voxport("verify", "two-photon-vessels", "--json").stdout)
    assert (verified["runtime"], verified["precision"]) == ("openvino", "fp32")
    assert {"onnx fp32": True}.items() <= {
        f"{o['runtime']} {o['precision']}": o["holds"] for o in verified["others"]
    }.items()


def test_the_bundled_model_serves_where_none_is_named(voxport: Command, scan: Path, tmp_path: Path) -> None:
    assert voxport("segment", scan, "-o", "default.nii").returncode == 0
    assert voxport("segment", scan, "-m", "two-photon-vessels", "-o", "named.nii").returncode == 0
    assert (tmp_path / "default.nii").read_bytes() == (tmp_path / "named.nii").read_bytes()


def test_the_bundled_model_cannot_be_removed(voxport: Command) -> None:
    result = voxport("models", "remove", "two-photon-vessels")
    assert result.returncode == 4
    assert "comes with voxport" in result.stderr


def test_the_sample_takes_no_input_beside_it(voxport: Command, scan: Path) -> None:
    result = voxport("segment", scan, "--sample")
    assert result.returncode == 2
    assert "--sample" in result.stderr
