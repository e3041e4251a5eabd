"""``bentoml build`` makes a bento that holds the package, and serves by itself."""

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

import pytest
import voxport

from tests.cli.conftest import environment
from tests.rest.serving import PATIENCE, Server, free_port, is_ready

from .composed import DEPLOYMENT, ROOT

PREPARE = [sys.executable, str(DEPLOYMENT / "bento" / "prepare.py")]
SAMPLE = Path(voxport.__file__).parent / "bundled" / "sample.nii.gz"


@dataclass(frozen=True)
class Built:
    """A bento, and the home folder of BentoML that it is in."""

    home: Path
    bento: Path

    def run(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        own = {"BENTOML_HOME": str(self.home), "BENTOML_DO_NOT_TRACK": "True"}
        command = [sys.executable, "-m", "bentoml", *arguments]
        place = self.home.parent
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, cwd=place, env=environment(place) | own, start_new_session=True, **options
        )
        return process


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("bento")
    subprocess.run([*PREPARE, "context"], cwd=folder, check=True)
    made = Built(folder / "home", folder)
    process = made.run("build", "context", "--output", "tag", stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=PATIENCE)
    (name, version) = out.decode().strip().removeprefix("__tag__:").split(":")
    return Built(made.home, made.home / "bentos" / name / version)


@pytest.fixture(scope="module")
def server(built: Built) -> Iterator[Server]:
    """The bento, with a mark in its own copy of the package."""
    module = built.bento / "src" / "voxport" / "__init__.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace(f'"{voxport.__version__}"', '"0.0.0+bento"'), encoding="utf-8")
    port, log = free_port(), built.home.parent / "log"
    with log.open("wb") as output:
        process = built.run(
            "serve",
            f"{built.bento.parent.name}:{built.bento.name}",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            stdout=output,
            stderr=output,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        server.wait_until(is_ready)
        yield server
    finally:
        server.stop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_bento_serves_its_own_copy(server: Server) -> None:
    with server.client() as http:
        assert http.get("/openapi.json").json()["info"]["version"] == "0.0.0+bento"


def test_the_bento_answers_with_a_mask(server: Server) -> None:
    with server.client() as http, SAMPLE.open("rb") as sample:
        answer = http.post("/segment", files={"volume": sample}, data={"overlap": "0"})
    assert answer.status_code == 200, answer.text
    report = json.loads(answer.headers["voxport-report"])
    assert report["statistics"]["labels"][0]["voxels"] > 1000


def test_the_bento_names_what_it_needs_by_version(built: Built) -> None:
    lines = (built.bento / "env" / "python" / "requirements.txt").read_text(encoding="utf-8").split()
    assert all(re.fullmatch(r"\S+==\S+", line) for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    assert {"onnxruntime", "bentoml", "dbos", "numpy"} <= names
    assert "torch" not in names
    assert set(lines) <= set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    done = subprocess.run([*PREPARE, str(tmp_path)], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "expected a folder of mine or none" in done.stderr
    assert (tmp_path / "thesis.tex").exists()
