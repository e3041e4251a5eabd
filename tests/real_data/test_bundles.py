"""MONAI bundles: imported by one command, and run by MONAI itself on the same volume."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport import Application
from voxport.entrypoints.cli.main import app

from tests.bundles import KINDS, trained_bundle, volume

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.torch,
    pytest.mark.no_cover,
    pytest.mark.filterwarnings("ignore"),  # MONAI's own, of arguments that will change
]


def voxport(*arguments: object) -> None:
    """The command line, in this process."""
    app(args=[str(a) for a in arguments], standalone_mode=False)


@pytest.mark.parametrize("kind", ["spleen", "prostate", "whole_body"])
def test_an_imported_bundle_segments_a_real_volume_as_monai_runs_it(real_data: Path, tmp_path: Path, kind: str) -> None:
    name = "example_mr_sm.nii.gz" if kind == "prostate" else "example_ct_sm.nii.gz"
    compare(tmp_path, kind, [real_data / "ct_mr" / name], [real_data / "ct_mr" / name])


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("brats", (64, 56, 40), "RAS"),
        ("spleen", (96, 80, 12), "SPL"),  # thinner than the patch
        ("whole_body", (40, 36, 20), "PIR"),  # smaller than the patch
    ],
)
def test_an_imported_bundle_segments_synthetic_volumes_as_monai_runs_it(
    tmp_path: Path, kind: str, shape: tuple[int, int, int], axes: str
) -> None:
    channels = KINDS[kind]()["network_def"]["in_channels"]
    # Interpolated values that are exactly zero would be a matter of rounding for NormalizeIntensity with nonzero.
    spacing = (2.9, 3.1, 4.3)
    taught = [volume(tmp_path / f"a{i}.nii.gz", shape, spacing, axes, seed=i) for i in range(channels)]
    asked = [volume(tmp_path / f"b{i}.nii.gz", shape, spacing, axes, seed=10 + i) for i in range(channels)]
    compare(tmp_path, kind, taught, asked)


def compare(folder: Path, kind: str, taught: list[Path], asked: list[Path]) -> None:
    """Import a bundle trained on a case, compare both runs on another, and see that all labels are there."""
    bundle, model, mask = trained_bundle(folder / kind, kind, taught), folder / "model.onnx", folder / "mask.nii.gz"
    checks = [word for path in asked for word in ("--check", path)]
    voxport("import", bundle, "-o", model, *checks, "--quiet")
    card = Application.build().find_model(str(model)).card
    assert card.parity is not None
    (run,) = card.parity.pipeline
    voxport("segment", *asked, "-m", model, "-o", mask, "--quiet")
    counts = np.bincount(np.asarray(nib.load(mask).dataobj).astype(np.uint8).ravel(), minlength=256)
    print(kind, run.label_agreement, run.dice, counts[counts > 0])
    assert all(counts[value] > 0 for value in card.output.table.values)
    assert run.label_agreement >= 0.999
    assert min(run.dice) >= 0.995
