"""The examples of docs/http-api.md run as they are printed, against servers that are really started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import tifffile
import voxport
from voxport.client import Client
from voxport.contract.problem import KINDS
from voxport.settings import ServingSettings, Settings

from tests.cli.conftest import environment
from tests.rest.conftest import named_model
from tests.rest.serving import Server, free_port, is_ready, running_server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
SAMPLE = Path(voxport.__file__).parent / "bundled" / "sample.nii.gz"
PORT = "3000"
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Example:
    """A block of code, and the text that is shown as its output."""

    language: str
    code: str
    shown: str | None

    @property
    def serves(self) -> bool:
        return re.search("(voxport|bentoml) serve ", self.code) is not None


def sections() -> dict[str, list[Example]]:
    """The page's examples under each of its headings."""
    found = {}
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE):
        blocks = re.findall(r"```(bash|python)\n(.*?)```(?:\n```text\n(.*?)```)?", text, flags=re.DOTALL)
        if blocks:
            found[heading] = [Example(language, code, shown or None) for language, code, shown in blocks]
    return found


def test_every_example_is_run_by_a_test_of_this_file() -> None:
    run = re.findall(r'^    reader\("(.*?)"\)', Path(__file__).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(run) == sorted(sections())


class Reader:
    """Someone who types the examples in, in a folder with files of those names."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url

    def __call__(self, section: str) -> None:
        """Run the examples of a section in order; those that start a server are kept up until the next one, or its end.

        AssertionError where one fails, or prints something else than is shown.
        """
        url, stack = self._url, list[subprocess.Popen[bytes]]()
        try:
            for example in sections()[section]:
                if example.serves:
                    stop(stack)
                    url = f"http://127.0.0.1:{free_port()}"
                    stack.append(self._start(example, url))
                    continue
                command = ["bash", "-euo", "pipefail", "-c"] if example.language == "bash" else [sys.executable, "-c"]
                done = subprocess.run(
                    [*command, self._at(example.code, url)],
                    **self._place(),
                    text=True,
                    encoding="utf-8",
                    capture_output=True,
                    timeout=120,
                )
                assert done.returncode == 0, f"{example.code}\n{done.stdout}{done.stderr}"
                assert done.stderr == "", example.code
                if example.shown is not None:
                    assert UUID.sub("UUID", done.stdout).strip() == UUID.sub("UUID", example.shown).strip()
        finally:
            stop(stack)

    def _start(self, example: Example, url: str) -> subprocess.Popen[bytes]:
        log = self.folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self._at(example.code, url)],
                **self._place(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        Server(process, url, log).wait_until(is_ready)
        return process

    def _at(self, code: str, url: str) -> str:
        return code.replace(PORT, url.rpartition(":")[2])

    def _place(self) -> dict[str, Any]:
        own = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "NO_PROXY": "127.0.0.1",
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "LC_ALL": "C.UTF-8",
        }
        return {"cwd": self.folder, "env": environment(self.folder) | own}


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    while processes:
        process = processes.pop()
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def cropped(path: Path) -> nib.Nifti1Image:
    """A part of the bundled sample, that is also written to a file."""
    part = nib.load(SAMPLE).slicer[100:148, 100:140, :8]
    nib.save(part, path)
    return part


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model, and two that the page takes for the reader's own."""
    folder = tmp_path_factory.mktemp("page")
    named_model(folder / "models", "cells", classes=3)
    named_model(folder / "models", "two-colours", channels=2)
    with running_server(folder, "--models", str(folder / "models")) as server:
        yield server


@pytest.fixture
def reader(server: Server, tmp_path: Path) -> Reader:
    for name in ("volume", "green", "red"):
        corner = cropped(tmp_path / f"{name}.nii.gz")
    tifffile.imwrite(tmp_path / "stack.tif", np.asarray(corner.dataobj).T, photometric="minisblack")
    np.save(tmp_path / "array.npy", np.asarray(corner.dataobj)[:12, :10, :4])
    return Reader(tmp_path, server.url)


def is_mask_of(mask: Path, volume: Path) -> bool:
    ours, theirs = nib.load(mask), nib.load(volume)
    return ours.shape == theirs.shape and bool(np.array_equal(ours.affine, theirs.affine))


def parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_servers_start(reader: Reader) -> None:
    reader("Start the service")


def test_masks(reader: Reader) -> None:
    reader("Get a mask")
    assert is_mask_of(reader.folder / "mask.nii.gz", reader.folder / "green.nii.gz")
    report = parsed(reader.folder / "report.json")
    assert report["model"]["name"] == "two-photon-vessels"
    assert "--overlap 0.25" in report["command"]
    told = {"model", "runtime", "grid", "tiles", "statistics", "seconds", "warnings", "command"}
    assert told <= set(report)
    with tifffile.TiffFile(reader.folder / "mask.ome.tif") as mask:
        assert 'PhysicalSizeZ="2' in (mask.ome_metadata or "")
    (result,) = parsed(reader.folder / "results.json")["results"]
    assert result["report"]["statistics"]["labels"][0]["name"] == "vessel"


def test_the_client(reader: Reader) -> None:
    reader("From Python")
    masks = ("mask.nii.gz", "two-photon-vessels-0.3.0/mask.nii.gz", "cells-1.0.0/mask.nii.gz", "job_mask.nii.gz")
    for name in masks:
        assert is_mask_of(reader.folder / name, reader.folder / "volume.nii.gz"), name
    assert (reader.folder / "labels.csv").read_text(encoding="utf-8").startswith("value,name,voxels")
    assert (reader.folder / "mask.png").read_bytes().startswith(b"\x89PNG")


def test_arrays(reader: Reader, document: dict[str, Any]) -> None:
    reader("Send an array")
    answer = parsed(reader.folder / "prediction.json")
    assert np.array(answer["segmentation"]).shape == np.load(reader.folder / "array.npy").shape
    words = set(re.findall("`([a-z_]+)`", text_of("Send an array")))
    schemas = document["components"]["schemas"]
    assert set(schemas["Prediction"]["properties"]) | set(schemas["ArrayForm"]["properties"]) - {"volume"} <= words


def test_estimates_models_and_health(reader: Reader) -> None:
    reader("Estimates, models and health")
    assert parsed(reader.folder / "plan.json")["tiles"] == 1
    listed = {model["name"]: model for model in parsed(reader.folder / "models.json")["models"]}
    assert set(listed) == {"cells", "two-colours", "two-photon-vessels"}
    assert parsed(reader.folder / "model.json")["card"]["name"] == "two-photon-vessels"
    assert parsed(reader.folder / "health.json")["status"] == "ok"
    assert "# TYPE voxport_in_flight gauge" in (reader.folder / "metrics.txt").read_text(encoding="utf-8")


def test_jobs(reader: Reader, document: dict[str, Any]) -> None:
    reader("Jobs")
    done = parsed(reader.folder / "done.json")
    assert (done["state"], done["model"]) == ("done", "cells:1.0.0")
    assert is_mask_of(reader.folder / "mask.nii.gz", reader.folder / "volume.nii.gz")
    assert (reader.folder / "labels.csv").read_text(encoding="utf-8").startswith("value,name,voxels")
    assert (reader.folder / "slice.png").read_bytes().startswith(b"\x89PNG")
    events = (reader.folder / "events.txt").read_text(encoding="utf-8")
    assert json.loads(events.splitlines()[1].removeprefix("data: "))["id"] == done["id"]
    assert '"state": "done"' in events
    again, listed = parsed(reader.folder / "again.json"), parsed(reader.folder / "jobs.json")["jobs"]
    assert again["id"] == parsed(reader.folder / "job.json")["id"] == listed[0]["id"]
    assert done["id"] not in [job["id"] for job in listed]
    rows = re.findall(r"^\| (`[a-z].*?) \| ", text_of("Jobs").partition("| member of a job")[2], flags=re.MULTILINE)
    members = document["components"]["schemas"]["JobAnswer"]["properties"]
    assert sorted(re.findall("`([a-z_]+)`", " ".join(rows))) == sorted(members)
    for state in members["state"]["enum"]:
        assert f"`{state}`" in text_of("Jobs")


def test_keys(reader: Reader) -> None:
    reader("Keys")
    assert parsed(reader.folder / "models.json")["default"] == "two-photon-vessels:0.3.0"
    assert is_mask_of(reader.folder / "mask.nii.gz", reader.folder / "volume.nii.gz")
    log = (reader.folder / "server.log").read_text(encoding="utf-8")
    assert (reader.folder / "key.txt").read_text(encoding="utf-8").strip() not in log
    assert '"principal": "anonymous"' in log  # the probes


def test_problems(reader: Reader) -> None:
    reader("Problems")
    rows = re.findall(r"^\| (`.*?) \| ([0-9, ]+) \|", text_of("Problems"), flags=re.MULTILINE)
    told: dict[str, int] = {}
    for kinds, statuses in rows:
        told |= dict(zip(re.findall("`(.*?)`", kinds), map(int, statuses.split(", ")), strict=True))
    assert told == {kind: known.status for kind, known in KINDS.items()}


def text_of(section: str) -> str:
    return PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]


