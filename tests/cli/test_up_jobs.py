"""``voxport up`` with jobs under way: whichever child is killed comes back, and the job ends with the right mask."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import voxport
from voxport.client import Client
from voxport.testing.job_queue import wait_until

from tests.rest.serving import PATIENCE, free_port

from .conftest import Command, environment

SAMPLE = Path(voxport.__file__).parent / "bundled" / "sample.nii.gz"
CHILDREN = ("serve", "worker", "demo")


class Up:
    """A running ``voxport up`` with everything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, demo = folder, f"http://127.0.0.1:{free_port()}", free_port()
        ports = ["--port", self.url.rpartition(":")[2], "--demo-port", str(demo)]
        with (folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "voxport", "up", *ports, "--data", str(folder / "data")],
                cwd=folder,
                env=environment(folder) | {"BENTOML_HOME": str(folder / "bentoml")},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, line: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in (said := (self.folder / "out").read_text(encoding="utf-8")):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def child(self, command: str) -> psutil.Process:
        (found,) = [p for p in psutil.Process(self.process.pid).children() if command in p.cmdline()]
        return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        running.wait_for("healthy: service, worker, demo")
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def undisturbed(up: Up) -> bytes:
    """The mask of a job that nothing happened to."""
    with Client(up.url) as client:
        job = client.jobs.wait(client.jobs.submit(SAMPLE, overlap=0.6))
        client.jobs.download(job, up.folder / "undisturbed.nii.gz")
    return (up.folder / "undisturbed.nii.gz").read_bytes()


@pytest.mark.parametrize("killed", CHILDREN)
def test_a_killed_child_comes_back_and_the_job_ends(up: Up, undisturbed: bytes, killed: str) -> None:
    names = {"serve": "service"}
    with Client(up.url) as client:
        job = client.jobs.submit(SAMPLE, overlap=0.6)
        wait_until(lambda: client.jobs.get(job).state == "running")
        up.child(killed).kill()
        up.wait_for(f"{names.get(killed, killed)} is back")
        client.jobs.wait(job)
        client.jobs.download(job, up.folder / f"{killed}.nii.gz")
    assert (up.folder / f"{killed}.nii.gz").read_bytes() == undisturbed


def test_the_check_passes(voxport: Command) -> None:
    result = voxport("up", "--check")
    assert result.returncode == 0, result.stderr
    assert "vessel" in result.stdout
    assert result.stdout.endswith("service, worker and demo: all well\n")
