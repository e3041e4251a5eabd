"""Pages from the command line: what is written, what is refused, and what stays out of the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import Command, make_model


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_segment_writes_a_page_beside_everything_else(
    voxport: Command, scan: Path, model: Path, tmp_path: Path
) -> None:
    plain = voxport("segment", scan, "-m", model, "-o", "plain.nii.gz")
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--report", "r.json", "--html", "page.html")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mask.nii.gz").read_bytes() == (tmp_path / "plain.nii.gz").read_bytes()
    assert result.stderr == plain.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    for stated in (report["command"], *(file["sha256"] for file in (*report["inputs"], *report["outputs"]))):
        assert stated in page
    assert page.count("data:image/png;base64,") > 10
    again = voxport("report", ".")
    assert (again.returncode, again.stdout, again.stderr) == (0, "cohort.html: 1 cases\n", "")
    # the pictures are those of the run
    later = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert [part for part in page.split('"') if part.startswith("data:")] == [
        part for part in later.split('"') if part.startswith("data:")
    ]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--html", "page.htm"), "--html: expected a name in .html, got page.htm; rename it", 2),
        (("--html", "none/page.html"), "expected a place with room that can be written, got no such folder", 1),
        (("--html", "x.html", "--report", "x.html"), "expected a name of its own for each", 2),
        (("--html", "folder.html"), "got a folder of that name", 1),
    ],
)
def test_a_page_that_cannot_be_written_stops_the_run_at_once(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, code: int
) -> None:
    (tmp_path / "folder.html").mkdir()
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", *arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert visible(tmp_path) == ["model.onnx", "scan.nii.gz"]


def test_a_run_that_fails_leaves_no_page(voxport: Command, model: Path, tmp_path: Path) -> None:
    values = np.zeros((8, 8, 8), np.float32)
    values[1, 1, 1] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    result = voxport("segment", "scan.nii.gz", "-m", model, "-o", "mask.nii.gz", "--html", "page.html")
    assert result.returncode == 3
    assert visible(tmp_path) == ["model.onnx", "scan.nii.gz"]
    allowed = voxport("segment", "scan.nii.gz", "-m", model, "-o", "mask.nii.gz", "--html", "p.html", "--nan-as", 0)
    assert allowed.returncode == 0, allowed.stderr


def test_pages_of_every_layout_and_format(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"):
        (tmp_path / "bids" / name).parent.mkdir(parents=True)
        shutil.copy(scan, tmp_path / "bids" / name)
    (tmp_path / "imagesTs").mkdir()
    shutil.copy(scan, tmp_path / "imagesTs" / "brain_0000.nii.gz")
    for folder, layout, form, page in (
        ("bids", "bids", "nii.gz", "sub-01/anat/sub-01_desc-voxport_dseg.html"),
        ("imagesTs", "nnunet", "nii.gz", "voxport/brain.report.html"),
        ("imagesTs", "plain", "ome.zarr", "brain.report.html"),
    ):
        out = tmp_path / f"{layout}-{form}"
        result = voxport("batch", folder, "-o", out, "-m", model, "--layout", layout, "--format", form, "--html")
        assert (result.returncode, result.stderr.count("no pictures")) == (0, 0), result.stderr
        assert "data:image/png" in (out / page).read_text(encoding="utf-8")
        assert (out / "cohort.html").is_file()
    ignored = (tmp_path / "bids-nii.gz" / ".bidsignore").read_text(encoding="utf-8").split()
    assert {"cohort.html", "**/*.html"} <= set(ignored)


def test_failed_cases_are_not_on_the_cohorts_page(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(scan, tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no volume")
    result = voxport("batch", "in", "-o", "out", "-m", model, "--html")
    assert result.returncode == 1
    page = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert 'data-case="good"' in page
    assert 'data-case="bad"' not in page
    (tmp_path / "in" / "good.nii.gz").unlink()
    assert voxport("batch", "in", "-o", "none", "-m", model, "--html").returncode == 1
    assert not (tmp_path / "none" / "cohort.html").exists()


@pytest.mark.parametrize("option", [("--html",), ("--rated", "r.csv"), ("--json",)])
def test_a_batch_without_an_end_has_no_page_and_no_ratings(voxport: Command, scan: Path, option: tuple[str]) -> None:
    result = voxport("batch", scan.parent, "-o", "out", "--watch", *option)
    assert result.returncode == 2
    assert f"expected no {option[0]} beside --watch" in result.stderr


def test_ratings_of_another_batch_are_refused(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(scan, tmp_path / "in")
    (tmp_path / "r.csv").write_text("case,rating\nother,reject\n", encoding="utf-8")
    result = voxport("batch", "in", "-o", "out", "-m", model, "--rated", "r.csv")
    assert result.returncode == 3
    assert result.stderr == (
        "voxport: r.csv: expected cases of this folder, got 'other'; give the ratings of this batch\n"
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "r.csv").write_text("case,rating\nscan,accept\n", encoding="utf-8")
    nothing = voxport("batch", "in", "-o", "out", "-m", model, "--rated", "r.csv")
    assert nothing.stdout == "out: 0 cases segmented, 0 unchanged since they were, 0 failed\n"


def test_report_says_what_it_lacks(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.move(scan, tmp_path / "in" / "scan.nii.gz")
    assert voxport("batch", "in", "-o", "out", "-m", model, "--quiet").returncode == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    result = voxport("report", "out")
    assert result.returncode == 0
    assert result.stderr == (
        "warning: scan: no pictures: in/scan.nii.gz: expected a volume on this machine, got none there; "
        "say where it lies with --volumes\n"
    )
    found = voxport("report", "out", "--volumes", "moved", "--json")
    assert json.loads(found.stdout) == {"cohort": "out/cohort.html", "cases": 1, "notes": []}
    empty = voxport("report", "moved")
    assert empty.returncode == 3
    assert len(empty.stderr.splitlines()) == 1


def test_a_mask_may_have_any_name(voxport: Command, scan: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "odd.onnx")
    name = "<script>ran=1<:script>"
    result = voxport("segment", scan, "-m", model, "-o", f"{name}.nii.gz", "--html", "p.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script>ran" not in page
    assert "&lt;script&gt;ran=1" in page


def test_compare_draws_what_differs(voxport: Command, scan: Path, tmp_path: Path) -> None:
    image = nib.load(scan)
    for folder, shift in (("masks", 0), ("truths", 1)):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            labels = np.zeros(image.shape, np.uint8)
            labels[3 + shift : 9, 4:12, 2:8] = 1
            nib.save(nib.Nifti1Image(labels, np.diag([1.0, 1, 2, 1])), tmp_path / folder / f"{case}.nii.gz")
    (tmp_path / "images").mkdir()
    for case in ("a", "b"):
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.eye(4)), tmp_path / "images" / f"{case}.nii.gz")
    one = voxport("compare", "masks/a.nii.gz", "truths/a.nii.gz", "--html", "one.html")
    assert one.returncode == 0, one.stderr
    both = voxport("compare", "masks", "truths", "--html", "both.html", "--image", "images", "--csv", "t.csv")
    assert both.returncode == 0, both.stderr
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "2 masks beside their truth" in page
    assert page.count("data-layer=") > 4
    assert "data-layer=" in (tmp_path / "one.html").read_text(encoding="utf-8")
    wrong = voxport("compare", "masks", "truths", "--html", "none.html", "--image", "masks/a.nii.gz")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
    assert not (tmp_path / "none.html").exists()
    assert voxport("compare", "masks", "truths", "--html", "none/none.html").returncode == 1
    alone = voxport("compare", "masks", "truths", "--image", "images")
    assert (alone.returncode, "expected --html beside it" in alone.stderr) == (2, True)
