"""Measure `voxport serve` under load, and the overhead of a request.

load: more clients upload at once than may wait. Each response must be the right mask, byte for byte, or a refusal with
a time to retry. Memory must stay below the bound of a run for each slot, and no files may remain.
overhead: alternates runs in this process with a resident model, and requests to a warm server.
Both use the bundled model, and a single convolution, for which the server's own work dominates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.material import Findings, sample_volumes, saved, segmenter, smooth_noise
from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server

SMALL = "convolution"
MODELS = ("two-photon-vessels", SMALL)
# Starlette keeps up to 1 MiB of each upload in memory, and buffers as much again.
CLIENT_BYTES = 2 * 2**20
# Allowed overhead of a request: the larger of both.
LARGEST_SHARE, LARGEST_SECONDS = 0.05, 0.15
PATIENCE_SECONDS = 15.0
MB = 1e6


@dataclass(frozen=True)
class Case:
    """A file to upload, and the mask that this process computed."""

    name: str
    content: bytes
    mask: bytes


@dataclass(frozen=True)
class Answer:
    """Result of a request: a mask, a wrong mask, a status or an error, with its duration and retry time."""

    kind: str
    seconds: float
    wait: float


class Tree:
    """Processes of a server; shared memory counts once for each."""

    def __init__(self, server: Server) -> None:
        root = psutil.Process(server.process.pid)
        self._processes = [root, *root.children(recursive=True)]

    def resident(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def descriptors(self) -> int:
        return sum(process.num_fds() for process in self._processes)

    def peak_during(self, work: Callable[[], list[Answer]]) -> tuple[int, list[Answer]]:
        """Return the largest resident memory, sampled every hundredth of a second, and the result of the work."""
        with ThreadPoolExecutor(1) as pool:
            done, peak = pool.submit(work), 0
            while not done.done():
                peak = max(peak, self.resident())
                time.sleep(0.01)
        return peak, done.result()


def main() -> None:
    """Print the machine and a table for each measurement. Exits with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("load", "overhead"))
    parser.add_argument("--model", choices=MODELS, help="default: both")
    parser.add_argument("--seconds", type=float, default=60.0, help="load: seconds")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--longest-wait", type=float, default=2.0, help="upper bound of the wait after Retry-After")
    parser.add_argument("--repeats", type=int, default=5, help="overhead: number of turns")
    parser.add_argument("--volume", type=Path, help="overhead: volume instead of smooth noise of 512 x 512 x 25 voxels")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    findings = Findings()
    for measure, model in itertools.product((load, overhead), MODELS):
        if wanted.only in (None, measure.__name__) and wanted.model in (None, model):
            with TemporaryDirectory() as name:
                os.environ["XDG_CONFIG_HOME"] = name
                named_model(Path(name) / "models", SMALL, patch=(256, 256, 32), overlap=0.125)
                title = f"{measure.__name__}, {model}"
                found = measure(Path(name), model, wanted)
            findings.add(title, found)
    findings.end(wanted.json)