@pytest.fixture
def document(server: Server) -> dict[str, Any]:
    with server.client() as http:
        return dict(http.get("/openapi.json").json())


def test_the_fields_in_the_table_are_those_of_the_service(document: dict[str, Any]) -> None:
    rows = re.findall(r"^\| (`[a-z].*?) \| ", text_of("Get a mask").partition("###")[0], flags=re.MULTILINE)
    fields = document["components"]["schemas"]["Body_segment"]["properties"]
    assert re.findall("`(.*?)`", " ".join(rows)) == list(fields)
    for output in fields["outputs"]["items"]["enum"]:
        assert f"`{output}`" in text_of("Get a mask")


def test_every_route_is_on_the_page(document: dict[str, Any]) -> None:
    for path in document["paths"]:
        named = path.replace("{name}", "NAME").replace("{id}", "ID")
        assert f"`{named}`" in re.sub("`(GET|POST|DELETE) ", "`", PAGE), path


def test_the_limits_in_the_table_are_settings() -> None:
    rows = re.findall(r"^\| [^|]*? \| `([A-Z_]+)` \|", text_of("Limits"), flags=re.MULTILINE)
    known = {*ServingSettings.model_fields, *(f"voxport_{name}" for name in Settings.model_fields)}
    assert len(rows) == 8
    assert {name.lower() for name in rows} <= known


