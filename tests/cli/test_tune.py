"""``voxport tune`` keeps what it measured; ``segment`` then takes it, says so, and can be told to do the same again."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.application import Application
from voxport.testing.progress import RecordingProgress

from .conftest import Command


@pytest.fixture
def tuned(voxport: Command, model: Path, scan: Path) -> dict[str, object]:
    """What tuning the model on the scan told; all labels are let through, so that the fastest is taken."""
    done = voxport("tune", model, "--volume", scan, "--json", env=LENIENT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read: dict[str, object] = json.loads(done.stdout)
    return read


LENIENT = {"VOXPORT_BOUNDS__LABEL_AGREEMENT": "0.5", "VOXPORT_BOUNDS__DICE": "0.5"}


def test_every_way_that_is_installed_is_measured_and_one_kept(tuned: dict[str, object]) -> None:
    candidates = tuned["candidates"]
    assert isinstance(candidates, list)
    ways = {(c["choice"]["runtime"], c["choice"]["precision"]) for c in candidates}
    assert {("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "int8")} <= ways
    assert [c["choice"] for c in candidates if c["kept"]] == [tuned["choice"]]
    assert all(c["seconds"] > 0 and c["agreement"] for c in candidates)


def test_segment_takes_what_was_kept_and_its_command_gives_the_same_mask(
    voxport: Command, tuned: dict[str, object], model: Path, scan: Path, tmp_path: Path
) -> None:
    arguments = ("segment", scan, "-m", model, "--report", "report.json", "-o")
    first = voxport(*arguments, "a.nii", env=LENIENT)
    assert first.returncode == 0, first.stderr
    assert "as tuned" in first.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["tuned"] == tuned["choice"]
    again = shlex.split(report["command"])
    again[again.index("-o") + 1] = "b.nii"
    assert voxport(*again[1:], env=LENIENT).returncode == 0
    first_mask, second_mask = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("a.nii", "b.nii"))
    np.testing.assert_array_equal(first_mask, second_mask)


def test_with_other_threads_the_model_runs_untuned_and_says_so(
    voxport: Command, tuned: dict[str, object], model: Path, scan: Path
) -> None:
    del tuned
    threads = voxport("segment", scan, "-m", model, "-o", "a.nii", env=LENIENT | {"VOXPORT_THREADS": "1"})
    assert "other threads" in threads.stderr
    assert "with openvino fp32\n" in threads.stdout


def test_a_table_says_what_was_measured(voxport: Command, model: Path, scan: Path) -> None:
    done = voxport("tune", model, "--volume", scan)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("runtime", "precision", "threads", "tile", "batch"),
        *("seconds", "ratio", "agreement", "Dice", "verdict"),
    ]
    assert lines[1].split()[:5] == ["onnx", "fp32", lines[1].split()[2], "8x8x8", "1"]
    assert sum("kept" in line for line in lines) == 1
    assert "auto takes" in done.stdout


def test_a_damaged_record_is_told_and_the_model_runs_untuned(
    voxport: Command, tuned: dict[str, object], model: Path, scan: Path, tmp_path: Path
) -> None:
    del tuned
    (record,) = (tmp_path / "data" / "voxport" / "tunings").glob("*/*.json")
    record.write_text("{", encoding="utf-8")
    done = voxport("segment", scan, "-m", model, "-o", "a.nii", env=LENIENT)
    assert done.returncode == 0
    assert "cannot be read" in done.stderr
    assert "as tuned" not in done.stdout


def test_int8_without_a_tuning_says_how_to_come_by_it(voxport: Command, model: Path, scan: Path) -> None:
    done = voxport("segment", scan, "-m", model, "-o", "a.nii", "--precision", "int8")
    assert done.returncode == 2
    assert "voxport tune" in done.stderr


def test_an_unsuitable_volume_is_a_bad_input(voxport: Command, model: Path, tmp_path: Path) -> None:
    assert voxport("tune", model, "--volume", "missing.nii").returncode == 3
    assert not (tmp_path / "data").exists()


def test_a_volume_is_read_as_the_options_state_which_an_error_names(
    voxport: Command, model: Path, scan: Path, tmp_path: Path
) -> None:
    values = np.asarray(nib.load(scan).dataobj).astype(np.float32)
    values[10, 9, 6] = np.nan
    np.save(tmp_path / "scan.npy", values)
    plain = voxport("tune", model, "--volume", "scan.npy")
    assert (plain.returncode, len(plain.stderr.splitlines())) == (3, 1)
    assert "--axes" in plain.stderr
    read = ("--axes", "XYZ", "--spacing", "1,1,1", "--unit", "mm")
    spaced = voxport("tune", model, "--volume", "scan.npy", *read)
    assert (spaced.returncode, len(spaced.stderr.splitlines())) == (3, 1)
    assert "--nan-as" in spaced.stderr
    stated = (*read, "--nan-as", "0")
    done = voxport("tune", model, "--volume", "scan.npy", *stated, "--json", env=LENIENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["volume"] == "scan.npy"

    (tmp_path / "truth").mkdir()
    shutil.move(tmp_path / "scan.npy", tmp_path / "truth" / "a_image.npy")
    mask = (np.nan_to_num(values) > np.nanmedian(values)).astype(np.uint8)
    np.save(tmp_path / "truth" / "a_label.npy", mask)
    against = voxport("tune", model, "--truth", "truth", *stated, "--json")
    assert against.returncode == 0, against.stderr


def test_time_and_dice_against_truth_are_measured_for_each_overlap(
    voxport: Command, model: Path, scan: Path, tmp_path: Path
) -> None:
    (tmp_path / "truth").mkdir()
    shutil.copy(scan, tmp_path / "truth" / "a_image.nii.gz")
    assert voxport("segment", scan, "-m", model, "-o", "truth/a_label.nii.gz").returncode == 0
    done = voxport("tune", model, "--truth", "truth", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["tradeoffs"]
    assert {one["overlap"] for one in found} == {0.0, 0.125, 0.25, 0.375, 0.5, 0.625}
    # the truth is this model's own mask, at the card's overlap
    assert {1.0} == {one["mean_dice"] for one in found if (one["precision"], one["overlap"]) == ("fp32", 0.5)}
    assert all(0.9 < one["mean_dice"] <= 1.0 for one in found)
    shown = voxport("tune", model, "--truth", "truth")
    assert "frontier" in shown.stdout
    missing = voxport("tune", model, "--truth", "nowhere")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (3, 1)
    beside = voxport("tune", model, "--truth", "truth", "--volume", scan)
    assert (beside.returncode, len(beside.stderr.splitlines())) == (2, 1)


def test_tuning_is_recommended_until_it_is_done(model: Path, tmp_path: Path) -> None:
    application = Application.build(model=str(model), tunings_dir=tmp_path / "tunings")
    name, reference = (card := application.find_model().card).name, card.reference
    assert (
        application.tuning_hint()
        == f"{reference} is not tuned for this machine; voxport tune {name} may make it faster"
    )
    application.tune(application.find_model(), [], RecordingProgress())
    assert application.tuning_hint() is None
    assert Application.build(model="nowhere", models_dir=tmp_path).tuning_hint() is None