def load(folder: Path, model: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Run clients continuously, and measure the server's memory during and after."""
    mask_of = segmenter(folder, model)
    cases = [Case(path.name, path.read_bytes(), mask_of(path)) for path in sample_volumes(folder)]
    if len({case.mask for case in cases}) < len(cases):
        raise SystemExit(f"{model}: masks that do not tell the volumes apart")
    with _served(folder, model, wanted) as server:
        tree = Tree(server)
        idle = tree.resident()
        with server.client() as client:
            alone, answers = tree.peak_during(lambda: [_ask(client, case) for case in cases])
        descriptors = tree.descriptors()
        began = time.perf_counter()
        peak, more = tree.peak_during(lambda: _all_at_once(server, cases, wanted))
        elapsed = time.perf_counter() - began
        left = _left_behind(server, tree, descriptors, folder / "scratch")
        afterwards = tree.resident()
    kinds = Counter(answer.kind for answer in more)
    seconds = [answer.seconds for answer in more if answer.kind == "mask"] or [float("inf")]
    bound = idle + wanted.slots * (alone - idle) + wanted.clients * CLIENT_BYTES
    is_right = {answer.kind for answer in answers} == {"mask"} and kinds["mask"] > 0
    return {
        "passed": is_right and not set(kinds) - {"mask", "503", "429"} and peak <= bound and not left,
        "clients, slots, queue": [wanted.clients, wanted.slots, wanted.queue],
        "answers": dict(kinds),
        "seconds": elapsed,
        "masks a second": kinds["mask"] / elapsed,
        "p50 seconds": float(np.percentile(seconds, 50)),
        "p95 seconds": float(np.percentile(seconds, 95)),
        "idle, MB": idle / MB,
        "one run's growth, MB": (alone - idle) / MB,
        "clients' uploads, MB": wanted.clients * CLIENT_BYTES / MB,
        "bound, MB": bound / MB,
        "peak, MB": peak / MB,
        "afterwards, MB": afterwards / MB,
        "left behind": left,
    }


def _all_at_once(server: Server, cases: Sequence[Case], wanted: argparse.Namespace) -> list[Answer]:
    """Run clients in parallel for a number of seconds, and wait for outstanding responses."""
    together = threading.Barrier(wanted.clients)

    def keep_asking(number: int) -> list[Answer]:
        answers = []
        with server.client() as client:
            together.wait()
            end = time.monotonic() + wanted.seconds
            for turn in itertools.count(number):
                answers.append(_ask(client, cases[turn % len(cases)]))
                wait = min(answers[-1].wait, wanted.longest_wait)
                if time.monotonic() + wait >= end:
                    break
                time.sleep(wait)
        return answers

    with ThreadPoolExecutor(wanted.clients) as pool:
        return list(itertools.chain.from_iterable(pool.map(keep_asking, range(wanted.clients))))


def _ask(client: httpx.Client, case: Case) -> Answer:
    """Upload a case. Only a refusal with a retry time is reported by its status alone."""
    began = time.perf_counter()
    try:
        response = client.post("/segment", files={"volume": (case.name, case.content)})
    except httpx.TransportError as error:
        return Answer(type(error).__name__, time.perf_counter() - began, 1.0)
    seconds, status = time.perf_counter() - began, response.status_code
    if status == 200:
        return Answer("mask" if response.content == case.mask else "wrong mask", seconds, 0.0)
    wait = response.headers.get("Retry-After", "")
    if status in (429, 503) and wait.isdecimal():
        return Answer(str(status), seconds, float(wait))
    return Answer(f"{status} {response.text[:200]}", seconds, 1.0)


def _left_behind(server: Server, tree: Tree, descriptors: int, scratch: Path) -> list[str]:
    """Return requests, files and descriptors that remain some seconds after the last response."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with server.client() as client:
            health = client.get("/health").json()
        left = [name for name in ("in_flight", "queued") if health[name]]
        left += [path.name for path in scratch.iterdir()]
        left += [f"{more} descriptors" for more in (tree.descriptors() - descriptors,) if more > 0]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def overhead(folder: Path, model: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Alternate local runs and requests; the first of each is a warm-up."""
    volume = wanted.volume or saved(folder / "volume.nii.gz", smooth_noise((512, 512, 25)))
    mask_of, here, there, beside = segmenter(folder, model), [], [], []
    with _served(folder, model, wanted) as server, server.client() as client:
        for _ in range(wanted.repeats + 1):
            began = time.perf_counter()
            mask = mask_of(volume)
            middle = time.perf_counter()
            with volume.open("rb") as file:
                response = client.post("/segment", files={"volume": (volume.name, file)})
            end = time.perf_counter()
            if response.status_code != 200 or response.content != mask:
                raise SystemExit(f"{model}: expected the mask of the run here, got {response.status_code}")
            run = sum(json.loads(response.headers["Voxport-Report"])["seconds"].values())
            here.append(middle - began)
            there.append(end - middle)
            beside.append(end - middle - run)
    own, remote = statistics.median(here[1:]), statistics.median(there[1:])
    return {
        "passed": remote - own <= max(LARGEST_SHARE * own, LARGEST_SECONDS),
        "volume, MB": volume.stat().st_size / MB,
        "run here, seconds": own,
        "request, seconds": remote,
        "ratio": remote / own,
        "difference, seconds": remote - own,
        "of it beside the run there": statistics.median(beside[1:]),
        "runs here": [round(seconds, 4) for seconds in here],
        "requests": [round(seconds, 4) for seconds in there],
    }


@contextmanager
def _served(folder: Path, model: str, wanted: argparse.Namespace) -> Iterator[Server]:
    """Start a warm server of the model."""
    (folder / "scratch").mkdir()
    env = {
        "VOXPORT_SCRATCH_DIR": str(folder / "scratch"),
        "VOXPORT_SERVING__SLOTS": str(wanted.slots),
        "VOXPORT_SERVING__QUEUE": str(wanted.queue),
        "VOXPORT_SERVING__LOOK_FOR_MODELS_SECONDS": "5",
    }
    with running_server(folder, "--models", str(folder / "models"), "-m", model, env=env) as server:
        yield server


if __name__ == "__main__":
    main()
