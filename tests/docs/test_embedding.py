"""The examples of docs/embedding.md run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import environment, make_model

SRC = Path(__file__).resolve().parents[2] / "src"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with every code block of the page as the file that its first line names."""
    for block in re.findall(r"```python\n# file: (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        (tmp_path / block[0]).write_text(block[1], encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder) | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_the_runtime_of_the_page_keeps_the_contract(examples: Path) -> None:
    result = run(examples, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_reference_runtime.py")
    assert result.returncode == 0, result.stdout
    assert re.search(r"[2-9]\d passed", result.stdout)


def test_a_runtime_that_breaks_the_contract_is_found(examples: Path) -> None:
    path = examples / "reference_runtime.py"
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "dtype=np.float32)\n\n    def close", "dtype=np.float32) + 1\n\n    def close"
        ),
        encoding="utf-8",
    )
    result = run(examples, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_reference_runtime.py")
    assert result.returncode == 1, result.stdout
    assert "test_logits_are_the_networks" in result.stdout


def test_the_runtime_of_the_page_can_be_asked_for_by_name(examples: Path) -> None:
    make_model(examples / "model.onnx")
    code = "from use_reference_runtime import load_with_reference as f; print(f('model.onnx')._loaded.runtime.name)"
    result = run(examples, "-c", code)
    assert result.stdout.strip() == "reference", result.stderr


def test_an_array_is_segmented_in_memory(examples: Path) -> None:
    make_model(examples / "model.onnx")
    values = np.random.default_rng(0).integers(0, 255, (12, 9, 5), np.uint8)
    np.save(examples / "scan.npy", values)
    code = (
        "import numpy as np; from segment_in_memory import segment_array; "
        "print(segment_array(np.load('scan.npy'), (1.0, 1.0, 5.0), 'model.onnx').shape)"
    )
    result = run(examples, "-c", code)
    assert result.stdout.strip() == "(12, 9, 5)", result.stderr


@pytest.mark.parametrize(
    "name", re.findall(r"`(voxport\.(?:ports|testing)\.\w+\.\w+)`", PAGE.read_text(encoding="utf-8"))
)
def test_every_name_in_the_table_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(__import__(module, fromlist=[attribute]), attribute)


def test_the_table_lists_every_port_that_has_a_suite_and_every_suite() -> None:
    listed = dict(
        re.findall(
            r"\| `voxport\.ports\.(\S+)` \|[^|]*\| `voxport\.testing\.(\S+)` \|", PAGE.read_text(encoding="utf-8")
        )
    )
    suites = {
        f"{path.stem}.{name}"
        for path in (SRC / "testing").glob("*.py")
        for name in re.findall(r"^class (\w+Contract)\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert set(listed.values()) == suites - {"volume_store.VolumeReadingContract"}  # a part of VolumeStoreContract
    # what a port hands out is proved by the port's own suite
    parts = {"OpenVolume", "VolumeSource", "VolumeSink", "ArrayStore", "Attempt"}
    parts |= {"LoadedNetwork", "NetworkRuntime", "Serialisable"}
    ports = {
        f"{path.stem}.{name}"
        for path in (SRC / "ports").glob("*.py")
        for name in re.findall(
            r"^class (\w+)\((?:\w+, )*Protocol\)", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        if name not in parts and not name.endswith("Opener")
    }
    assert ports <= set(listed), ports - set(listed)
