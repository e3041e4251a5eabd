"""The layers hold and are seen to fail when broken; every adapter is proved; imports are quick and late."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import voxport

from tests.cli.conftest import environment, make_model

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = sorted(p.parent for p in (ROOT / "src" / "adapters").glob("*/*/__init__.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the package that ``folder/voxport`` is."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--config", str(folder / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to break."""
    shutil.copytree(ROOT / "src", tmp_path / "voxport", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("domain/volume.py", "from ..ports import runtime"),
        ("domain/volume.py", "import onnx"),
        ("ports/runtime.py", "from ..services.segmentation import segment"),
        ("services/segmentation/segment.py", "from ...adapters.artifacts import local"),
        ("services/segmentation/segment.py", "import nibabel"),
        ("services/segmentation/segment.py", "from ...contract import card"),
        ("contract/card.py", "from ..services.segmentation import segment"),
        ("adapters/artifacts/local/__init__.py", "from ...pictures import png"),
        ("adapters/artifacts/local/__init__.py", "from .... import container"),
        ("container.py", "from .application import Application"),
        ("entrypoints/cli/main.py", "from ...adapters.artifacts import local"),
        ("entrypoints/cli/main.py", "from ...container import Container"),
        ("testing/fakes.py", "from ..adapters.artifacts import local"),
        ("client/client.py", "from ..services.segmentation import segment"),
        ("client/client.py", "from ..ports import progress"),
        ("client/client.py", "import nibabel"),
        ("services/segmentation/segment.py", "from ...client import client"),
        ("services/segmentation/segment.py", "import httpx"),
        ("services/models/tune.py", "import openvino"),
        ("services/viewing/surfaces.py", "import trimesh"),
        ("entrypoints/demo/desk.py", "from ...adapters.surfaces import gltf"),
    ],
)
def test_a_planted_violation_is_found(copy: Path, module: str, line: str) -> None:
    path = copy / "voxport" / module
    path.write_text(path.read_text() + f"\n\ndef planted() -> None:\n    {line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


def test_a_module_outside_the_layers_is_found(copy: Path) -> None:
    (copy / "voxport" / "helpers.py").write_text('"""Neither here nor there."""\n')
    assert lint_imports(copy).returncode == 1


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_adapter_runs_a_contract_suite(adapter: Path) -> None:
    """Some test module has a test class that subclasses a contract, with the adapter imported."""
    package = f"voxport.adapters.{adapter.parent.name}.{adapter.name}"
    suites = []
    for module in (ROOT / "tests" / "adapters").glob("test_*.py"):
        tree = ast.parse(module.read_text())
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if any(name == package or name.startswith(f"{package}.") for name in imported):
            suites += [
                node.name
                for node in tree.body
                if isinstance(node, ast.ClassDef)
                and node.name.startswith("Test")
                and any(isinstance(base, ast.Name) and base.id.endswith("Contract") for base in node.bases)
            ]
    assert suites


@pytest.mark.parametrize("statement", ["import voxport", "from voxport import VoxportError, Grid, Volume"])
def test_importing_the_library_loads_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "monai", "onnx", "onnxruntime", "nibabel", "pydantic", "typer", "rich", "PIL", "yaml", "httpx")
    code = f"{statement}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_loads_no_library_that_reads_or_scores() -> None:
    code = (
        "import sys, contextlib, io\nfrom voxport.entrypoints.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    app(args=['--help'], standalone_mode=False)\n"
        "names = ('torch', 'monai', 'onnx', 'onnxruntime', 'nibabel', 'pydantic', 'numpy', 'dependency_injector',\n"
        "    'httpx')\n"
        "print([name for name in names if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", voxport.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(voxport, name) is not None
    assert name in dir(voxport)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = voxport.nothing_of_the_kind


def test_segmenting_never_imports_torch(tmp_path: Path) -> None:
    """A run in a process in which importing torch fails."""
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((9, 8, 7)), np.eye(4)), tmp_path / "scan.nii")
    make_model(tmp_path / "model.onnx")
    code = (
        "import sys\nsys.modules['torch'] = None\nsys.modules['monai'] = None\n"
        "from voxport.entrypoints.cli.main import app\n"
        "app(args=['segment', 'scan.nii', '-m', 'model.onnx', '-o', 'mask.nii', '--quiet'], standalone_mode=False)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=True)
    assert (tmp_path / "mask.nii").exists()


def test_composing_loads_no_web_framework_and_what_composed_can_still_be_wired() -> None:
    """FastAPI would take as long as all else that a command imports."""
    code = (
        "import sys\nfrom voxport.application import Application\n"
        "print([name for name in ('fastapi', 'starlette', 'werkzeug', 'scipy.ndimage', 'scipy.sparse')"
        " if name in sys.modules])\n"
        "from dependency_injector.wiring import Provide, inject\n"
        "@inject\ndef sample(name=Provide['sample']):\n    return name\n"
        "container = Application.build().container\n"
        "container.wire(modules=['__main__'])\nprint(sample().rpartition('/')[2])\n"
        "container.unwire()\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "sample.nii.gz"]


NO_WAY_OUT = (
    "import os, sys\n"
    "names = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto', 'urllib.Request',\n"
    "    'os.fork')\n"
    "sys.addaudithook(lambda event, arguments: os._exit(99) if event in names else None)\n"
)


@pytest.mark.parametrize(
    "arguments",
    [["segment", "--sample"], ["segment", "--sample", "--runtime", "openvino"], ["verify", "two-photon-vessels"]],
    ids=" ".join,
)
def test_no_command_opens_a_connection_or_marks_the_users_home(tmp_path: Path, arguments: list[str]) -> None:
    """Every way out is an audit event of the interpreter; a hook ends the process at the first."""
    code = (
        f"{NO_WAY_OUT}from voxport.entrypoints.cli.main import app\n"
        f"app(args={[*arguments, '--quiet']}, standalone_mode=False)"
    )
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    quiet = {"CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY"}  # where libraries would not report anyway
    env = {name: value for name, value in environment(folder).items() if name not in quiet}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env | {"HOME": str(home)}, check=False)
    assert result.returncode == 0
    assert (folder / "sample_mask.nii.gz").exists() or "segment" not in arguments
    assert list(home.iterdir()) == []


def test_onnx_runtime_by_itself_marks_the_users_home(tmp_path: Path) -> None:
    """What it keeps there is for its reports, which native code sends unseen: no mark, no reports."""
    quiet = {"CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY"}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    env = {name: value for name, value in os.environ.items() if name not in quiet} | nowhere | {"HOME": str(tmp_path)}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    model = ROOT / "src" / "bundled" / "two-photon-vessels-0.2.0.onnx"
    code = f"import onnxruntime\nonnxruntime.InferenceSession({str(model)!r})"
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True)
    assert list(tmp_path.rglob("*onnxruntime*"))


def test_a_connection_would_be_seen() -> None:
    code = f"{NO_WAY_OUT}import socket\nsocket.getaddrinfo('localhost', 80)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 99
