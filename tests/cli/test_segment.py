"""``voxport segment`` on small volumes: the mask, its geometry, the files beside it, and the same bytes again."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime as ort
import pytest
import tifffile
from numpy.typing import NDArray
from voxport.adapters.artifacts.local import LocalFiles

from .conftest import AFFINE, Command, make_model


def expected_mask(scan: Path, model: Path) -> NDArray[np.uint8]:
    """The mask by the plainest way: nibabel to RAS, the whole volume through ONNX Runtime, and back."""
    image = nib.load(scan)
    ras = nib.as_closest_canonical(image)
    values = np.asarray(ras.dataobj, dtype=np.float32)
    scaled = (values - values.min()) / (values.max() - values.min())
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    labels = session.run(None, {"image": scaled[None, None]})[0][0].argmax(axis=0)
    change = nib.orientations.ornt_transform(nib.io_orientation(ras.affine), nib.io_orientation(image.affine))
    mask: NDArray[np.uint8] = nib.orientations.apply_orientation(labels, change).astype(np.uint8)
    return mask


def test_the_mask_is_what_the_network_says_about_the_whole_volume(
    voxport: Command, scan: Path, model: Path, tmp_path: Path
) -> None:
    """In halo blending with a halo of the network's one voxel of context, tiles equal the whole."""
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--blending", "halo")
    assert result.returncode == 0, result.stderr
    found = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(found, expected_mask(scan, model))
    assert 0.2 < found.mean() < 0.8


def test_the_mask_lies_on_the_inputs_own_grid(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    voxport("segment", scan, "-m", model, "-o", "mask.nii.gz")
    given, mask = nib.load(scan).header, nib.load(tmp_path / "mask.nii.gz").header
    for field in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "pixdim", "xyzt_units", "dim"):
        assert given[field].tobytes() == mask[field].tobytes(), field
    for field in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        assert given[field].tobytes() == mask[field].tobytes(), field
    assert mask.get_data_dtype() == np.uint8


def test_everything_beside_the_mask(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport(
        *("segment", scan, "-m", model, "-o", "mask.nii.gz", "--probabilities", "p.nii.gz"),
        *("--statistics", "s.json", "--preview", "p.png", "--label-table", "l.tsv", "--report", "r.json"),
    )
    assert result.returncode == 0, result.stderr
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    probabilities = np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj)
    assert probabilities.shape == (*mask.shape, 2)
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), mask)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-6)
    statistics = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    label = statistics["labels"][0]
    assert label["voxels"] == int((mask == 1).sum())
    assert statistics["unit"] == "um"
    assert label["volume"] == pytest.approx((mask == 1).sum() * abs(np.linalg.det(AFFINE[:3, :3])), rel=1e-5)
    scan_values = np.asarray(nib.load(scan).dataobj)[mask == 1]
    assert label["channels"][0]["mean"] == pytest.approx(scan_values.mean())
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    names = [line.split("\t")[:2] for line in (tmp_path / "l.tsv").read_text(encoding="utf-8").splitlines()]
    assert names == [["index", "name"], ["1", label["name"]]]
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {"mask.nii.gz", "p.nii.gz", "s.json", "p.png", "l.tsv"} == {entry["name"] for entry in report["outputs"]}
    assert "label 1" in result.stdout
    assert str(label["voxels"]) in result.stdout


