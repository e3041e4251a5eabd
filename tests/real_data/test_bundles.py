"""MONAI bundles: imported by one command, and run by MONAI itself on the same volume."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("spleen", (96, 80, 44), "LPS"),
        ("spleen", (96, 80, 12), "SPL"),  # thinner than the patch
        ("brats", (64, 56, 40), "RAS"),
        ("prostate", (96, 80, 44), "LAS"),
        ("whole_body", (96, 80, 44), "PIR"),
    ],
)
def test_an_imported_bundle_segments_as_monai_runs_it(
    tmp_path: Path, kind: str, shape: tuple[int, int, int], axes: str
) -> None:
    channels = KINDS[kind]()["network_def"]["in_channels"]
    # Interpolated values that are exactly zero would be a matter of rounding for NormalizeIntensity with nonzero.
    spacing = (2.9, 3.1, 4.3)
    taught = [volume(tmp_path / f"a{i}.nii.gz", shape, spacing, axes, seed=i) for i in range(channels)]
    asked = [volume(tmp_path / f"b{i}.nii.gz", shape, spacing, axes, seed=10 + i) for i in range(channels)]
    bundle, model = trained_bundle(tmp_path / kind, kind, taught), tmp_path / "model.onnx"
    checks = [word for path in asked for word in ("--check", str(path))]
    app(args=["import", str(bundle), "-o", str(model), *checks, "--quiet"], standalone_mode=False)
    parity = Application.build().find_model(str(model)).card.parity
    assert parity is not None
    (run,) = parity.pipeline
    print(kind, axes, run.label_agreement, run.dice)
    assert run.label_agreement >= 0.999
    assert min(run.dice) >= 0.995
