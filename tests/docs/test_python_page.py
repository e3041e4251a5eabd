"""The examples of docs/python.md run as they are printed, one after the other."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import nibabel as nib
import pytest
import voxport

from tests.cli.conftest import environment

from .reading import DOCS, blocks

PAGE = (DOCS / "python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the page's code prints in a folder with a part of the sample as ``scan.nii.gz``."""
    folder = tmp_path_factory.mktemp("page")
    sample = nib.load(voxport.Application.build().sample)
    nib.save(sample.slicer[100:148, 100:140, :8], folder / "scan.nii.gz")
    code = "\n".join(block.text for block in blocks(PAGE) if block.language == "python")
    (folder / "page.py").write_text(code, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "page.py"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "mask.nii.gz").exists()
    assert (folder / "statistics.csv").exists()
    return result.stdout


def test_the_page_runs_and_prints_what_it_says(output: str) -> None:
    assert "(48, 40, 8) um" in output
    assert "(2, 48, 40, 8) float32" in output
    for block in blocks(PAGE):
        if block.language == "text":
            assert block.text in output


def test_the_page_names_every_option() -> None:
    named = next(line for line in PAGE.splitlines() if "`overlap`, `patch`" in line)
    assert re.findall(r"`(\w+)`", named.split("|")[1]) != []
    assert set(re.findall(r"`(\w+)`", named.split("|")[1])) == {
        field.name for field in dataclasses.fields(voxport.RunOptions)
    }


@pytest.mark.parametrize("name", sorted(set(re.findall(r"voxport\.([A-Za-z]\w*)", PAGE)) - {"md"}))
def test_every_public_name_on_the_page_exists(name: str) -> None:
    assert name in voxport.__all__
