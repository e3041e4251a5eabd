"""Networks that nnU-Net's own trainer wrote, trained shortly on real volumes, against nnU-Net's own inference."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.entrypoints.cli.main import app

from tests.adapters.nnunet_results import Recipe, exported_zip, predict, write_results

pytestmark = [pytest.mark.real_data, pytest.mark.no_cover]

LEAST_AGREEMENT, LEAST_DICE = 0.999, 0.995
Volume = NDArray[Any]

SIX_STAGES = Recipe(
    patch=(32, 64, 64),
    spacing=(4.0, 3.5, 3.2),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    features=(6, 8, 8, 8, 8, 8),
    labels={"background": 0, "liver": 1, "other": 2},
    mirroring=None,
    edge=64,
    steps=80,
)
SMALL = replace(SIX_STAGES, patch=(16, 32, 32), edge=32, strides=SIX_STAGES.strides[:4], features=(6, 8, 8, 8))
MR = replace(SMALL, channels=("MR",), schemes=("ZScoreNormalization",))
RECIPES = {
    "six-stage": SIX_STAGES,
    "older plans": replace(SMALL, old_plans=True),
    "residual": replace(SMALL, network="ResidualEncoderUNet"),
    "2d": replace(
        SMALL,
        configuration="2d",
        patch=(32, 48),
        spacing=(3.5, 3.2),
        strides=((1, 1), (2, 2), (2, 2), (2, 2)),
        mirroring=(0, 1),
        steps=200,
    ),
    "anisotropic": replace(
        SMALL,
        patch=(6, 32, 32),
        spacing=(12.0, 3.5, 3.2),
        strides=((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)),
        steps=80,
    ),
    "regions": replace(SMALL, labels={"background": 0, "abdomen": [1, 2], "liver": 1}, regions=(2, 1)),
    "five folds, mirrored": replace(
        SMALL,
        patch=(8, 48, 48),
        spacing=(6.0, 3.5, 3.2),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        features=(4, 8, 8),
        folds=("0", "1", "2", "3", "4"),
        mirroring=(0, 1, 2),
        steps=60,
    ),
    "MR, masked z-score": replace(MR, masked=(True,)),
    "MR, transposed": replace(MR, transpose=(2, 0, 1), spacing=(3.2, 4.0, 3.5), patch=(32, 16, 32), mirroring=(0,)),
    "MR, two channels": replace(
        MR,
        channels=("MR", "the same"),
        schemes=("RescaleTo01Normalization", "ZScoreNormalization"),
        masked=(False, True),
        reader="NibabelIOWithReorient",
        steps=150,
    ),
    "MR, torch resampling": replace(
        MR,
        schemes=("NoNormalization",),
        resampling=dict.fromkeys(("data", "seg", "probabilities"), "resample_torch_fornnunet"),
    ),
}


@dataclass(frozen=True)
class Case:
    """A stored volume and labels ``(X, Y, Z)``, with their affine."""

    image: Volume
    labels: Volume
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> list[float]:
        return [float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0)]

    def every(self, step: int) -> Case:
        """Every such slice, so that the slices are as far apart."""
        affine = self.affine.copy()
        affine[:, 2] *= step
        return Case(self.image[..., ::step], self.labels[..., ::step], affine)

    def part(self, *box: slice) -> Case:
        return Case(self.image[box], self.labels[box], self.affine)

    def stored_as(self, *axes: int) -> Case:
        """The same case with its axes in another order, the first of them turned round."""
        affine = self.affine[:, [*axes, 3]]
        affine[:, 3] += affine[:, 0] * (self.image.shape[axes[0]] - 1)
        affine[:, 0] *= -1
        return Case(self.image.transpose(axes)[::-1], self.labels.transpose(axes)[::-1], affine)

    def save(self, path: Path) -> Path:
        nib.save(nib.Nifti1Image(np.ascontiguousarray(self.image), self.affine), path)
        return path


def case(real_data: Path, recipe: Recipe) -> Case:
    """Return the CT or MR volume with the liver as label 1 and fat as label 2."""
    of_mr = recipe.channels[0] == "MR"
    names = ("mr_sm", "seg_mr") if of_mr else ("ct_sm", "seg")
    image, segmented = (nib.load(real_data / "ct_mr" / f"example_{name}.nii.gz") for name in names)
    values, found = np.asarray(image.dataobj), np.asarray(segmented.dataobj)
    fat = values > 300 if of_mr else (values > -115) & (values < -60)
    labels = np.where(found == 5, 1, np.where(fat, 2, 0)).astype(np.uint8)
    return Case(values, labels, image.affine).every(max(1, int(max(recipe.spacing) // 3)))


def parts_of(whole: Case) -> dict[str, Case]:
    """Return the volume, a few slices of it, and a piece smaller than the patch, about the labels' middle."""
    middle = np.argwhere(whole.labels == 1).mean(axis=0).astype(int)

    def around(*edges: int) -> Case:
        starts = np.clip(middle - np.array(edges) // 2, 0, np.array(whole.labels.shape) - edges)
        return whole.part(*(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True)))

    return {
        "whole": whole,
        "thin": around(60, 50, 4),
        "smaller than the patch": around(24, 20, 8),
        "stored in another order": around(44, 40, 8).stored_as(2, 0, 1),
    }


