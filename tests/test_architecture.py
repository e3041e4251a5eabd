"""The layers hold and are seen to fail when broken; every adapter is proved; imports are quick and late."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import grimp
import nibabel as nib
import numpy as np
import pytest
import voxport

from tests.cli.conftest import environment, make_model

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = sorted(p.parent for p in (ROOT / "src" / "adapters").glob("*/*/__init__.py"))


class Architecture:
    """import-linter's contracts over one import graph of the package."""

    def __init__(self) -> None:
        # importing the command line configures import-linter
        import importlinter.cli  # noqa: F401
        from importlinter.application import use_cases
        from importlinter.domain.contract import registry

        options = use_cases.read_user_options(str(ROOT / "pyproject.toml"))
        use_cases._register_contract_types(options)
        self.contracts = [
            registry.get_contract_class(contract["type"])(contract["name"], options.session_options, contract)
            for contract in options.contracts_options
        ]
        self.graph = grimp.build_graph("voxport", include_external_packages=True, cache_dir=None)

    def broken(self, importer: str = "", imported: str = "", module: str = "") -> list[str]:
        """Names of the contracts that an import, or a module, would break; or that are broken as it is."""
        graph = deepcopy(self.graph)
        if module:
            graph.add_module(module)
        if importer:
            assert importer in graph.modules
            inside = imported.startswith("voxport.")
            assert imported in graph.modules or not inside
            if not inside and imported not in graph.modules:
                graph.add_module(imported, is_squashed=True)
            graph.add_import(importer=importer, imported=imported)
        broken = []
        for contract in self.contracts:
            try:
                kept = contract.check(deepcopy(graph), verbose=False).kept
            except ValueError:  # how an exhaustive contract names a module that it does not know
                kept = False
            if not kept:
                broken.append(contract.name)
        return broken


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return Architecture()


def test_the_contracts_hold(architecture: Architecture) -> None:
    assert architecture.broken() == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("domain.volume", "voxport.ports.runtime"),
        ("domain.volume", "onnx"),
        ("domain.volume", "subprocess"),
        ("ports.runtime", "voxport.services.segmentation.segment"),
        ("ports.runtime", "socket"),
        ("services.segmentation.segment", "voxport.adapters.artifacts.local"),
        ("services.segmentation.segment", "voxport.client.client"),
        ("services.segmentation.segment", "voxport.contract.card"),
        ("services.segmentation.segment", "nibabel"),
        ("services.segmentation.segment", "httpx"),
        ("services.segmentation.segment", "fcntl"),
        ("services.batch.folder", "fcntl"),
        ("services.jobs.worker", "signal"),
        ("services.jobs.worker", "http"),
        ("services.models.tune", "openvino"),
        ("services.models.tune", "ctypes"),
        ("services.viewing.surfaces", "trimesh"),
        ("contract.card", "voxport.services.segmentation.segment"),
        ("contract.card", "voxport.adapters.artifacts.local"),
        ("adapters.artifacts.local", "voxport.adapters.pictures.png"),
        ("adapters.runtimes.onnx", "voxport.adapters.runtimes.openvino"),
        ("adapters.artifacts.local", "voxport.container"),
        ("container", "voxport.application"),
        ("application", "voxport.entrypoints.cli.main"),
        ("entrypoints.cli.main", "voxport.adapters.artifacts.local"),
        ("entrypoints.cli.main", "voxport.container"),
        ("testing.fakes", "voxport.adapters.artifacts.local"),
        ("client.client", "voxport.services.segmentation.segment"),
        ("client.client", "voxport.ports.progress"),
        ("client.client", "nibabel"),
    ],
)
def test_a_planted_import_is_found(architecture: Architecture, importer: str, imported: str) -> None:
    assert architecture.broken(f"voxport.{importer}", imported)


def test_a_module_outside_the_layers_is_found(architecture: Architecture) -> None:
    assert architecture.broken(module="voxport.helpers")


def test_the_core_reads_no_environment_variables() -> None:
    for layer in ("domain", "ports", "services"):
        for path in (ROOT / "src" / layer).rglob("*.py"):
            names = {
                node.attr
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute)
            }
            assert names.isdisjoint({"environ", "getenv", "putenv"}), path


def test_text_files_are_read_and_written_in_utf8_under_any_locale() -> None:
    for folder in ("src", "tests", "benchmarks", ".ci"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("read_text", "write_text"):
                    assert any(keyword.arg == "encoding" for keyword in call.keywords), f"{path}:{call.lineno}"


def test_no_folder_of_services_holds_more_than_ten_modules() -> None:
    for folder in (path for path in (ROOT / "src" / "services").rglob("*") if path.is_dir()):
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 10, folder


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_adapter_runs_a_contract_suite(adapter: Path) -> None:
    """Some test module has a test class that subclasses a contract, with the adapter imported."""
    package = f"voxport.adapters.{adapter.parent.name}.{adapter.name}"
    suites = []
    for module in (ROOT / "tests" / "adapters").glob("test_*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
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
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert result.stdout.strip() == "[]"


def test_help_loads_no_library_that_reads_or_scores() -> None:
    code = (
        "import sys, contextlib, io\nfrom voxport.entrypoints.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    app(args=['--help'], standalone_mode=False)\n"
        "names = ('torch', 'monai', 'onnx', 'onnxruntime', 'nibabel', 'pydantic', 'numpy', 'dependency_injector',\n"
        "    'httpx')\n"
        "print([name for name in names if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
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
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
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
    model = ROOT / "src" / "bundled" / "two-photon-vessels-0.3.0.onnx"
    code = f"import onnxruntime\nonnxruntime.InferenceSession({str(model)!r})"
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True)
    assert list(tmp_path.rglob("*onnxruntime*"))


def test_a_connection_would_be_seen() -> None:
    code = f"{NO_WAY_OUT}import socket\nsocket.getaddrinfo('localhost', 80)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 99
