"""Pages on real volumes: two-photon vessels, a CT and a brain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from voxport.domain.cards.writing import write_card
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import Window
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.entrypoints.cli.main import app
from voxport.testing.affine import affine_card, write_affine_onnx

from tests.real_data.test_real_volumes import CARD

pytestmark = [pytest.mark.real_data, pytest.mark.no_cover]  # the tracer would cost more than it tells
_MOST_BYTES = 5_000_000


def voxport(*arguments: object) -> None:
    """The command line, in this process."""
    app(args=[str(a) for a in arguments], standalone_mode=False)


def bone_model(folder: Path) -> tuple[Path, Path]:
    """Write a network that finds what is above 200 HU, and its card; return both paths."""
    write_affine_onnx(folder / "bone.onnx", np.array([[0], [1]], np.float32), np.array([0, -200], np.float32))
    card = affine_card(1, 2, tiling=Tiling((64, 64, 16)))
    output = replace(card.output, table=LabelTable((Label(1, "bone", "#e69f00"),)))
    card = replace(card, name="bone", output=output, input=replace(card.input, intensity=(Window(-200.0, 1000.0),)))
    (folder / "bone.yaml").write_text(yaml.safe_dump(write_card(card)), encoding="utf-8")
    return folder / "bone.onnx", folder / "bone.yaml"


def test_a_folder_of_vessels_gets_its_pages_by_one_command(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for image in sorted((real_data / "two_photon").glob("burgess*_image.nii.gz")):
        (tmp_path / "in" / image.name).symlink_to(image)
    voxport("batch", tmp_path / "in", "-o", tmp_path / "out", "--html", "--quiet")
    pages = sorted((tmp_path / "out").glob("*.html"))
    assert len(pages) == 4
    assert all(50_000 < page.stat().st_size < _MOST_BYTES for page in pages)
    before = {page.name: page.read_bytes() for page in pages}
    voxport("report", tmp_path / "out", "--quiet")
    assert {page.name: page.read_bytes() for page in pages} == before


def test_a_ct_and_a_brain_have_pages(real_data: Path, tmp_path: Path) -> None:
    network, card = bone_model(tmp_path)
    ct, brain = real_data / "ct_mr" / "example_ct_sm.nii.gz", real_data / "brain"
    for name, scan, model, own in (
        ("ct", ct, network, card),
        ("brain", brain / "t1_crop.nii.gz", brain / "meshnet_gwm_11.onnx", CARD),
    ):
        files = ("-o", tmp_path / f"{name}.nii.gz", "--html", tmp_path / f"{name}.html")
        report = ("--report", tmp_path / f"{name}.json")
        voxport("segment", scan, "-m", model, "--card", own, *files, *report, "--quiet")
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert len(page.encode()) < _MOST_BYTES
        labels = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["statistics"]["labels"]
        mask = np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj)
        for label in labels:
            assert label["voxels"] == np.count_nonzero(mask == label["value"]) > 0
            assert f": {label['name']}</figcaption>" in page
    assert "The card keeps -200 to 1000" in (tmp_path / "ct.html").read_text(encoding="utf-8")


def test_label_maps_of_a_ct_are_compared_over_the_image(real_data: Path, tmp_path: Path) -> None:
    truth = real_data / "ct_mr" / "example_seg.nii.gz"
    stored = nib.load(truth)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(stored.dataobj), 1, 0), stored.affine), tmp_path / "moved.nii.gz")
    image = real_data / "ct_mr" / "example_ct_sm.nii.gz"
    voxport("compare", tmp_path / "moved.nii.gz", truth, "--html", tmp_path / "c.html", "--image", image, "--quiet")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count("<figure>") > 10
    assert {f'data-layer="{kind}"' in page for kind in range(4)} == {True}
    assert len(page) < _MOST_BYTES