def test_the_report_says_where_the_mask_came_from(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--report", "r.json")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    sha256 = hashlib.sha256
    assert report["inputs"] == [{"name": str(scan), "sha256": sha256(scan.read_bytes()).hexdigest()}]
    mask = tmp_path / "mask.nii.gz"
    assert report["outputs"] == [{"name": "mask.nii.gz", "sha256": sha256(mask.read_bytes()).hexdigest()}]
    assert report["model"]["sha256"] == sha256(model.read_bytes()).hexdigest()
    assert report["runtime"]["name"] == "openvino"
    assert report["grid"]["axis_codes"] == "".join(nib.aff2axcodes(nib.load(scan).affine))
    assert np.allclose(report["grid"]["affine_ras"], nib.load(scan).affine)
    assert report["tiles"]["count"] > 1
    assert set(report["seconds"]) == {"read", "prepare", "score", "measure", "write"}
    assert any("certificate" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    "options",
    [(), ("--blending", "halo"), ("--overlap", "0.25", "--patch", "16,8,8"), ("--threads", "1")],
    ids=["as the card says", "halo", "other tiles", "one thread"],
)
def test_the_reports_command_gives_the_same_bytes(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--report", "r.json", *options)
    first = (tmp_path / "mask.nii.gz").read_bytes()
    (tmp_path / "mask.nii.gz").unlink()
    command = shlex.split(json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["command"])
    assert command[0] == "voxport"
    assert voxport(*command[1:]).returncode == 0
    assert (tmp_path / "mask.nii.gz").read_bytes() == first


def test_several_inputs_are_channels_and_a_source_can_serve_twice(voxport: Command, scan: Path, tmp_path: Path) -> None:
    """Two files as channels, one 4-D file that holds both, and a card that feeds a channel from either."""
    image = nib.load(scan)
    values = np.asarray(image.dataobj)
    second = 255 - values[::-1]
    nib.save(nib.Nifti1Image(second, None, image.header), tmp_path / "second.nii")
    nib.save(nib.Nifti1Image(np.stack([values, second], axis=-1), None, image.header), tmp_path / "both.nii.gz")
    two = make_model(tmp_path / "two.onnx", channels=2)
    assert voxport("segment", scan, "second.nii", "-m", two, "-o", "files.nii.gz").returncode == 0
    assert voxport("segment", "both.nii.gz", "-m", two, "-o", "channels.nii.gz").returncode == 0
    files, channels = (np.asarray(nib.load(tmp_path / f).dataobj) for f in ("files.nii.gz", "channels.nii.gz"))
    np.testing.assert_array_equal(files, channels)
    swapped = make_model(
        tmp_path / "swapped.onnx",
        channels=2,
        input_fields={"channels": [{"name": "a", "source": 1}, {"name": "b", "source": 0}]},
    )
    assert voxport("segment", "second.nii", scan, "-m", swapped, "-o", "swapped.nii.gz").returncode == 0
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "swapped.nii.gz").dataobj), files)
    reused = make_model(
        tmp_path / "reused.onnx",
        channels=2,
        input_fields={"channels": [{"name": "a", "source": 0}, {"name": "b", "source": 0}]},
    )
    assert voxport("segment", scan, "-m", reused, "-o", "reused.nii.gz").returncode == 0
    assert voxport("segment", scan, scan, "-m", two, "-o", "twice.nii.gz").returncode == 0
    reused_mask, twice = (np.asarray(nib.load(tmp_path / f).dataobj) for f in ("reused.nii.gz", "twice.nii.gz"))
    np.testing.assert_array_equal(reused_mask, twice)
    assert (reused_mask != files).any()


@pytest.mark.parametrize("shape", [(21, 18, 1), (1, 1, 1), (3, 40, 2), (8, 8, 8)])
def test_small_and_thin_volumes(voxport: Command, model: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "thin.nii")
    result = voxport("segment", "thin.nii", "-m", model, "-o", "mask.nii", "--preview", "p.png")
    assert result.returncode == 0, result.stderr
    assert nib.load(tmp_path / "mask.nii").shape == shape


def test_a_pair_of_files_in_and_out(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.asarray(nib.load(scan).dataobj), AFFINE), tmp_path / "pair.hdr")
    assert voxport("segment", "pair.img", "-m", model, "-o", "mask.hdr").returncode == 0
    voxport("segment", scan, "-m", model, "-o", "mask.nii")
    pair, single = nib.load(tmp_path / "mask.hdr"), nib.load(tmp_path / "mask.nii")
    np.testing.assert_array_equal(np.asarray(pair.dataobj), np.asarray(single.dataobj))


