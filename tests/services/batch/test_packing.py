"""A volume that is a folder goes through the queue as a zip; a batch finds it as one case."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.nifti.source import NiftiSource
from voxport.domain.cases import CasePattern
from voxport.domain.errors import InputError
from voxport.domain.reading import Reading
from voxport.domain.volume_names import NIFTI, OME_ZARR, VolumeNames
from voxport.services.batch.cohort import CaseResult
from voxport.services.batch.discovery import find_cases
from voxport.services.batch.folder import BatchFolder, sha256_of
from voxport.services.batch.packing import Packer

from . import test_batch
from .test_batch import PORTS, Bench, bench, no_job, zip_of

__all__ = ["bench"]
VOXELS = "voxels"


class BoxStore(NiftiStore):
    """Also reads folders, and zips of folders, that hold a NIfTI file of one name."""

    names = VolumeNames((NIFTI, OME_ZARR))

    def recognises(self, reference: str) -> bool:
        path = Path(reference)
        if path.suffix == ".zip":
            return zipfile.is_zipfile(path)
        return (path / VOXELS).is_file() if path.is_dir() else super().recognises(reference)

    def open(self, reference: str, reading: Reading | None = None) -> NiftiSource:
        path = Path(reference)
        if path.suffix == ".zip":
            folder = tempfile.mkdtemp(dir=path.parent)
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
            path = Path(folder)
        return super().open(str(path / VOXELS if path.is_dir() else path), reading)


@pytest.fixture
def boxes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench with a folder of slices, an OME-Zarr and a plate beside its volumes."""
    monkeypatch.setattr(test_batch, "PORTS", replace(PORTS, volumes=BoxStore()))
    for number, name in enumerate(("ct/series", "x.zarr", "plate.zarr/A/1/0", "plate.zarr/A/1/1")):
        bench.put(f"{name}/{VOXELS}.nii", number).rename(bench.volumes / name / VOXELS)
    (bench.volumes / "x.zarr" / "labels" / "old").mkdir(parents=True)
    (bench.volumes / "x.zarr" / "labels" / "old" / VOXELS).touch()
    return bench


CASES = ["a", "ct/series", "plate.zarr/A/1/0", "plate.zarr/A/1/1", "sub/b", "x"]


def test_folders_are_segmented_as_their_volumes_are(boxes: Bench) -> None:
    ended = boxes.run()
    assert {name: result.reason for name, result in ended.items()} == dict.fromkeys(CASES)
    for case, name in (("ct/series", "ct/series"), ("x", "x.zarr")):
        with BoxStore().open(str(boxes.volumes / name)) as source:
            grid = source.grid
        with NiftiStore().open(str(boxes.out / f"{case}.nii.gz")) as mask:
            assert mask.grid == grid
    report = boxes.report("plate.zarr/A/1/1")
    assert [file["name"] for file in report["inputs"]] == ["plate.zarr/A/1/1"]
    assert f"voxport segment {boxes.volumes}/plate.zarr/A/1/1 " in report["command"]
    assert not (boxes.out / ".voxport").exists()


def test_a_folder_is_done_again_when_a_file_of_it_changes(boxes: Bench) -> None:
    boxes.run()
    assert boxes.states(handler=no_job) == dict.fromkeys(CASES, "skipped")
    boxes.put("new.nii", 9).replace(boxes.volumes / "ct" / "series" / VOXELS)
    assert boxes.states() == dict.fromkeys(CASES, "skipped") | {"ct/series": "done"}


def test_a_pattern_chooses_fields_of_a_plate(boxes: Bench) -> None:
    boxes.pattern = CasePattern("plate.zarr/A/1/{case}")
    assert boxes.states() == {"0": "done", "1": "done"}


def found(bench: Bench, folder: Path) -> list[str]:
    return [case.name for case in find_cases(folder, bench.results, 1, None, ("mask",), BoxStore())]


def test_a_damaged_zarr_is_a_case_that_fails(boxes: Bench) -> None:
    (boxes.volumes / "bad.ome.zarr" / "0").mkdir(parents=True)

    def refuse(folder: Path, file: Any) -> None:
        if folder.name == "bad.ome.zarr":
            raise InputError(folder.name, expected="an OME-Zarr", got="another folder", do="name the volume")
        zip_of(folder, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_batch, "zip_of", refuse)
        ended: dict[str, CaseResult] = boxes.run()
    assert ended["bad"].state == "failed"
    assert "bad.ome.zarr: expected an OME-Zarr" in str(ended["bad"].reason)
    assert {case.state for name, case in ended.items() if name != "bad"} == {"done"}


def test_volumes_of_other_formats_beside_slices_are_cases(boxes: Bench) -> None:
    boxes.put("ct/series/c.nii")
    assert "ct/series/c" in found(boxes, boxes.volumes)
    assert "ct/series" not in found(boxes, boxes.volumes)


def test_a_folder_that_is_one_volume_is_no_cohort(boxes: Bench) -> None:
    with pytest.raises(InputError, match="expected a folder of volumes, got one volume"):
        found(boxes, boxes.volumes / "ct" / "series")


def test_a_zip_has_the_same_bytes_as_its_hash_and_is_deleted(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "out")
    folder.state.mkdir(parents=True)
    (tmp_path / "in" / "x").mkdir(parents=True)
    np.save(tmp_path / "in" / "x" / "a.npy", np.arange(5))
    packer = Packer(tmp_path / "in", folder, zip_of)
    with packer.file("x") as path:
        assert packer.sha256("x") == sha256_of(path)
        assert zipfile.ZipFile(path).namelist() == ["a.npy"]
    assert not path.exists()
    assert (packer.name("x"), packer.name("x/a.npy")) == ("x.zip", "a.npy")
