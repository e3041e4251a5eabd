"""Jobs outlive their server: killed, told to stop, of several processes, or without its database for a while."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from voxport.testing.job_queue import wait_until

from .conftest import named_model
from .jobbing import BIG, SLOWLY, accepted, ended, events, look, scoring, slow_job, submit, volume
from .odd import refused
from .serving import Server, is_ready, running_server

ENV = {"VOXPORT_JOBS__KEEP_EVERY_SECONDS": "0"}


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    """The command's arguments for a small model, the same at each start."""
    named_model(tmp_path / "models", "edges")
    return "--models", str(tmp_path / "models"), "-m", "edges"


def kill(server: Server) -> None:
    """SIGKILL all its processes; those that it starts have process groups of their own."""
    family = [server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children(recursive=True))]
    assert len(family) > 1
    for pid in family:
        psutil.Process(pid).send_signal(signal.SIGKILL)
    assert server.process.wait(30) == -signal.SIGKILL
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in family))


def direct_mask(http: httpx.Client) -> bytes:
    return http.post("/segment", files={"volume": BIG}, data=SLOWLY).content


def test_a_killed_server_goes_on_with_its_job_after_restart(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with running_server(tmp_path, *arguments, env=ENV) as first:
        with first.client() as http:
            job, next_one = slow_job(http), accepted(submit(http))
            before = scoring(http, job, tiles=2000)
        kill(first)
    with running_server(tmp_path, *arguments, env=ENV) as second, second.client() as http:
        done = ended(http, job)
        assert (done["state"], done["attempts"], done["problem"]) == ("done", 2, None)
        assert done["tiles"]["done"] == done["tiles"]["total"] == before["tiles"]["total"]
        assert http.get(f"/v1/jobs/{job['id']}/mask").content == direct_mask(http)
        assert (look(http, job)["attempts"], ended(http, next_one)["attempts"]) == (2, 1)
        assert 'voxport_jobs_ended_total{state="done"} 2.0' in http.get("/metrics").text


def test_a_server_that_is_stopped_ends_in_mid_job_and_under_an_open_stream(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Of two processes: one of them is the worker, and each tells of all jobs once."""
    with running_server(tmp_path, *arguments, "--workers", "2", env=ENV) as server, server.client() as http:
        job = slow_job(http)
        scoring(http, job, tiles=100)
        for _ in range(8):  # answered by either process
            shown = httpx.get(f"{server.url}/metrics", trust_env=False).text
            assert shown.count('voxport_jobs{state="running"} 1.0\n') == 1
            assert shown.count("voxport_job_workers 1.0\n") == 1
        with ThreadPoolExecutor(2) as pool:
            told: list[list[dict[str, Any]]] = [[], []]
            streams = [pool.submit(found.extend, events(http, job)) for found in told]
            wait_until(lambda: all(told))  # both are open
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 10
            for stream in streams:
                stream.result()
            # the worker may give the job back while the stream still tells
            assert {found[-1]["state"] for found in told} <= {"running", "queued"}
    with running_server(tmp_path, *arguments, "--no-worker", env=ENV) as idle, idle.client() as http:
        waiting = look(http, job)
        assert (waiting["state"], waiting["problem"], waiting["position"]) == ("queued", None, 0)
        assert http.get("/health").json()["jobs"]["workers"] == 0


def test_jobs_come_back_with_their_database_and_their_files(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """All else is served meanwhile."""
    place, files = tmp_path / "away", tmp_path / "files"
    place.write_text("a file where the folder will be", encoding="utf-8")
    env = {"VOXPORT_JOBS__DATABASE": f"sqlite:///{place}/jobs.sqlite", "VOXPORT_JOBS__BLOBS": str(files)}
    with running_server(tmp_path, *arguments, env=env) as server, server.client() as http:
        assert is_ready(http)
        assert http.post("/segment", files={"volume": volume()}).status_code == 200
        answer = submit(http)
        told = refused(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"
        assert str(tmp_path) not in told
        refused(http.get("/v1/jobs"), 503, "unavailable")
        health = http.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["jobs"] == {"queue": "unavailable", "queued": None, "running": None, "workers": None}
        assert "job queue" in health.json()["reasons"][-1]
        shown = http.get("/metrics").text
        assert "voxport_job_queue_up 0.0" in shown
        assert "voxport_jobs" not in shown
        place.unlink()
        place.mkdir()
        job = ended(http, accepted(submit(http)))
        assert (job["state"], job["attempts"]) == ("done", 1)
        assert http.get("/health").json()["status"] == "ok"
        files.rename(tmp_path / "aside")
        files.write_text("a file where the folder was", encoding="utf-8")
        mask = f"/v1/jobs/{job['id']}/mask"
        told = refused(submit(http), 507, "output") + refused(http.get(mask), 503, "unavailable")
        told += refused(http.get(f"/v1/jobs/{job['id']}/preview.png", params={"plane": "axial"}), 503, "unavailable")
        assert str(tmp_path) not in told
        assert look(http, job)["state"] == "done"
        files.unlink()
        (tmp_path / "aside").rename(files)
        assert http.get(mask).content == http.post("/segment", files={"volume": volume()}).content
        assert len(http.get("/v1/jobs").json()["jobs"]) == 1