def test_the_line_of_the_log_is_as_it_is_shown(server: Server) -> None:
    (line,) = re.findall(r"```json\n(.*?)```", text_of("Metrics and log"), flags=re.DOTALL)
    shown = json.loads(line)
    with server.client() as http:
        identifier = http.get("/livez").headers["voxport-request"]
    server.wait_until(lambda _: identifier in server.log.read_text(encoding="utf-8"))
    (real,) = (json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines() if identifier in line)
    assert list(shown) == list(real)
    assert [type(value) for value in shown.values()] == [type(value) for value in real.values()]


def test_what_is_measured_is_named(server: Server, tmp_path: Path) -> None:
    cropped(tmp_path / "volume.nii.gz")
    with Client(server.url) as client:
        client.segment(tmp_path / "volume.nii.gz", tmp_path / "mask.nii.gz", model="cells")
    with server.client() as http:
        assert http.get("/nothing").status_code == 404
        patch = {"name": "image", "datatype": "FP32", "shape": [1, 1, 16, 16, 16], "data": [0.5] * 16**3}
        call = {"inputs": [patch], "parameters": {"raw": True}}
        assert http.post("/v2/models/cells/infer", json=call).status_code == 200
        shown = http.get("/metrics").text
    names = re.findall("`(voxport_[a-z_]+)`", text_of("Metrics and log"))
    assert sorted(names) == sorted(set(re.findall(r"^# HELP (voxport_[a-z_]+) ", shown, flags=re.MULTILINE)))


def test_the_client_takes_an_address_with_a_path() -> None:
    """As a proxy may put the service under one."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={})

    (url,) = re.findall(r'`Client\("(.*?)"\)`', text_of("Behind a proxy"))
    with Client(url, transport=httpx.MockTransport(answer)) as client:
        client.models()
    assert asked == ["https://lab.example/voxport/v1/models"]