def voxport(*arguments: object) -> None:
    app(args=[str(a) for a in arguments], standalone_mode=False)


def labels_of(path: Path) -> Volume:
    return np.asarray(nib.load(path).dataobj).astype(int)


def dices(mine: Volume, theirs: Volume) -> dict[int, float]:
    values = set(np.unique(theirs)) | set(np.unique(mine))
    return {
        int(v): float(2 * ((mine == v) & (theirs == v)).sum() / ((mine == v).sum() + (theirs == v).sum()))
        for v in values - {0}
    }


@pytest.mark.parametrize("kind", RECIPES)
def test_labels_are_those_of_nnunet(real_data: Path, tmp_path: Path, kind: str) -> None:
    recipe = RECIPES[kind]
    whole = case(real_data, recipe)
    image = np.stack([whole.image] * len(recipe.channels))
    source = write_results(tmp_path, recipe, image, whole.labels, whole.spacing)
    model = tmp_path / "model.onnx"
    voxport("import", source, "-o", model)
    for name, part in parts_of(whole).items():
        path = part.save(tmp_path / f"{name}.nii.gz".replace(" ", "-"))
        mask, theirs = tmp_path / f"mine-{path.name}", tmp_path / f"theirs-{path.name}"
        files = [path] * len(recipe.channels)
        voxport("segment", *files, "-m", model, "-o", mask, "--quiet")
        predict(source, files, theirs, folds=recipe.folds)
        mine, expected = labels_of(mask), labels_of(theirs)
        agreement, dice = float((mine == expected).mean()), dices(mine, expected)
        print(f"{kind}, {name}: {agreement:.5f} {dice}")
        assert agreement >= LEAST_AGREEMENT, (name, dice)
        assert min(dice.values(), default=1.0) >= LEAST_DICE, (name, agreement)
        if name == "whole":
            assert set(np.unique(expected)) == {0, 1, 2}, "the network finds every label"


def test_a_file_holds_how_far_its_labels_are_nnunets(real_data: Path, tmp_path: Path) -> None:
    """With the largest component, from the zip of the export command, which nnU-Net itself reads for the comparison."""
    whole = case(real_data, SMALL)
    source = write_results(tmp_path / "results", SMALL, whole.image[None], whole.labels, whole.spacing)
    step = "remove_all_but_largest_component_from_segmentation"
    written = {"postprocessing_fns": [step], "postprocessing_kwargs": [{"labels_or_regions": 2}]}
    (source / "postprocessing.json").write_text(json.dumps(written), encoding="utf-8")
    archive = exported_zip(source, tmp_path / "results.zip")
    path, model, mask = whole.save(tmp_path / "case.nii.gz"), tmp_path / "model.onnx", tmp_path / "mask.nii.gz"
    voxport("import", archive, "-o", model, "--check", path, "--set", "licence=MIT", "--set", "intended_use=Tests")
    parity = OnnxModelFiles().read(model).card.parity
    assert parity is not None
    (found,) = parity.pipeline
    assert (found.framework, found.volume) == ("nnunetv2", "case.nii.gz")
    assert found.label_agreement >= LEAST_AGREEMENT
    assert min(found.dice) >= LEAST_DICE
    voxport("segment", path, "-m", model, "-o", mask, "--quiet")
    assert ndimage.label(labels_of(mask) == 2, np.ones((3, 3, 3)))[1] == 1
    predict(source, [path], tmp_path / "plain.nii.gz")
    assert ndimage.label(labels_of(tmp_path / "plain.nii.gz") == 2, np.ones((3, 3, 3)))[1] > 1
