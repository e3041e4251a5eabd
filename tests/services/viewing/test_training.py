"""A folder of corrected cases holds what it was given, and no case replaces another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.nifti.sink import NiftiSink
from voxport.domain.errors import OutputError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case
from voxport.services.viewing.training import TrainingFolder
from voxport.services.viewing.volume_viewer import ShownMask

TABLE = LabelTable((Label(4, "vessel"), Label(2, "cell")))
GRID = Grid((6, 5, 4), np.diag([-1.0, 0.5, 2.0, 1.0]), "mm")
RNG = np.random.default_rng(0)
LABELS = RNG.choice(np.array([0, 2, 4], np.uint8), GRID.shape)
CODES = np.array([0, 0, 1, 0, 2])  # nnU-Net takes 0, 1, 2, ... alone


@pytest.fixture
def kept(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(tmp_path / "training", NiftiStore(), LocalFiles(), FileLocks())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def case_of(values: np.ndarray, stack: ExitStack) -> Case:
    store = MemoryStore()
    store.put("scan", Volume(values, GRID))
    return Case.open(store, ["scan"], stack)


def mask_of(labels: np.ndarray = LABELS, table: LabelTable = TABLE) -> ShownMask:
    store = MemoryStore()
    store.put("mask", Volume(labels, GRID))
    return ShownMask(store.open("mask"), table, Box.whole(GRID.shape))


def noise(channels: int = 1) -> np.ndarray:
    return RNG.normal(size=(channels, *GRID.shape)).astype(np.float32)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".voxport.lock"}


def test_images_and_labels_are_those_of_the_case(kept: TrainingFolder, stack: ExitStack) -> None:
    values = noise(2)
    values[1, 0, 0, 0] = np.nan
    key = kept.keep("Anna / <b>scan</b>", case_of(values, stack), mask_of(), ["T1", ""])
    assert key.startswith("Anna_b_scan_b_")
    lists = {"dataset.json", "datalist.json"}
    images = [f"imagesTr/{key}_000{i}.nii.gz" for i in range(2)]
    assert files(kept.folder) == {*lists, *images, f"labelsTr/{key}.nii.gz"}
    values[1, 0, 0, 0] = 0
    for image, expected in zip(images, values, strict=True):
        written = nib.load(kept.folder / image)
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
        np.testing.assert_array_equal(written.affine, GRID.affine)
    labels = nib.load(kept.folder / f"labelsTr/{key}.nii.gz")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), CODES[LABELS])
    np.testing.assert_array_equal(labels.affine, GRID.affine)
    assert json.loads((kept.folder / "dataset.json").read_text(encoding="utf-8")) == {
        "channel_names": {"0": "T1", "1": "channel 2"},
        "labels": {"background": 0, "cell": 1, "vessel": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    assert json.loads((kept.folder / "datalist.json").read_text(encoding="utf-8")) == {
        "training": [{"image": images, "label": f"labelsTr/{key}.nii.gz"}]
    }


def test_a_case_replaces_its_mask_and_no_other(kept: TrainingFolder, stack: ExitStack) -> None:
    one, other = case_of(noise(), stack), case_of(noise(), stack)
    first = kept.keep("scan", one, mask_of(), [""])
    second = kept.keep("scan", other, mask_of(), [""])
    assert first != second
    assert kept.keep("scan", one, mask_of(np.full_like(LABELS, 2)), [""]) == first
    for key, expected in ((first, np.ones_like(LABELS)), (second, CODES[LABELS])):
        labels = np.asarray(nib.load(kept.folder / f"labelsTr/{key}.nii.gz").dataobj)
        np.testing.assert_array_equal(labels, expected)
    assert json.loads((kept.folder / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2


@pytest.mark.parametrize("table", [LabelTable((Label(2, "cell"),)), LabelTable((Label(2, "cell"), Label(4, "tube")))])
def test_other_labels_are_refused(kept: TrainingFolder, stack: ExitStack, table: LabelTable) -> None:
    kept.keep("scan", case_of(noise(), stack), mask_of(), [""])
    before = files(kept.folder)
    with pytest.raises(OutputError, match="folder of its own"):
        kept.keep("other", case_of(noise(), stack), mask_of(np.zeros_like(LABELS), table), [""])
    assert files(kept.folder) == before


def test_other_channels_are_refused(kept: TrainingFolder, stack: ExitStack) -> None:
    kept.keep("scan", case_of(noise(), stack), mask_of(), [""])
    with pytest.raises(OutputError, match="2 channels"):
        kept.keep("scan", case_of(noise(2), stack), mask_of(), ["", ""])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"labels": 1}', b"\xff\xfe", b'{"labels": {}, "channel_names": 3}'])
def test_a_damaged_list_is_not_overwritten(kept: TrainingFolder, stack: ExitStack, content: bytes) -> None:
    kept.folder.mkdir()
    (kept.folder / "dataset.json").write_bytes(content)
    with pytest.raises(OutputError, match="name another folder"):
        kept.keep("scan", case_of(noise(), stack), mask_of(), [""])
    assert (kept.folder / "dataset.json").read_bytes() == content


class FullStore(NiftiStore):
    """A store in which the second channel of an image finds no room at its end."""

    def create(self, reference: str, grid: Grid, dtype: np.dtype[Any], **options: Any) -> NiftiSink:
        sink = super().create(reference, grid, dtype, **options)
        if "_0001" in reference:

            def refuse() -> str:
                raise OutputError.cannot_write(reference, "no room")

            sink.commit = refuse  # type: ignore[method-assign]
        return sink


def test_a_case_that_fails_leaves_nothing(tmp_path: Path, stack: ExitStack) -> None:
    kept = TrainingFolder(tmp_path, FullStore(), LocalFiles(), FileLocks())
    with pytest.raises(OutputError, match="no room"):
        kept.keep("scan", case_of(noise(2), stack), mask_of(), ["", ""])
    assert files(tmp_path) == set()


class NoRoomForLabels(NiftiStore):
    """A store in which a mask finds no room at its end."""

    def create(self, reference: str, grid: Grid, dtype: np.dtype[Any], **options: Any) -> NiftiSink:
        sink = super().create(reference, grid, dtype, **options)

        def refuse() -> str:
            raise OutputError.cannot_write(reference, "no room")

        sink.commit = refuse  # type: ignore[method-assign]
        return sink


def test_a_case_whose_new_mask_cannot_be_written_stays_as_it_was(kept: TrainingFolder, stack: ExitStack) -> None:
    case = case_of(noise(), stack)
    key = kept.keep("scan", case, mask_of(), [""])
    before = {name: (kept.folder / name).read_bytes() for name in files(kept.folder)}
    full = TrainingFolder(kept.folder, NoRoomForLabels(), LocalFiles(), FileLocks())
    with pytest.raises(OutputError, match="no room"):
        full.keep("scan", case, mask_of(np.zeros_like(LABELS)), [""])
    assert f"labelsTr/{key}.nii.gz" in before
    assert {name: (kept.folder / name).read_bytes() for name in files(kept.folder)} == before


def test_a_case_that_lost_an_image_is_no_longer_listed(kept: TrainingFolder, stack: ExitStack) -> None:
    first = kept.keep("scan", case_of(noise(), stack), mask_of(), [""])
    (kept.folder / f"imagesTr/{first}_0000.nii.gz").unlink()
    second = kept.keep("other", case_of(noise(), stack), mask_of(), [""])
    listed = json.loads((kept.folder / "datalist.json").read_text(encoding="utf-8"))
    assert listed == {"training": [{"image": f"imagesTr/{second}_0000.nii.gz", "label": f"labelsTr/{second}.nii.gz"}]}
    assert json.loads((kept.folder / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "file").touch()
    kept = TrainingFolder(tmp_path / "file" / "training", NiftiStore(), LocalFiles(), FileLocks())
    with pytest.raises(OutputError, match="choose another place"):
        kept.keep("scan", case_of(noise(), stack), mask_of(), [""])
