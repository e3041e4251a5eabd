"""Label maps of any format and orientation are compared voxel by voxel in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from voxport.application import Application
from voxport.domain.errors import InputError, UsageError
from voxport.domain.labels.comparison import MEASURES
from voxport.ports.progress import ProgressListener
from voxport.testing.progress import RecordingProgress

AFFINE = np.array([[0, -0.9, 0, 4], [0.4, 0, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


@pytest.fixture
def progress() -> ProgressListener:
    return RecordingProgress()


def save(path: Path, labels: Any, affine: Any = AFFINE, unit: str = "mm") -> str:
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return str(path)


def two_masks() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    truth = np.zeros((20, 18, 14), np.uint8)
    truth[3:12, 4:10, 2:9], truth[14:18, 3:15, 3:12] = 1, 2
    mask = np.where(rng.random(truth.shape) < 0.05, 0, np.roll(truth, 1, 0)).astype(np.uint8)
    return mask, truth


def test_the_way_a_mask_is_stored_changes_nothing(tmp_path: Path, progress: ProgressListener) -> None:
    application, (mask, truth) = Application.build(), two_masks()
    true = save(tmp_path / "truth.nii.gz", truth)
    plain = application.compare(save(tmp_path / "mask.nii.gz", mask), true, progress)
    assert [label.value for label in plain.labels] == [1, 2]
    assert 0.5 < plain.labels[0].dice < 1
    assert plain.tolerance == 2.5
    assert (plain.unit, plain.notes) == ("mm", ())
    image = nib.load(tmp_path / "mask.nii.gz")
    for codes in ("RAS", "LPI", "SAR"):
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
        )
        nib.save(turned, tmp_path / f"{codes}.nii.gz")
        assert application.compare(str(tmp_path / f"{codes}.nii.gz"), true, progress).labels == plain.labels
    for dtype in (np.int16, np.float32, np.uint16):
        other = save(tmp_path / "other.nii", mask.astype(dtype))
        assert application.compare(other, true, progress).labels == plain.labels
    nrrd = str(tmp_path / "mask.nrrd")
    application.convert(str(tmp_path / "mask.nii.gz"), nrrd, application_reading(), progress)
    assert application.compare(nrrd, true, progress).labels == plain.labels


def application_reading() -> Any:
    from voxport.domain.reading import Reading

    return Reading()


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda affine: affine + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4]), "a centre 3 mm away"),
        (lambda affine: affine * np.array([[1.1, 1, 1, 1]] * 3 + [[1] * 4]), "a spacing of"),
    ],
)
def test_a_mask_that_lies_elsewhere_is_refused_unless_it_is_to_be_resampled(
    tmp_path: Path, progress: ProgressListener, change: Any, got: str
) -> None:
    application, (mask, truth) = Application.build(), two_masks()
    true, elsewhere = save(tmp_path / "truth.nii", truth), save(tmp_path / "mask.nii", mask, change(AFFINE))
    with pytest.raises(InputError, match="the grid of the truth") as refused:
        application.compare(elsewhere, true, progress)
    assert got in str(refused.value)
    assert "another grid" in application.compare(elsewhere, true, progress, resample=True).notes[0]


def test_a_resampled_mask_is_taken_at_the_nearest_voxels(tmp_path: Path, progress: ProgressListener) -> None:
    """A mask with a half of the spacing along each axis has each true voxel eight times."""
    application, (_, truth) = Application.build(), two_masks()
    fine = truth.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = AFFINE @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    true = save(tmp_path / "truth.nii", truth)
    found = application.compare(save(tmp_path / "fine.nii", fine, affine), true, progress, resample=True)
    assert [label.dice for label in found.labels] == [1, 1]
    in_micrometres = np.diag([1000.0, 1000.0, 1000.0, 1.0]) @ affine
    micro = save(tmp_path / "micro.nii", fine, in_micrometres, "micron")
    assert application.compare(micro, true, progress, resample=True).labels == found.labels
    with pytest.raises(InputError, match="one in um beside one in mm"):
        application.compare(micro, true, progress)
    beyond = save(tmp_path / "beyond.nii", truth, AFFINE + np.array([[0, 0, 0, 500.0]] + [[0] * 4] * 3))
    assert [label.dice for label in application.compare(beyond, true, progress, resample=True).labels] == [0, 0]


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.full((4, 4, 4), 0.5, np.float32), "values that are not whole"),
        (np.full((4, 4, 4), np.nan, np.float32), "values that are not whole"),
        (np.full((4, 4, 4), -1, np.int16), "other values"),
        (np.zeros((4, 4, 4, 2), np.uint8), "2 channels"),
        (np.arange(4096, dtype=np.uint16).reshape(16, 16, 16), "4095"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path: Path, progress: ProgressListener, values: Any, got: str) -> None:
    truth = save(tmp_path / "truth.nii", np.ones(values.shape[:3], np.uint8))
    with pytest.raises(InputError, match=got):
        Application.build().compare(save(tmp_path / "mask.nii", values), truth, progress)


def test_all_that_is_not_zero_can_be_one_label(tmp_path: Path, progress: ProgressListener) -> None:
    mask, truth = two_masks()
    true = save(tmp_path / "truth.nii", (truth > 0).astype(np.uint8) * 255)
    (label,) = Application.build().compare(save(tmp_path / "mask.nii", mask), true, progress, as_one=True).labels
    assert label.value == 1
    assert label.dice == pytest.approx(2 * ((mask > 0) & (truth > 0)).sum() / ((mask > 0).sum() + (truth > 0).sum()))


def test_labels_have_the_names_of_a_model(tmp_path: Path, progress: ProgressListener) -> None:
    truth = save(tmp_path / "truth.nii", np.zeros((4, 4, 4), np.uint8))
    application = Application.build()
    table = application.find_model("two-photon-vessels").card.output.table
    (label,) = application.compare(truth, truth, progress, labels=table).labels
    assert (label.value, label.name, label.dice) == (1, "vessel", 1)


def test_sheared_axes_are_refused(tmp_path: Path, progress: ProgressListener) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    truth = save(tmp_path / "truth.nii", np.ones((4, 4, 4), np.uint8), sheared)
    with pytest.raises(InputError, match="axes at right angles"):
        Application.build().compare(truth, truth, progress)


def test_folders_are_paired_by_name_whatever_the_format(tmp_path: Path) -> None:
    application, (mask, truth) = Application.build(), two_masks()
    for folder in ("masks", "truths"):
        (tmp_path / folder).mkdir()
    for name in ("b", "a"):
        save(tmp_path / "masks" / f"{name}.nii.gz", mask)
        save(tmp_path / "truths" / f"{name}.nii", truth)
    save(tmp_path / "masks" / "more.nii", mask)
    pairs = application.pairs_to_compare(tmp_path / "masks", tmp_path / "truths")
    assert [(name, Path(one).name, Path(other).name) for name, one, other in pairs] == [
        ("a", "a.nii.gz", "a.nii"),
        ("b", "b.nii.gz", "b.nii"),
    ]
    save(tmp_path / "truths" / "c.nii", truth)
    with pytest.raises(InputError, match="none of c"):
        application.pairs_to_compare(tmp_path / "masks", tmp_path / "truths")
    with pytest.raises(UsageError, match="two files or two folders"):
        application.pairs_to_compare(tmp_path / "masks", tmp_path / "truths" / "a.nii")
    with pytest.raises(InputError, match="no such path"):
        application.pairs_to_compare(tmp_path / "masks", tmp_path / "gone")
    with pytest.raises(InputError, match="no such path"):
        application.pairs_to_compare(tmp_path / "gone", tmp_path / "truths")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no volume"):
        application.pairs_to_compare(tmp_path / "masks", tmp_path / "empty")


def test_two_files_are_one_pair_with_the_name_of_the_mask(tmp_path: Path) -> None:
    mask, truth = tmp_path / "mine.nii.gz", tmp_path / "truth.nii"
    assert Application.build().pairs_to_compare(mask, truth) == (("mine", str(mask), str(truth)),)


def test_the_measures_are_all_of_a_label() -> None:
    assert MEASURES[0] == "dice"
    assert MEASURES[-1] == "component_recall"
    assert len(MEASURES) == 9
