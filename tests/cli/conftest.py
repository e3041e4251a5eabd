"""The real command, a small volume and a small model."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.contract.card import read_card
from voxport.domain.cards.writing import write_card
from voxport.domain.inference.patches import Tiling
from voxport.testing.affine import affine_card
from voxport.testing.convolution import write_convolution_onnx

from .forking import run_forked

Command = Callable[..., subprocess.CompletedProcess[str]]
AFFINE = np.array([[-0.5, 0.1, 0, 20], [0, 0.05, 1.5, -7], [0, -0.7, 0.1, 3], [0, 0, 0, 1]])


def environment(folder: Path) -> dict[str, str]:
    """The variables of this process, with nothing of the user's own settings or models."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOXPORT_")}
    return kept | {"XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config"), "COLUMNS": "200"}


@pytest.fixture
def voxport(tmp_path: Path) -> Command:
    """Runs ``voxport`` as a process of its own."""

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return run_forked([str(a) for a in arguments], cwd=tmp_path, env=environment(tmp_path) | dict(env or {}))

    return run


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A uint8 volume, 21 x 18 x 13, oblique, in micrometres, with an sform and a qform."""
    path = tmp_path / "scan.nii.gz"
    values = np.random.default_rng(3).integers(0, 256, (21, 18, 13), np.uint8)
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("micron")
    image.set_sform(AFFINE, 2)
    image.set_qform(AFFINE, 1, strip_shears=True)
    nib.save(image, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A lopsided convolution with two classes, self-describing, in tiles of 8."""
    return make_model(tmp_path / "model.onnx")


def make_model(
    path: Path,
    *,
    classes: int = 2,
    channels: int = 1,
    radius: int = 1,
    input_fields: Mapping[str, Any] | None = None,
    **tiling: Any,
) -> Path:
    """Write a self-describing model; ``input_fields`` and ``tiling`` change its card."""
    write_convolution_onnx(path, classes=classes, channels=channels, radius=radius)
    card = affine_card(channels, classes, tiling=replace(Tiling((8, 8, 8), overlap=0.5), **tiling))
    data = write_card(card)
    data["input"] |= {"intensity": [{"rescale": [0, 1]}]} | dict(input_fields or {})
    OnnxModelFiles().write(path, read_card(yaml.safe_load(yaml.safe_dump(data))), path)
    return path
