"""The URL of a job is told when it has ended, also by another process than the one that took the job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook
from voxport.client import Client
from voxport.domain.errors import UsageError

from tests.adapters.test_http_webhooks import SECRET, Receiver, receiver

from .conftest import named_model
from .serving import PATIENCE, Server, running_server

__all__ = ["receiver"]


def allowing(origin: str) -> Mapping[str, str]:
    return {
        "VOXPORT_JOBS__CALLBACK_ORIGINS": f'["{origin}"]',
        "VOXPORT_JOBS__CALLBACK_SECRET": SECRET,
        "VOXPORT_JOBS__CALLBACK_PRIVATE": "true",
    }


def test_a_url_is_told_by_the_process_that_runs_the_job(
    tmp_path: Path,
    scan: Path,
    receiver: Receiver,
) -> None:
    named_model(tmp_path / "models", "edges")
    arguments, env = ("--models", str(tmp_path / "models"), "-m", "edges"), allowing(receiver.origin)
    url = f"{receiver.origin}/good?case=7"
    with running_server(tmp_path, *arguments, "--no-worker", env=env) as server, Client(server.url) as client:
        job = client.jobs.submit(scan, callback_url=url)
        with pytest.raises(UsageError, match="callback_url") as refused:
            client.jobs.submit(scan, callback_url="http://127.0.0.1:1/x")
        assert receiver.origin in refused.value.expected
    assert receiver.messages == []
    with running_server(tmp_path, *arguments, env=env) as server, Client(server.url) as client:
        assert receiver.arrived.acquire(timeout=PATIENCE)
        ended = client.jobs.get(job.id)
    ((headers, body),) = receiver.messages
    told = Webhook(SECRET).verify(body, headers)
    assert (told["type"], told["data"]["id"], headers["webhook-id"]) == ("job.done", job.id, job.id)
    assert told["data"]["results"]["mask"]["sha256"] == ended.results["mask"]
    assert str(tmp_path) not in body.decode()


def test_no_url_is_told_where_none_is_allowed(server: Server, http: httpx.Client, scan: Path) -> None:
    del server
    answer = http.post(
        "/v1/jobs", files={"volume": ("a.nii.gz", scan.read_bytes())}, data={"callback_url": "https://lab.example/x"}
    )
    assert answer.status_code == 422
    assert answer.json()["expected"] == "no callback"


def test_origins_without_a_secret_are_refused_when_the_settings_are_read(tmp_path: Path) -> None:
    from tests.cli.conftest import environment
    from tests.cli.forking import run_forked

    for secret in ({}, {"VOXPORT_JOBS__CALLBACK_SECRET": "short"}):
        env = environment(tmp_path) | {"VOXPORT_JOBS__CALLBACK_ORIGINS": '["https://lab.example"]'} | secret
        done = run_forked(["models", "list"], cwd=tmp_path, env=env)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "openssl rand -base64 32" in done.stderr
