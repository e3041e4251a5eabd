"""Measure the job queue: 200 jobs at once, and the throughput of several workers.

queue: submits all jobs at once over HTTP to two workers. Checks every mask and the order of starts, and measures the
API's latency meanwhile.
workers: runs the same jobs with 1, 2 and 4 worker processes and in a plain loop, with a trivial network, which shows
the cost of the queue, and with the bundled one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.material import Findings, saved, segmenter, smooth_noise
from tests.jobs.processes import Postgres
from tests.rest.conftest import named_model
from tests.rest.serving import PATIENCE, Server, running_server

SMALL, BUNDLED = "convolution", "two-photon-vessels"
SHAPES = {SMALL: (48, 48, 8), BUNDLED: (256, 256, 16)}
KINDS = 4  # distinct volumes, to detect a mask of another job
WORKERS = (1, 2, 4)
SLOWEST_P95_SECONDS = 0.1
GET_EVERY_SECONDS = 0.02


def main() -> None:
    """Print the machine and a table for each measurement. Exits with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("queue", "workers"))
    parser.add_argument("--database", choices=("sqlite", "postgres"), help="default: both")
    parser.add_argument("--model", choices=tuple(SHAPES), help="workers: default: both")
    parser.add_argument("--jobs", type=int, default=200, help="with the small network")
    parser.add_argument("--bundled-jobs", type=int, default=16, help="workers: with the bundled network")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    findings = Findings()
    for database in ("sqlite", "postgres"):
        if wanted.database not in (None, database):
            continue
        if wanted.only in (None, "queue"):
            findings.add(f"queue, {database}", _in_a_folder(database, lambda place: queue(place, wanted.jobs)))
        for model, count in ((SMALL, wanted.jobs), (BUNDLED, wanted.bundled_jobs)):
            if wanted.only in (None, "workers") and wanted.model in (None, model):
                findings.add(f"workers, {database}, {model}", workers(database, model, count))
    findings.end(wanted.json)


class Place:
    """A folder with a model, volumes and their masks, and a database."""

    def __init__(self, folder: Path, database: str, stack: ExitStack) -> None:
        self.folder = folder
        os.environ["XDG_CONFIG_HOME"] = str(folder)
        named_model(folder / "models", SMALL, patch=(48, 48, 8), overlap=0.0)
        url = f"sqlite:///{folder}/jobs.sqlite"
        if database == "postgres":
            folder.chmod(0o755)
            server = Postgres(folder / "postgres")
            stack.callback(server.stop)
            url = server.url
        self.env = {
            "VOXPORT_JOBS__DATABASE": url,
            "VOXPORT_JOBS__BLOBS": str(folder / "blobs"),
            "VOXPORT_JOBS__LENGTH": "100000",
            "VOXPORT_MODELS_DIR": str(folder / "models"),
            "VOXPORT_SCRATCH_DIR": str(folder),
        }

    def cases(self, model: str) -> list[tuple[Path, bytes]]:
        """Return volumes with the masks that this process computes."""
        noise = smooth_noise(SHAPES[model])
        volumes = [saved(self.folder / f"{n}.nii.gz", np.roll(noise, 11 * n, axis=0)) for n in range(KINDS)]
        segment = segmenter(self.folder, model)
        return [(volume, segment(volume)) for volume in volumes]

    @contextmanager
    def served(self, model: str) -> Iterator[Server]:
        """Start a server that runs no jobs."""
        with running_server(self.folder, "--no-worker", "-m", model, env=self.env) as server:
            yield server

    @contextmanager
    def working(self, count: int, threads: int) -> Iterator[None]:
        """Start a number of workers of one concurrent job."""
        command = [sys.executable, "-m", "voxport", "worker", "--threads", str(threads)]
        processes = []
        for number in range(count):
            with (self.folder / f"worker-{number}.log").open("wb") as log:
                started = subprocess.Popen(command, env=os.environ | self.env, stdout=log, stderr=log)
                processes.append(started)
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(PATIENCE)


def _in_a_folder(database: str, measure: Callable[[Place], dict[str, Any]]) -> dict[str, Any]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        return measure(Place(Path(name), database, stack))


def queue(place: Place, count: int) -> dict[str, Any]:
    """Submit many jobs at once to two workers, and measure the API's latency."""
    cases = place.cases(SMALL)
    with place.served(SMALL) as server, place.working(2, threads=1), server.client() as client:
        _await_workers(client, 2)
        latencies: list[float] = []
        with _asking(server, latencies):
            began = time.perf_counter()
            ids = _submit(server, cases, count)
            submitted = time.perf_counter() - began
            jobs = _ended(client, ids)
            elapsed = time.perf_counter() - began
        right = _right_masks(client, jobs, ids, cases)
    lined = sorted(jobs.values(), key=lambda job: job["submitted"])
    begun = sorted(lined, key=lambda job: job["started"])
    furthest = max(abs(place - begun.index(job)) for place, job in enumerate(lined))
    p95 = float(np.percentile(latencies, 95))
    return {
        "passed": right == count and furthest <= 2 and p95 < SLOWEST_P95_SECONDS,
        "jobs": count,
        "right masks": right,
        "all accepted after, seconds": submitted,
        "all ended after, seconds": elapsed,
        "jobs a second": count / elapsed,
        "furthest from its place in line": furthest,
        "GETs": len(latencies),
        "GET p50, ms": 1e3 * float(np.percentile(latencies, 50)),
        "GET p95, ms": 1e3 * p95,
        "GET slowest, ms": 1e3 * max(latencies),
    }


