"""Names of results: voxport's own, BIDS' and nnU-Net's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from voxport.domain.cases import CaseFiles
from voxport.domain.errors import InputError, UsageError
from voxport.services.batch.discovery import find_cases
from voxport.services.batch.folder import BatchFolder
from voxport.services.batch.layouts import BidsLayout, Layout, NnunetLayout, layout_named

from .test_batch import PORTS, Bench, bench

__all__ = ["bench"]


def found(folder: Path, layout: Layout, channels: int = 1) -> dict[str, tuple[str, ...] | str]:
    """The files of each case below a folder, or its problem."""
    cases = find_cases(folder, BatchFolder(folder.parent / "out", layout), channels, None, ("mask",), PORTS.volumes)
    return {case.name: case.files if case.problem is None else str(case.problem) for case in cases}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_nnunets_numbers_are_channels_and_other_files_are_ignored(tmp_path: Path) -> None:
    names = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "imagesTs/c_0000.nii", "imagesTs/c_0001.nii", "d.nii")
    cases = found(touch(tmp_path / "in", *names), NnunetLayout(), 2)
    assert cases.pop("a") == ("a_0000.nii.gz", "a_0001.nii.gz")
    assert cases.pop("c") == ("imagesTs/c_0000.nii", "imagesTs/c_0001.nii")
    assert "one file for each of 2 channels (0000, 0001), got b_0000.nii.gz" in str(cases.pop("b"))
    assert cases == {}


def test_nnunets_masks_lie_alone_in_one_folder(bench: Bench) -> None:
    for name in ("x/a_0000.nii.gz", "b_0000.nii"):
        bench.put(name)
    bench.layout, bench.work = NnunetLayout(), replace(bench.work, outputs=("mask", "probabilities", "preview"))
    assert bench.states() == {"a": "done", "b": "done"}
    assert {name for name in bench.files() if name.endswith(".nii.gz") and "/" not in name} == {"a.nii.gz", "b.nii.gz"}
    assert {"voxport/a.report.json", "voxport/a.probabilities.nii.gz", "voxport/b.preview.png"} <= bench.files()
    assert bench.states() == {"a": "skipped", "b": "skipped"}


def test_cases_of_one_name_in_two_folders_have_a_problem(tmp_path: Path) -> None:
    (problem,) = found(touch(tmp_path / "in", "x/a_0000.nii", "y/a_0000.nii"), NnunetLayout()).values()
    assert "got x/a_0000.nii, y/a_0000.nii" in problem


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_desc-voxport_dseg"),
        ("sub-01/ses-2/anat/sub-01_ses-2_run-1_FLAIR.nii", "sub-01/ses-2/anat/sub-01_ses-2_run-1_desc-voxport_dseg"),
        ("sub-01/anat/sub-01_space-MNI_desc-preproc_T1w.nii", "sub-01/anat/sub-01_space-MNI_desc-voxport_dseg"),
        ("sub-m1/micr/sub-m1_sample-A_SPIM.ome.zarr", "sub-m1/micr/sub-m1_sample-A_desc-voxport_dseg"),
    ],
)
def test_a_mask_of_bids_keeps_the_entities_of_its_source(file: str, stem: str) -> None:
    case, layout = CaseFiles("case", (file,)), BidsLayout()
    assert layout.checked(case) == case
    assert layout.place(case, "mask") == f"{stem}.nii.gz"
    assert layout.place(case, "report") == f"{stem}.json"


def test_files_that_bids_does_not_name_have_a_problem_and_derivatives_are_left_out(tmp_path: Path) -> None:
    names = ("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/scan.nii", "derivatives/x/sub-01/anat/sub-01_T1w.nii")
    cases = found(touch(tmp_path / "in", *names), BidsLayout())
    assert cases.pop("sub-01/anat/sub-01_T1w") == (names[0],)
    assert "expected a name of BIDS such as sub-01_T1w, got scan.nii" in str(cases.pop("sub-01/anat/scan"))
    assert cases == {}


def test_two_pictures_of_one_subject_need_a_pattern(tmp_path: Path) -> None:
    names = ("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_FLAIR.nii")
    cases = found(touch(tmp_path / "in", *names), BidsLayout())
    assert cases["sub-01/anat/sub-01_FLAIR"] == (names[1],)
    assert "say by a `pattern` which files are cases" in str(cases["sub-01/anat/sub-01_T1w"])


def test_a_batch_in_bids_is_a_dataset_of_derivatives(bench: Bench) -> None:
    for path in list(bench.volumes.iterdir()):
        path.rename(bench.folder / path.name)
    bench.put("sub-01/anat/sub-01_T1w.nii.gz")
    bench.layout = BidsLayout(version="1.2.3", volumes=bench.volumes, out=bench.out)
    bench.work = replace(bench.work, outputs=("mask", "probabilities", "preview"))
    assert set(bench.states().values()) == {"done"}
    stem = "sub-01/anat/sub-01_desc-voxport"
    shared = {"dataset_description.json", "desc-voxport_dseg.tsv", "desc-voxport_probseg.json", ".bidsignore"}
    results = {f"{stem}_{name}" for name in ("dseg.nii.gz", "dseg.json", "probseg.nii.gz", "preview.png")}
    assert bench.files() == {*shared, *results, "statistics.csv"}
    described = json.loads((bench.out / "dataset_description.json").read_text(encoding="utf-8"))
    assert (described["DatasetType"], described["DatasetLinks"]) == ("derivative", {"raw": "../in"})
    assert described["GeneratedBy"][0] == {"Name": "voxport", "Version": "1.2.3"}
    sidecar = json.loads((bench.out / f"{stem}_dseg.json").read_text(encoding="utf-8"))
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert sidecar["outputs"][0]["name"] == f"{stem}_dseg.nii.gz"
    table = (bench.out / "desc-voxport_dseg.tsv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "index\tname\tcolor"
    assert set(bench.states().values()) == {"skipped"}


def test_an_unknown_layout_is_refused() -> None:
    assert layout_named("bids", version="1").version == "1"
    with pytest.raises(UsageError, match="layout: expected one of plain, bids, nnunet, got x"):
        layout_named("x")


def test_a_folder_without_cases_of_the_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 1 volumes that do not"):
        found(touch(tmp_path / "in", "a.nii"), NnunetLayout())
