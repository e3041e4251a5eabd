"""Foreign files are named, uploads that would take much are refused, and a caller who leaves leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient
from voxport.application import Application
from voxport.domain.inference.patches import Padding
from voxport.entrypoints.rest.app import create_app

from tests.adapters.test_foreign_files import FOREIGN

from .conftest import named_model
from .jobbing import BIG, SLOWLY
from .serving import running_server

# At a spacing of 1 um, with a patch of 32: a unit of mm, a grid of 160^3, a thin volume padded to patches.
CASES: dict[str, tuple[tuple[int, ...], float, str, int, str]] = {
    "unit": ((16, 16, 16), 1.0, "mm", 422, "is the unit right?"),
    "grid": ((16, 16, 16), 10.0, "micron", 413, "at most 30000 voxels at the model's spacing"),
    "tiles": ((1, 1, 2000), 1.0, "micron", 413, "at most 1920000 voxels through the network"),
}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "scratch").mkdir()
    wanted = {"spacing": [1.0, 1.0, 1.0], "spacing_unit": "um", "orientation": "RAS"}
    named_model(folder / "models", "edges", input_fields=wanted, patch=(32, 32, 32), padding=Padding(to="patch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        application = Application.build(
            model="edges", models_dir=folder / "models", scratch_dir=folder / "scratch", max_voxels=30_000
        )
        with TestClient(create_app(application)) as client:
            application.served_models.wait(60)
            client.scratch = folder / "scratch"  # type: ignore[attr-defined]
            yield client


def content(shape: tuple[int, ...], spacing: float, unit: str) -> bytes:
    image = nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([spacing] * 3 + [1.0]))
    image.header.set_xyzt_units(unit)
    return bytes(image.to_bytes())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/v1/jobs"])
def test_a_small_file_that_asks_for_much_is_refused_before_anything_is_written(http: Any, name: str, path: str) -> None:
    shape, spacing, unit, status, words = CASES[name]
    answer = http.post(path, files={"volume": ("scan.nii", content(shape, spacing, unit))})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "--" not in answer.json()["do"]
    assert list(http.scratch.iterdir()) == []


@pytest.mark.parametrize(("start", "what", "helps"), FOREIGN)
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/v1/jobs"])
def test_a_foreign_file_is_named_for_what_it_is(http: Any, path: str, start: bytes, what: str, helps: str) -> None:
    answer = http.post(path, files={"volume": ("scan.nrrd", start)})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["expected"] in ("a volume in a format that is read, such as NIfTI", "DICOM images")
    assert what in problem["got"]
    assert helps in problem["do"]
    assert str(http.scratch) not in answer.text
    assert list(http.scratch.iterdir()) == []


@pytest.mark.parametrize("model", [None, "edges"])
def test_a_service_that_is_still_looking_for_its_models_is_busy(tmp_path: Path, model: str | None) -> None:
    application = Application.build(models_dir=tmp_path, scratch_dir=tmp_path)
    http = TestClient(create_app(application), headers={"Host": "localhost"})  # its lifespan has not begun
    named = {} if model is None else {"model": model}
    volume = {"volume": ("scan.nii", content((4, 4, 4), 1.0, "micron"))}
    answers = [http.post(path, files=volume, data=named) for path in ("/segment", "/v1/plan", "/v1/jobs")]
    answers.append(http.post("/predict", json={"volume": [[[0]]], **named}))
    answers += [http.get(f"{path}/models/edges") for path in ("/v1", "/v2")]
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"] == "urn:voxport:problem:busy"
        assert answer.headers["Retry-After"] == "1"


def test_the_scratch_of_a_request_whose_caller_left_is_removed(tmp_path: Path) -> None:
    named_model(tmp_path / "models", "edges", patch=(8, 8, 8))
    (tmp_path / "scratch").mkdir()
    env = {"TMPDIR": str(tmp_path / "scratch"), "VOXPORT_SCRATCH_DIR": str(tmp_path / "scratch")}
    with running_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "edges", env=env) as server:
        before = scratch_of(server.process.pid, tmp_path / "scratch")
        with server.client() as client:
            request = client.build_request("POST", "/segment", files={"volume": ("scan.nii.gz", BIG)}, data=SLOWLY)
        with closing(HTTPConnection(request.url.host, request.url.port)) as caller:
            caller.request("POST", request.url.path, request.read(), dict(request.headers))
            server.wait_until(lambda _: scratch_of(server.process.pid, tmp_path / "scratch") > before)
        server.wait_until(lambda _: scratch_of(server.process.pid, tmp_path / "scratch") == before)


def test_a_service_removes_the_metrics_of_killed_services_and_keeps_those_of_running_ones(tmp_path: Path) -> None:
    named_model(tmp_path / "models", "edges")
    for name in ("first", "second", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / "voxport-metrics-left").mkdir()
    for name in (".lock", "counter_7.db"):
        (tmp_path / "tmp" / "voxport-metrics-left" / name).touch()

    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "tmp").glob("voxport-metrics-*")}

    arguments = "--models", str(tmp_path / "models"), "-m", "edges"
    env = {"TMPDIR": str(tmp_path / "tmp")}
    with running_server(tmp_path / "first", *arguments, env=env):
        (first,) = folders()
        assert first != "voxport-metrics-left"
        with running_server(tmp_path / "second", *arguments, env=env):
            assert len(folders()) == 2
            assert first in folders()


def scratch_of(parent: int, folder: Path) -> set[tuple[str, int]]:
    """Named files in a folder, and unlinked ones there that a server's processes hold, with their sizes."""
    found = {(str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file()}
    for process in [psutil.Process(parent), *psutil.Process(parent).children(recursive=True)]:
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                target = str(descriptor.readlink())
                if target.startswith(str(folder)) and target.endswith("(deleted)"):
                    found.add((f"{process.pid} {target}", descriptor.stat().st_size))
    return found