def test_where_to_look_first_is_said_and_listed(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport(
        *("segment", scan, "-m", model, "-o", "mask.nii.gz", "--uncertainty", "u.ome.tif", "--report", "report.json")
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    places = report["statistics"]["uncertainty"]["places"]
    told = [line for line in result.stdout.splitlines() if line.startswith("look at")]
    assert told == [f"look at voxel {','.join(map(str, spot['voxel']))}: {spot['why']}" for spot in places[:3]]
    np.testing.assert_allclose(places[0]["world"], (AFFINE @ [*places[0]["voxel"], 1])[:3], atol=1e-4)
    assert tifffile.imread(tmp_path / "u.ome.tif").shape == (3, 13, 18, 21)
    refused = voxport("segment", scan, "-m", model, "-o", "a.nii", "--uncertainty", "a.nii")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert voxport("segment", scan, "-m", model, "-o", "a.nii", "--uncertainty", "u.txt").returncode == 2
    assert not (tmp_path / "a.nii").exists()


def test_statistics_as_csv(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    voxport("segment", scan, "-m", model, "-o", "mask.nii", "--statistics", "s.csv")
    with (tmp_path / "s.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["voxels"]) == int((np.asarray(nib.load(tmp_path / "mask.nii").dataobj) == 1).sum())
    assert row["touches_border"] == "True"


def test_quiet_says_nothing_and_json_is_json(voxport: Command, scan: Path, model: Path) -> None:
    quiet = voxport("segment", scan, "-m", model, "-o", "mask.nii", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    for further in ([], ["--quiet"]):
        result = voxport("segment", scan, "-m", model, "-o", "mask.nii", "--json", *further)
        data = json.loads(result.stdout)
        assert data["mask"] == "mask.nii"
        assert data["labels"][0]["voxels"] > 0
        assert bool(result.stderr) == (not further)


def test_a_memory_limit_changes_the_blending_and_says_so(voxport: Command, scan: Path, tmp_path: Path) -> None:
    """With 1000 classes blended sums would take more than the limit leaves; in halo blending they fit."""
    many = make_model(tmp_path / "many.onnx", classes=1000, patch=(16, 16, 16))
    free = voxport("segment", scan, "-m", many, "-o", "free.nii.gz", "--blending", "halo")
    assert free.returncode == 0, free.stderr
    refused = voxport("segment", scan, "-m", many, "-o", "limited.nii.gz", "--memory", "10MB")
    found = re.search(r"at least (\d+) MB", refused.stderr)
    assert found is not None, refused.stderr
    for more in range(0, 60, 2):  # what the process holds differs by a few megabytes from run to run
        memory = f"{int(found[1]) + more}MB"
        limited = voxport("segment", scan, "-m", many, "-o", "limited.nii.gz", "--memory", memory)
        if limited.returncode == 0:
            break
        assert limited.returncode == 5, limited.stderr
    assert "halo" in limited.stderr
    assert (tmp_path / "free.nii.gz").read_bytes() == (tmp_path / "limited.nii.gz").read_bytes()


def test_older_files_stay_until_the_new_one_is_whole(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    LocalFiles().write(str(tmp_path / "mask.nii.gz"), b"an older mask")
    assert voxport("segment", tmp_path / "missing.nii", "-m", model, "-o", "mask.nii.gz").returncode == 3
    assert (tmp_path / "mask.nii.gz").read_bytes() == b"an older mask"
    assert voxport("segment", scan, "-m", model, "-o", "mask.nii.gz").returncode == 0
    assert nib.load(tmp_path / "mask.nii.gz").shape == (21, 18, 13)


def test_a_quiet_plan_says_nothing_where_nothing_is_wrong(voxport: Command, scan: Path, model: Path) -> None:
    result = voxport("plan", scan, "-m", model, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
