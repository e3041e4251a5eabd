"""Asking a service for jobs: cases that end at once, cases that take seconds, and what is told of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import nibabel as nib
import numpy as np
from voxport.testing.job_queue import wait_until

Answer = dict[str, Any]
# thousands of tiles of 8 x 8 x 8: seconds, so that a test can come in between
SLOWLY = {"patch": "8,8,8", "overlap": "0.75"}


def volume(edge: int = 12, seed: int = 0) -> bytes:
    """A gzipped cube of noise."""
    values = np.random.default_rng(seed).integers(0, 256, (edge, edge, edge), np.uint8)
    return gzip.compress(nib.Nifti1Image(values, np.diag([-1.0, 1.0, 5.0, 1.0])).to_bytes(), 1, mtime=0)


BIG = volume(44)


def submit(
    http: httpx.Client, content: bytes | None = None, *, key: str | None = None, **fields: object
) -> httpx.Response:
    """The answer to a submission."""
    headers = {} if key is None else {"Idempotency-Key": key}
    files = {"volume": ("patient-12345.nii.gz", content or volume())}
    return http.post("/v1/jobs", files=files, data=fields, headers=headers)


def accepted(answer: httpx.Response) -> Answer:
    """The job of a submission that was taken."""
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def slow_job(http: httpx.Client, content: bytes = BIG, model: str = "edges") -> Answer:
    """A job that takes seconds."""
    return accepted(submit(http, content, patch=SLOWLY["patch"], overlap=SLOWLY["overlap"], model=model))


def look(http: httpx.Client, job: Mapping[str, Any]) -> Answer:
    """The job as it is now."""
    answer = http.get(f"/v1/jobs/{job['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def scoring(http: httpx.Client, job: Mapping[str, Any], tiles: int = 1) -> Answer:
    """The job, once it has so many tiles done and is not done yet."""
    wait_until(lambda: look(http, job)["tiles"]["done"] >= tiles)
    now = look(http, job)
    assert now["state"] == "running"
    return now


def ended(http: httpx.Client, job: Mapping[str, Any], patience_seconds: float = 60.0) -> Answer:
    """The job, once it has ended."""
    wait_until(lambda: look(http, job)["ended"] is not None, patience_seconds)
    return look(http, job)


def events(http: httpx.Client, job: Mapping[str, Any]) -> Iterator[Answer]:
    """The data of the job's events, until the stream closes."""
    with http.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        assert stream.status_code == 200, stream.read()
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        for line in lines:
            if line and not line.startswith(":"):
                assert line == "event: job"
                yield json.loads(next(lines).removeprefix("data: "))


def stop_job(http: httpx.Client, job: Mapping[str, Any]) -> None:
    """Cancel a job, and wait until it has stopped."""
    http.delete(f"/v1/jobs/{job['id']}").raise_for_status()
    assert ended(http, job)["state"] == "cancelled"
