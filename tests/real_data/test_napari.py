"""napari segments a real volume as the command line does, and saves it in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from voxport.entrypoints.cli.main import app

from tests.napari.test_napari import session
from tests.rest.conftest import named_model


def test_a_real_ct_is_opened_segmented_and_its_labels_saved(real_data: Path, tmp_path: Path) -> None:
    scan = shutil.copy(real_data / "ct_mr" / "example_ct_sm.nii.gz", tmp_path / "scan.nii.gz")
    models = tmp_path / "data" / "voxport" / "models"
    model = named_model(models, "other", classes=3, patch=(64, 64, 32), overlap=0)
    mask = tmp_path / "mask.nii.gz"
    app(args=["segment", str(scan), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    session("files", tmp_path)
