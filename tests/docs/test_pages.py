"""The pages are followed as they are printed, in order; what cannot be run here is parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main
import voxport
import yaml
from voxport.entrypoints.cli.main import app

from tests.rest.conftest import named_model

from .reading import DOCS, ROOT, Reader, blocks, command_lines

SAMPLE = Path(voxport.__file__).parent / "bundled" / "sample.nii.gz"
LINE: Any = typer.main.get_command(app)
# Pages that tests of their own follow, by section or by file
ELSEWHERE = {
    "embedding.md",
    "python.md",
    "http-api.md",
    "inference-protocol.md",
    "settings.md",
    "models.md",
    "model-card.md",
}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """In a folder with a part of the bundled sample as ``scan.nii.gz``."""
    nib.save(nib.load(SAMPLE).slicer[100:148, 100:140, :8], tmp_path / "scan.nii.gz")
    return Reader(tmp_path)


def two_versions(folder: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        named_model(folder, "cells", version)


def the_clone(folder: Path) -> None:
    for name in ("src", "deployment"):
        hidden = ["__pycache__"] if name == "src" else ["__pycache__", "secrets", "models"]  # what a person keeps there
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*hidden))
    for name in ("README.md", "LICENSE", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)


def nothing(folder: Path) -> None:
    """Nothing but the scan."""


FOLLOWED: dict[str, Callable[[Path], None]] = {
    "tutorial.md": lambda folder: (folder / "scan.nii.gz").unlink(),
    "export.md": nothing,
    "foreign-onnx.md": nothing,
    "deploy.md": the_clone,
    "secure.md": nothing,
    "upgrade.md": two_versions,
    "adapter.md": nothing,
    "geometry.md": nothing,
    "formats.md": nothing,
    "tiling.md": nothing,
    "parity.md": nothing,
    "uncertainty.md": nothing,
}


@pytest.mark.parametrize("page", FOLLOWED)
def test_the_page_does_what_it_says(reader: Reader, page: str) -> None:
    FOLLOWED[page](reader.folder)
    reader.follow(page)
    if page == "tutorial.md":
        mask, scan = nib.load(reader.folder / "mask.nii.gz"), nib.load(reader.folder / "scan.nii.gz")
        assert np.array_equal(mask.affine, scan.affine)
        assert (reader.folder / "mask.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_on_monitoring(reader: Reader) -> None:
    """Against a service that the page takes to run already."""
    from .reading import Block

    reader._serve(Block("bash", "", "voxport serve --port 3000"))
    page = blocks((DOCS / "monitor.md").read_text(encoding="utf-8"))
    try:
        reader._follow([block for block in page if block.language == "bash"])
        assert (reader.folder / "metrics.txt").stat().st_size > 0
    finally:
        reader._stop()
    (scrape,) = yaml.safe_load(next(block.text for block in page if block.title))["scrape_configs"]
    ours = yaml.safe_load((ROOT / "deployment" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert set(scrape) <= set(ours)


def test_every_page_with_something_to_run_is_run() -> None:
    pages = {
        page.name
        for page in DOCS.glob("*.md")
        if any(b.language in ("bash", "python") for b in blocks(page.read_text(encoding="utf-8")))
    }
    assert pages == {*FOLLOWED, "monitor.md"} | {page for page in ELSEWHERE if page in pages}


@pytest.mark.parametrize(("page", "line"), list(command_lines()))
def test_every_command_is_one(page: str, line: str) -> None:
    """README and docs/ call commands that there are, with options that they have."""
    words = shlex.split(re.split(r" (?:[;&|>]|2>)", line)[0], comments=True)
    if (re.fullmatch(r"[\w|]+", words[0]) and "|" in words[0]) or (words[-1:] and "|" in words[-1]):
        words = [word.split("|")[0] for word in words]
    command = LINE
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{page}: {name}"
        command = command.commands[name]
    if words:
        command.make_context(name, list(words))


def shown_only() -> list[tuple[str, str]]:
    return [
        (page.name, b.text)
        for page in sorted(DOCS.glob("*.md"))
        for b in blocks(page.read_text(encoding="utf-8"))
        if b.language == "sh"
    ]


@pytest.mark.parametrize(("page", "text"), shown_only())
def test_what_is_not_run_is_parsed(page: str, text: str) -> None:
    """A shell takes it, it calls scripts that there are, and Docker with services and profiles that there are."""
    assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0, page
    file = yaml.safe_load(
        re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "deployment" / "compose.yaml").read_text(encoding="utf-8"))
    )
    profiles = {profile for service in file["services"].values() for profile in service.get("profiles", [])}
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) or [""]
        if words[:1] == ["cd"]:
            assert (ROOT / words[1]).is_dir()
        if words[0].startswith("./"):
            assert (ROOT / "deployment" / words[0]).is_file()
        if words[:2] == ["docker", "compose"]:
            assert set(words[2:]) & {"up", "ps", "run"}
            assert {words[i + 1] for i, word in enumerate(words) if word == "--profile"} <= profiles
            scaled = [words[i + 1].split("=")[0] for i, word in enumerate(words) if word == "--scale"]
            assert set(scaled) <= {"worker", "cluster-worker"}


def test_variables_of_the_pages_are_settings() -> None:
    from voxport.settings import Settings

    from tests.deployment.composed import variables

    from .test_settings import APART, settings

    known = {variable for variable, _ in settings(Settings)} | APART | set(variables())
    for page in DOCS.glob("*.md"):
        named = set(re.findall(r"VOXPORT_(?:[A-Z]+_{1,2})*[A-Z]+(?![A-Z_])", page.read_text(encoding="utf-8")))
        assert named <= known, page.name
