"""``voxport models``, ``inspect``, ``plan``, ``verify`` and the global options, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import Command, make_model


def test_models_are_added_listed_used_by_name_and_removed(voxport: Command, scan: Path, model: Path) -> None:
    added = voxport("models", "add", model)
    assert added.stdout == "affine:1.0.0 added\n"
    assert "affine" in voxport("models", "list").stdout
    assert voxport("segment", scan, "-m", "affine", "-o", "named.nii").returncode == 0
    assert voxport("segment", scan, "-m", "affine:1.0.0", "-o", "exact.nii").returncode == 0
    default = voxport("segment", scan, "-o", "default.nii", env={"VOXPORT_MODEL": "affine"})
    assert default.returncode == 0, default.stderr
    assert voxport("models", "remove", "affine").returncode == 0
    left = json.loads(voxport("models", "list", "--json").stdout)
    assert [m["name"] for m in left["models"]] == ["two-photon-vessels"]


def test_a_packaged_model_is_imported_again(voxport: Command, model: Path) -> None:
    packaged = voxport("models", "package", model, "-o", "package.zip")
    assert packaged.stdout == "package.zip: affine:1.0.0 as a bioimage.io package\n"
    assert "not in bioimage.io's words: blending" in packaged.stderr
    assert voxport("import", "package.zip", "-o", "again.onnx").returncode == 0


def test_a_broken_model_is_reported_and_the_others_go_on(voxport: Command, model: Path, tmp_path: Path) -> None:
    voxport("models", "add", model)
    (tmp_path / "data" / "voxport" / "models" / "broken.onnx").write_bytes(b"no model")
    result = voxport("models", "list")
    assert result.returncode == 0
    assert "affine" in result.stdout
    assert "broken.onnx" in result.stderr
    listed = json.loads(voxport("models", "list", "--json").stdout)
    assert [b["name"] for b in listed["broken"]] == ["broken.onnx"]


def test_models_are_kept_in_bentomls_store_where_that_is_asked_for(
    voxport: Command, scan: Path, model: Path, tmp_path: Path
) -> None:
    home = {"BENTOML_HOME": str(tmp_path / "bentoml")}
    added = voxport("models", "add", model, "--store", "bento", env=home)
    assert (added.stdout, added.stderr) == ("affine:1.0.0 added\n", "")
    assert (tmp_path / "bentoml" / "models" / "affine" / "1.0.0" / "model.yaml").is_file()
    listed = voxport("models", "list", "--store", "bento", env=home)
    assert "affine" in listed.stdout
    assert listed.stderr == ""
    assert "affine" not in voxport("models", "list", env=home).stdout
    done = voxport("segment", scan, "-m", "affine", "-o", "mask.nii", env=home | {"VOXPORT_STORE": "bento"})
    assert done.returncode == 0, done.stderr
    assert voxport("models", "remove", "affine", "--store", "bento", env=home).returncode == 0
    left = json.loads(voxport("models", "list", "--store", "bento", "--json", env=home).stdout)
    assert [m["name"] for m in left["models"]] == ["two-photon-vessels"]


def test_bentomls_home_can_be_set(voxport: Command, model: Path, tmp_path: Path) -> None:
    settings = {"VOXPORT_STORE": "bento", "VOXPORT_BENTOML_HOME": str(tmp_path / "home")}
    assert voxport("models", "add", model, env=settings).returncode == 0
    assert (tmp_path / "home" / "models" / "affine" / "1.0.0").is_dir()
    assert "affine" in voxport("models", "list", env=settings).stdout


def test_an_unknown_store_is_a_usage_error(voxport: Command) -> None:
    result = voxport("models", "list", "--store", "shelf")
    assert result.returncode == 2
    assert "'folder' or 'bento'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_inspect_shows_a_volumes_geometry(voxport: Command, scan: Path) -> None:
    result = voxport("inspect", scan)
    assert result.returncode == 0, result.stderr
    assert "21x18x13" in result.stdout
    assert " um" in result.stdout
    assert "uint8" in result.stdout
    data = json.loads(voxport("inspect", scan, "--json").stdout)
    assert data["shape"] == [21, 18, 13]
    np.testing.assert_allclose(data["affine_ras"], nib.load(scan).affine)
    assert data["axis_codes"] == "".join(nib.aff2axcodes(nib.load(scan).affine))


def test_inspect_shows_a_models_card_and_hashes(voxport: Command, model: Path) -> None:
    result = voxport("inspect", model)
    assert "name: affine" in result.stdout
    assert "certificate: none" in result.stdout
    data = json.loads(voxport("inspect", model, "--json").stdout)
    assert data["card"]["schema"] == "voxport/model-card/1"
    assert len(data["weights_sha256"]) == 64


@pytest.mark.parametrize("name", ["missing.nii.gz", "folder/missing.nii"])
def test_inspecting_a_missing_volume_is_bad_input(voxport: Command, name: str) -> None:
    result = voxport("inspect", name)
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1


def test_plan_foretells_the_tiles_that_segment_scores_and_writes_nothing(
    voxport: Command, scan: Path, model: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    planned = json.loads(voxport("plan", scan, "-m", model, "--json").stdout)
    # what was found out of the model and this machine is kept with the user's data
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "data"] == before
    assert planned["seconds"] > 0
    assert planned["peak_bytes"] > 10e6
    voxport("segment", scan, "-m", model, "-o", "mask.nii", "--report", "r.json")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["tiles"].pop("repeated") == 0
    assert planned["tiles"] == report["tiles"]
    text = voxport("plan", scan, "-m", model)
    assert f"tiles    {planned['tiles']['count']} of 8x8x8" in text.stdout


def test_plan_and_segment_give_the_same_warnings(voxport: Command, tmp_path: Path) -> None:
    """A card for 2 um and a volume at 10 mm, of one slice, in values that the card's window leaves out."""
    fields = {"spacing": [2, 2, 2], "spacing_unit": "um", "intensity": [{"window": [0, 1]}]}
    model = make_model(tmp_path / "model.onnx", input_fields=fields, patch=(8, 8, 8), divisor=8)
    image = nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(8, 8, 1) + 1000, np.diag([0.01, 0.01, 0.001, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "odd.nii")
    planned = voxport("plan", "odd.nii", "-m", model)
    done = voxport("segment", "odd.nii", "-m", model, "-o", "mask.nii")
    assert done.returncode == 0, done.stderr
    assert planned.stderr == done.stderr
    for word in ("spacing along x", "5.0 times off", "1 voxels along z", "ranges from 1000 to 1063"):
        assert word in planned.stderr


def test_verify_without_a_certificate_says_what_to_do(voxport: Command, model: Path) -> None:
    result = voxport("verify", model)
    assert result.returncode == 4
    assert "--against" in result.stderr


def test_version_and_help(voxport: Command) -> None:
    assert voxport("--version").stdout.startswith("voxport ")
    for command in ("segment", "export", "verify", "tune", "inspect", "plan", "models"):
        result = voxport(command, "--help")
        assert result.returncode == 0
        assert command in result.stdout