def workers(database: str, model: str, count: int) -> dict[str, Any]:
    """Run the same jobs with 1 worker of two threads, and 2 and 4 workers of one."""
    found: dict[str, Any] = {"jobs": count}
    for workers in WORKERS:
        seconds = _in_a_folder(database, lambda place, n=workers: _throughput(place, model, count, n))  # type: ignore[misc]
        found |= {f"{name}, {workers} workers": value for name, value in seconds.items()}
    found["loop, jobs a second"] = _in_a_folder("sqlite", lambda place: _loop(place, model, count))["jobs a second"]
    rates = {name: value for name, value in found.items() if name.startswith("jobs a second")}
    found |= {
        f"{name.removeprefix('jobs a second, ')} / loop": rate / found["loop, jobs a second"]
        for name, rate in rates.items()
    }
    found["passed"] = all(found[f"right masks, {workers} workers"] == count for workers in WORKERS)
    return found


def _throughput(place: Place, model: str, count: int, workers: int) -> dict[str, Any]:
    """Return jobs per second from the first start to the last end, and the median seconds of a job."""
    cases = place.cases(model)
    threads = 2 if workers == 1 else 1
    with place.served(model) as server, server.client() as client:
        ids = _submit(server, cases, count)
        with place.working(workers, threads):
            jobs = _ended(client, ids)
        right = _right_masks(client, jobs, ids, cases)
    begins, ends = ([_seconds(job[edge]) for job in jobs.values()] for edge in ("started", "ended"))
    taken = statistics.median(end - begin for begin, end in zip(begins, ends, strict=True))
    return {"jobs a second": count / (max(ends) - min(begins)), "median seconds": taken, "right masks": right}


def _loop(place: Place, model: str, count: int) -> dict[str, Any]:
    cases, segment = place.cases(model), segmenter(place.folder, model)
    began = time.perf_counter()
    for number in range(count):
        segment(cases[number % KINDS][0])
    return {"jobs a second": count / (time.perf_counter() - began)}


def _submit(server: Server, cases: Sequence[tuple[Path, bytes]], count: int) -> list[str]:
    """Submit jobs from eight clients; return their ids with their cases."""

    def send(number: int) -> str:
        volume, _ = cases[number % KINDS]
        with clients[number % 8][0], volume.open("rb") as file:
            answer = clients[number % 8][1].post("/v1/jobs", files={"volume": (volume.name, file)})
        if answer.status_code != 202:
            raise SystemExit(f"expected 202, got {answer.status_code}: {answer.text}")
        return str(answer.json()["id"])

    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        clients = [(threading.Lock(), stack.enter_context(server.client())) for _ in range(8)]
        return list(pool.map(send, range(count)))


def _ended(client: httpx.Client, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Wait for all jobs and return them. SystemExit if one failed."""
    while True:
        listed = client.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]
        jobs = {job["id"]: job for job in listed if job["id"] in set(ids)}
        if failed := [job for job in jobs.values() if job["state"] in ("failed", "parked", "cancelled")]:
            raise SystemExit(f"expected every job done, got {failed[0]}")
        if len(jobs) == len(ids) and all(job["state"] == "done" for job in jobs.values()):
            return jobs
        time.sleep(0.2)


def _right_masks(
    client: httpx.Client, jobs: dict[str, dict[str, Any]], ids: Sequence[str], cases: Sequence[tuple[Path, bytes]]
) -> int:
    masks = (client.get(jobs[id]["results"]["mask"]["href"]).content for id in ids)
    return sum(mask == case[1] for mask, case in zip(masks, itertools.cycle(cases), strict=False))


@contextmanager
def _asking(server: Server, latencies: list[float]) -> Iterator[None]:
    """Query one job and all jobs in turn until stopped."""
    stop = threading.Event()

    def ask() -> None:
        with server.client() as client:
            known = "/v1/jobs"
            while not stop.wait(GET_EVERY_SECONDS):
                began = time.perf_counter()
                answer = client.get(known)
                latencies.append(time.perf_counter() - began)
                jobs = answer.json().get("jobs")
                known = f"/v1/jobs/{jobs[0]['id']}" if jobs else "/v1/jobs"

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _await_workers(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.get("/health").json()["jobs"]["workers"] < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"expected {count} workers, got fewer")
        time.sleep(0.1)


def _seconds(text: str) -> float:
    return float(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64)) / 1e6


if __name__ == "__main__":
    main()
