"""`voxport compare` as a person runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from .conftest import environment, make_model
from .forking import run_forked


def save(path: Path, labels: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(labels.astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cases, of which the second mask misses a label."""
    truth = np.zeros((12, 10, 8), int)
    truth[2:6, 2:6, 2:6], truth[8:11, 6:9, 1:4] = 1, 2
    for name, mask in (("a", truth), ("b", np.where(truth == 2, 0, truth))):
        save(tmp_path / "masks" / f"{name}.nii.gz", mask)
        save(tmp_path / "truths" / f"{name}.nii.gz", truth)
    return tmp_path


def run(folder: Path, *arguments: str) -> Any:
    return run_forked(["compare", *arguments], cwd=folder, env=environment(folder))


def test_two_files_are_a_table(folder: Path) -> None:
    done = run(folder, "masks/a.nii.gz", "truths/a.nii.gz")
    assert done.returncode == 0, done.stderr
    head, one, two, note = done.stdout.splitlines()
    assert (
        " ".join(head.split()) == "case label Dice IoU clDice surface Dice HD95 mean distance volume precision recall"
    )
    assert one.split() == ["a", "label", "1", "1", "1", "1", "1", "0", "0", "0", "1", "1"]
    assert two.split()[:4] == ["a", "label", "2", "1"]
    assert note.startswith("Distances in mm; surface Dice within 2;")


def test_folders_are_written_as_a_row_for_each_case_and_label(folder: Path) -> None:
    done = run(folder, "masks", "truths", "--csv", "out.csv", "--json")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["case"], row["value"], row["dice"], row["hausdorff_95"]) for row in rows] == [
        ("a", "1", "1.0", "0.0"), ("a", "2", "1.0", "0.0"), ("b", "1", "1.0", "0.0"), ("b", "2", "0.0", ""),
    ]  # fmt: skip
    found = json.loads(done.stdout)
    assert [case["name"] for case in found["cases"]] == ["a", "b"]
    assert found["cases"][1]["labels"][1]["hausdorff_95"] is None
    means = {row["value"]: row for row in found["means"]}
    assert (means[2]["cases"], means[2]["dice"], means[2]["hausdorff_95"]) == (2, 0.5, 0.0)
    assert means[2]["volume_difference"] == -27.0
    assert "mean of 2" in run(folder, "masks", "truths").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("masks/a.nii.gz", "none.nii.gz"), 3, "none.nii.gz: expected"),
        (("masks", "truths/a.nii.gz"), 2, "two files or two folders"),
        (("masks/a.nii.gz", "truths/a.nii.gz", "--csv", "no/out.csv"), 1, "no/out.csv"),
        (("masks/a.nii.gz", "truths/a.nii.gz", "--tolerance", "-1"), 2, "--tolerance"),
        (("masks/a.nii.gz", "truths/a.nii.gz", "-m", "gone"), 4, "gone"),
        (("masks/a.nii.gz", "small.nii.gz"), 3, "or set --resample"),
    ],
)
def test_what_cannot_be_compared_is_one_line(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    save(folder / "small.nii.gz", np.zeros((3, 3, 3)))
    done = run(folder, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_models_are_ranked_on_labelled_cases(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 12, 12), np.uint8)
    for name, array in (("a_image", values), ("a_label", np.uint8(255) * (values > 120))):
        nib.save(nib.Nifti1Image(array.astype(np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    first, second = make_model(tmp_path / "first.onnx"), make_model(tmp_path / "second.onnx", radius=2)
    shown = run(tmp_path, "--models", str(first), str(second), "--truth", str(tmp_path), "--csv", "ranks.csv")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 3
    assert (tmp_path / "ranks.csv").read_text(encoding="utf-8").count("affine:1.0.0") == 2
    data = json.loads(run(tmp_path, "--models", str(first), str(second), "--truth", str(tmp_path), "--json").stdout)
    dice = [model["means"]["dice"] for model in data["models"]]
    assert dice == sorted(dice, reverse=True)
    for arguments, said in (
        (("--models", str(first)), "--truth: expected one folder or two"),
        ((str(first), "--truth", str(tmp_path)), "--models beside it"),
        (("only.nii",), "expected MASK TRUTH, got 1 names"),
    ):
        refused = run(tmp_path, *arguments)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
