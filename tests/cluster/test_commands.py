"""``--cluster`` on the command line, and clusters of the settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command, voxport
from tests.demo.conftest import save
from tests.rest.conftest import named_model

__all__ = ["voxport"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return named_model(tmp_path / "models", "edges", patch=(8, 8, 8))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (30, 26, 20), np.uint8)
    return save(tmp_path / "scan.nii.gz", values, np.diag([-1.0, 1.0, 2.0, 1.0]), "mm")


@pytest.mark.parametrize(("address", "block"), [("local", 9), ("local:1", 12), ("local:2", 9), ("local:4", 20)])
def test_every_number_of_workers_and_block_size_gives_the_same_bytes(
    voxport: Command, tmp_path: Path, scan: Path, model: Path, address: str, block: int
) -> None:
    for folder, more in (("one", ()), ("many", ("--cluster", address, "--block", str(block)))):
        (tmp_path / folder).mkdir()
        names = ("-o", f"{folder}/mask.ome.zarr", "--statistics", f"{folder}/statistics.json")
        pictures = ("--probabilities", f"{folder}/p.nii.gz", "--preview", f"{folder}/preview.png")
        done = voxport("segment", scan, "-m", model, *names, *pictures, *more)
        assert done.returncode == 0, done.stderr
    one, many = (
        {p.relative_to(tmp_path / folder): p for p in (tmp_path / folder).rglob("*")} for folder in ("one", "many")
    )
    assert one.keys() == many.keys()
    assert [name for name, path in one.items() if path.is_file() and path.read_bytes() != many[name].read_bytes()] == []


def test_a_batch_is_segmented_in_blocks(voxport: Command, tmp_path: Path, scan: Path, model: Path) -> None:
    (tmp_path / "cases").mkdir()
    for name in ("a", "b"):
        (tmp_path / "cases" / f"{name}.nii.gz").write_bytes(scan.read_bytes())
    done = voxport("batch", "cases", "-o", "masks", "-m", model, "--cluster", "local", "--block", "12")
    assert done.returncode == 0, done.stderr
    one = voxport("segment", scan, "-o", "one.nii.gz", "-m", model)
    assert one.returncode == 0, one.stderr
    for name in ("a", "b"):
        assert (tmp_path / "masks" / f"{name}.nii.gz").read_bytes() == (tmp_path / "one.nii.gz").read_bytes()
    assert list((tmp_path / "masks").glob("**/*.blocks")) == []


def test_a_plan_says_what_blocks_take(voxport: Command, scan: Path, model: Path) -> None:
    shown = voxport("plan", scan, "-m", model, "--cluster", "local", "--block", "12", "--json")
    assert shown.returncode == 0, shown.stderr
    blocks = json.loads(shown.stdout)["blocks"]
    assert blocks["tiles"] == json.loads(voxport("plan", scan, "-m", model, "--json").stdout)["tiles"]["count"]
    assert blocks["blocks"] > 4
    assert blocks["sums_bytes"] > 0
    assert blocks["read_bytes"] > 30 * 26 * 20
    said = voxport("plan", scan, "-m", model, "--cluster", "local")
    assert "a worker" in said.stdout


def test_the_settings_name_a_cluster(voxport: Command, tmp_path: Path, scan: Path, model: Path) -> None:
    (tmp_path / "shared").mkdir()
    env = {"VOXPORT_CLUSTER__ADDRESS": "nowhere", "VOXPORT_CLUSTER__FOLDER": str(tmp_path / "shared")}
    refused = voxport("segment", scan, "-o", "mask.nii", "-m", model, env=env)
    assert refused.returncode == 2
    assert "the address of a Dask scheduler" in refused.stderr
    done = voxport("segment", scan, "-o", "mask.nii", "-m", model, "--cluster", "local", env=env)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("segment", "{scan}", "-o", "m.nii", "--cluster", "local", "--server", "http://127.0.0.1:1"), "--server"),
        (("batch", ".", "-o", "out", "--shared", "--block", "9"), "--shared"),
        (("segment", "{scan}", "-o", "m.nii", "-m", "{model}", "--cluster", "local:none"), "local:4"),
        (("segment", "{scan}", "-o", "m.nii", "-m", "{model}", "--cluster", "local", "--memory", "1MB"), "a worker"),
    ],
)
def test_what_cannot_be_is_one_line(
    voxport: Command, tmp_path: Path, scan: Path, model: Path, command: tuple[str, ...], said: str
) -> None:
    done = voxport(*(word.format(scan=scan, model=model) for word in command))
    assert done.returncode in (2, 5)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("m.nii*"))
