"""``voxport import`` and ``inspect`` of another framework's files, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from voxport.adapters.models.onnx_files import OnnxModelFiles

from ..adapters.test_onnx_slices_importer import write_source
from .conftest import Command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An ONNX network for 2-D images, with its card beside it."""
    return write_source(tmp_path)


def test_the_file_segments_with_the_card_that_was_printed(voxport: Command, source: Path, scan: Path) -> None:
    done = voxport("import", source, "-o", "model.onnx", "--name", "mine", "--version", "2.0.0")
    assert done.returncode == 0, done.stderr
    card, _, certificate = done.stdout.partition("model.onnx: mine:2.0.0\n")
    assert yaml.safe_load(card)["name"] == "mine"
    assert "onnx fp32" in certificate
    assert "the network is applied to each slice along z" in done.stderr
    done = voxport("segment", scan, "-m", "model.onnx", "-o", "mask.nii.gz")
    assert done.returncode == 0, done.stderr


def test_the_name_of_the_file_is_the_sources_without_a_name(voxport: Command, source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = source.rename(tmp_path / "elsewhere" / source.name)
    (tmp_path / "flat.card.yaml").rename(tmp_path / "elsewhere" / "flat.card.yaml")
    assert voxport("import", moved).returncode == 0
    assert (tmp_path / "flat.onnx").is_file()


def test_fields_are_set_by_their_dotted_names(voxport: Command, source: Path, tmp_path: Path) -> None:
    changes = ("--set", "licence=MIT", "--set", "inference.overlap=0.25", "--set", "input.orientation=null")
    done = voxport("import", source, "-o", "model.onnx", *changes, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reference"] == "flat:1.0.0"
    card = OnnxModelFiles().read(tmp_path / "model.onnx").card
    assert (card.licence, card.tiling.overlap, card.input.orientation) == ("MIT", 0.25, None)


def test_a_draft_is_completed_and_imported(voxport: Command, source: Path, tmp_path: Path) -> None:
    done = voxport("import", source, "--card-draft", "draft.yaml")
    assert done.returncode == 0, done.stderr
    assert "import again with --card draft.yaml" in done.stdout
    assert not (tmp_path / "model.onnx").exists()
    draft = yaml.safe_load((tmp_path / "draft.yaml").read_text(encoding="utf-8"))
    (tmp_path / "draft.yaml").write_text(yaml.safe_dump(draft | {"intended_use": "Only tests."}), encoding="utf-8")
    assert voxport("import", source, "--card", "draft.yaml", "-o", "model.onnx").returncode == 0
    assert OnnxModelFiles().read(tmp_path / "model.onnx").card.intended_use == "Only tests."
    again = voxport("import", source, "--card-draft", "draft.yaml")
    assert again.returncode == 1
    assert "name another one" in again.stderr


def test_inspect_shows_what_would_be_imported(voxport: Command, source: Path) -> None:
    done = voxport("inspect", source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("framework: ONNX for 2-D images\n")
    shown = json.loads(voxport("inspect", source, "--json").stdout)
    assert shown["card"]["name"] == "flat"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere",), 4, "nowhere: expected a folder or a file, got no such path"),
        (("scan.nii.gz",), 4, "expected a model of one of nnunet"),
        (("flat.onnx", "--set", "licence"), 2, "expected FIELD=VALUE, got licence"),
        (("flat.onnx", "--set", "licences=MIT"), 4, "licences is an unknown key (did you mean licence?)"),
        (("flat.onnx", "--set", "inference.overlap=2"), 4, "inference.overlap expected a number from 0 to 0.75"),
        (("flat.onnx", "--checkpoint", "newest"), 2, "expected final or best, got newest"),
        (("flat.onnx", "-o", "model.pt"), 1, "a name that ends in .onnx"),
        (("flat.onnx", "-o", "missing/model.onnx"), 1, "missing"),
        (("flat.onnx", "--check", "scan.nii.gz"), 2, "leave the comparison out"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(
    voxport: Command, source: Path, scan: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert source.exists()
    assert scan.exists()
    before = sorted(path.name for path in tmp_path.iterdir())
    target = () if "-o" in arguments else ("-o", "model.onnx")
    done = voxport("import", *arguments, *target, "--quiet")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("data", "config")) == before
