"""Real schedulers, workers and clients, which are killed amid a run: nothing is lost, and the bytes are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.domain.geometry.grid import Box, Grid

from tests.cli.conftest import environment
from tests.dicom.network import wait_until
from tests.rest.conftest import named_model
from tests.rest.serving import PATIENCE, free_port

SHAPE = (44, 40, 32)


@dataclass
class Farm:
    """A folder with a volume and a slow network, and the processes of a cluster."""

    folder: Path
    stack: ExitStack
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=environment(self.folder) | {"VOXPORT_CLUSTER__PATIENCE_SECONDS": "4", "VOXPORT_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.stack.callback(_end, process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        own = ("--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show")
        return self.start("scheduler", "dask", "scheduler", *own)

    def worker(self, *more: str) -> subprocess.Popen[bytes]:
        own = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--host", "127.0.0.1")
        return self.start("worker", "dask", "worker", self.address, *own, *more)

    def client(self, mask: str = "mask.ome.zarr") -> subprocess.Popen[bytes]:
        given = ("in.ome.zarr", "-o", mask, "-m", "models/slow-1.0.0.onnx", "--statistics", f"{mask}.json")
        return self.start("client", "voxport", "segment", *given, "--cluster", self.address, "--block", "16")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def inferred(self, mask: str = "mask.ome.zarr") -> dict[str, int]:
        """Records of blocks that were inferred, and when."""
        return {path.name: path.stat().st_mtime_ns for path in (self.folder / f"{mask}.blocks" / "inferred").glob("*")}

    def until(self, condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
        wait_until(condition, lambda: self.log("client") + self.log("worker")[-3000:], process)

    def finished(self, client: subprocess.Popen[bytes]) -> None:
        """Wait for a client, and check what it made."""
        assert client.wait(2 * PATIENCE) == 0, self.log("client") + self.log("worker")[-3000:]
        assert files_of(self.folder / "mask.ome.zarr") == files_of(self.folder / "one" / "mask.ome.zarr")
        statistics = [(self.folder / name).read_bytes() for name in ("mask.ome.zarr.json", "one/mask.ome.zarr.json")]
        assert statistics[0] == statistics[1]
        assert list(self.folder.glob("*.blocks")) == []


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a slow network, and the mask that one process makes."""
    folder = tmp_path_factory.mktemp("made")
    grid = Grid(SHAPE, np.diag([0.5, 0.5, 2.0, 1.0]), "um")
    values = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
    with OmeZarrStore().create(str(folder / "in.ome.zarr"), grid, np.dtype(np.uint8)) as sink:
        sink.write(Box.whole(SHAPE), values)
        sink.commit()
    (folder / "models").mkdir()
    (folder / "one").mkdir()
    named_model(folder / "models", "slow", patch=(8, 8, 8), overlap=0.75)
    given = ("in.ome.zarr", "-o", "one/mask.ome.zarr", "-m", "models/slow-1.0.0.onnx")
    more = ("--statistics", "one/mask.ome.zarr.json", "--threads", "1", "--quiet")
    command = [sys.executable, "-m", "voxport", "segment", *given, *more]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return folder


@pytest.fixture
def farm(tmp_path: Path, made: Path) -> Iterator[Farm]:
    for name in ("in.ome.zarr", "models", "one"):
        (tmp_path / name).symlink_to(made / name)
    with ExitStack() as stack:
        yield Farm(tmp_path, stack)


def test_a_worker_that_is_killed_and_one_that_hangs(farm: Farm) -> None:
    farm.scheduler()
    killed, hung, _ = farm.worker(), farm.worker(), farm.worker()
    client = farm.client()
    farm.until(lambda: len(farm.inferred()) >= 2, client)
    os.killpg(killed.pid, signal.SIGKILL)
    os.killpg(hung.pid, signal.SIGSTOP)
    farm.finished(client)


def test_the_scheduler_is_killed(farm: Farm) -> None:
    scheduler = farm.scheduler()
    farm.worker()
    client = farm.client()
    farm.until(lambda: len(farm.inferred()) >= 3, client)
    before = farm.inferred()
    os.killpg(scheduler.pid, signal.SIGKILL)
    assert client.wait(PATIENCE) == 2, farm.log("client")
    told = farm.log("client").strip().splitlines()[-1]
    assert "Traceback" not in farm.log("client")
    assert "the scheduler" in told
    assert "run again: what was finished is kept" in told
    assert not (farm.folder / "mask.ome.zarr").exists()
    farm.scheduler()
    farm.worker()
    again = farm.client()
    farm.until(lambda: len(farm.inferred()) > len(before), again)
    assert before.items() <= farm.inferred().items()
    farm.finished(again)


def test_the_client_is_killed(farm: Farm) -> None:
    farm.scheduler()
    farm.worker()
    farm.worker()
    client = farm.client()
    farm.until(lambda: len(farm.inferred()) >= 3, client)
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    before = farm.inferred()
    again = farm.client()
    farm.finished(again)
    assert len(before) >= 3


def test_workers_of_several_threads_are_refused(farm: Farm) -> None:
    farm.scheduler()
    worker = farm.start("worker", "dask", "worker", farm.address, "--nthreads", "2", "--no-nanny", "--no-dashboard")
    farm.until(lambda: "Registered to" in farm.log("worker"), worker)
    client = farm.client()
    assert client.wait(PATIENCE) == 2, farm.log("client")
    assert "--nthreads 1" in farm.log("client")
