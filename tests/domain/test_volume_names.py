"""Endings of volumes: stems, pairs and names on a server."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import voxport
from voxport.domain.volume_names import (
    DICOM,
    META_IMAGE,
    NIFTI,
    NRRD,
    OME_ZARR,
    SEGMENTATION_NRRD,
    SENT_MASKS,
    VolumeFormat,
    VolumeNames,
    mask_format,
    sent_name,
)

ZARR = VolumeFormat("OME-Zarr", (), folders=(".ome.zarr", ".zarr"), writable=(".ome.zarr",), inside="/labels/")
TIFF = VolumeFormat("TIFF", (".tif", ".ome.tif"), writable=(".ome.tif", ".tif"))
NAMES = VolumeNames((NIFTI, TIFF, ZARR))


@pytest.mark.parametrize(
    ("name", "stem", "ending"),
    [
        ("a.nii", "a", ".nii"),
        ("x/A.NII.GZ", "x/A", ".nii.gz"),
        ("a.b.hdr", "a.b", ".hdr"),
        ("a.ome.tif", "a", ".ome.tif"),
        ("a.tif", "a", ".tif"),
        ("x.nii/a.zarr", "x.nii/a", ".zarr"),
        ("a.txt", "a.txt", ""),
        ("x/.nii", "x/.nii", ".nii"),
    ],
)
def test_a_name_falls_into_stem_and_longest_ending(name: str, stem: str, ending: str) -> None:
    assert (NAMES.stem(name), NAMES.ending(name)) == (stem, ending)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.zarr/labels/vessels", ".zarr"),
        ("x/A.OME.ZARR/Labels/b", ".ome.zarr"),
        ("plate.zarr/A/1/0/labels/b", ".zarr"),
        ("a.zarr/labels/", ""),
        ("a.zarr/0", ""),
        ("labels/a.zarr", ".zarr"),
        ("a/labels/b", ""),
    ],
)
def test_a_volume_inside_another_has_the_ending_of_that(name: str, ending: str) -> None:
    assert NAMES.ending(name) == ending
    assert NAMES.is_inside(name) == bool(ending and not name.endswith(ending))


def test_a_search_finds_single_files_and_folders_and_no_halves_of_pairs() -> None:
    files = ["a.nii", "a.tif", "a.hdr", "a.img", "a.zarr", ".nii", "a.txt"]
    assert [name for name in files if NAMES.is_volume(name)] == ["a.nii", "a.tif"]
    assert [name for name in files if NAMES.is_volume(name, is_folder=True)] == ["a.zarr"]
    assert NAMES.searched == "NIfTI (.nii, .nii.gz), TIFF (.tif, .ome.tif), OME-Zarr (.ome.zarr, .zarr)"


def test_a_store_without_endings_has_names_of_no_parts() -> None:
    nothing = VolumeNames()
    assert (nothing.stem("a.nii"), nothing.ending("a.nii"), nothing.files("a")) == ("a.nii", "", ("a",))


@pytest.mark.parametrize(
    ("name", "start", "ending"),
    [
        ("a.nii", b"\x1f\x8b\x08\0", ".nii.gz"),
        ("a.nii.gz", b"\x5c\x01\0\0", ".nii"),
        ("a.hdr", b"\x5c\x01\0\0", ".nii"),
        ("", b"\x5c\x01\0\0", ".nii"),
        ("a.txt", b"PK\x03\x04", ".zip"),
        ("series.zip", b"PK\x03\x04", ".zip"),
        ("../../a.OME.TIF", b"II*\0", ".ome.tif"),
        ("a.mgz", b"\x1f\x8b\x08\0", ".mgz"),
        ("a.npz", b"PK\x03\x04", ".npz"),
        ("a.ome.zarr", b"PK\x03\x04", ".ome.zarr.zip"),
        ("a.zarr.zip", b"PK\x03\x04", ".zarr.zip"),
    ],
)
def test_an_upload_keeps_its_number_and_the_ending_of_its_format(name: str, start: bytes, ending: str) -> None:
    assert sent_name(3, name, start) == f"volume_3{ending}"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("m.nii", "nii"),
        ("M.NII.GZ", "nii.gz"),
        ("m.ome.tiff", "ome.tif"),
        ("m.ome.zarr", "ome.zarr"),
        ("m.ome.zarr.zip", "ome.zarr"),
        ("m.seg.nrrd", "seg.nrrd"),
        ("m.dcm", "dcm"),
        ("m.hdr", None),
        ("m.npy", None),
        ("in.zarr/labels/m", None),
        ("m", None),
    ],
)
def test_the_name_of_a_mask_says_which_format_a_server_sends(name: str, form: str | None) -> None:
    assert mask_format(name) == form


def test_masks_are_sent_in_formats_that_can_be_written() -> None:
    known = VolumeNames((NIFTI, TIFF, OME_ZARR, SEGMENTATION_NRRD, NRRD, META_IMAGE, DICOM))
    assert {sent.ending for sent in SENT_MASKS.values()} <= set(known.writable)
    assert {mask_format(f"m.{form}") for form in SENT_MASKS} == set(SENT_MASKS)


def test_no_other_module_knows_an_ending() -> None:
    root = Path(voxport.__file__).parent
    knowing = set()
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
        prose = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
        ]
        if any(ending in text for text in texts for ending in NIFTI.endings):
            knowing.add(path.relative_to(root).as_posix())
    assert {path for path in knowing if not path.startswith("testing/")} == {"domain/volume_names.py"}
