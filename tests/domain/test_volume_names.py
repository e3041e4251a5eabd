"""Endings of volumes: stems, pairs and names on a server."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import voxport
from voxport.domain.volume_names import NIFTI, VolumeFormat, VolumeNames, sent_name

ZARR = VolumeFormat("OME-Zarr", (), folders=(".ome.zarr", ".zarr"), writable=(".ome.zarr",))
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


def test_a_search_finds_single_files_and_folders_and_no_halves_of_pairs() -> None:
    files = ["a.nii", "a.tif", "a.hdr", "a.img", "a.zarr", ".nii", "a.txt"]
    assert [name for name in files if NAMES.is_volume(name)] == ["a.nii", "a.tif"]
    assert [name for name in files if NAMES.is_volume(name, is_folder=True)] == ["a.zarr"]
    assert NAMES.searched == "NIfTI (.nii, .nii.gz), TIFF (.tif, .ome.tif), OME-Zarr (.ome.zarr, .zarr)"


def test_a_store_without_endings_has_names_of_no_parts() -> None:
    nothing = VolumeNames()
    assert (nothing.stem("a.nii"), nothing.ending("a.nii"), nothing.files("a")) == ("a.nii", "", ("a",))


def test_a_volume_on_a_server_is_named_by_number_and_content() -> None:
    assert sent_name(3, b"\x1f\x8b\x08") == "volume_3.nii.gz"
    assert sent_name(1, b"\x5c\x01\0\0") == "volume_1.nii"


def test_no_other_module_knows_an_ending() -> None:
    root = Path(voxport.__file__).parent
    knowing = set()
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
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
