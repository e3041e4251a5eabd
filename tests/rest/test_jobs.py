"""Jobs over HTTP: submitted, followed, fetched, cancelled, tried again and deleted, each by whom they belong to."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from voxport.testing.job_queue import wait_until

from .conftest import named_model
from .jobbing import accepted, ended, events, look, scoring, slow_job, stop_job, submit, volume
from .odd import refused
from .serving import Server, running_server

ADA, BOB = "ada-ada-ada-ada-ada", "bob-bob-bob-bob-bob"
WAITING = 3
RESULTS = {
    "mask": ("mask", "application/gzip", "mask.nii.gz"),
    "probabilities": ("probabilities", "application/gzip", "probabilities.nii.gz"),
    "uncertainty": ("uncertainty", "application/gzip", "uncertainty.nii.gz"),
    "statistics": ("statistics", "application/json", "statistics.json"),
    "preview": ("preview.png", "image/png", "preview.png"),
    "report": ("report", "application/json", "report.json"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two keys, a worker, and room for few jobs that wait."""
    folder = tmp_path_factory.mktemp("jobs")
    named_model(folder / "models", "edges")
    env = {"VOXPORT_API_KEYS": f"{ADA},{BOB}", "VOXPORT_JOBS__LENGTH": str(WAITING)}
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as server:
        yield server


def client(server: Server, key: str) -> httpx.Client:
    return server.client(headers={"X-API-Key": key})


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with client(server, ADA) as http:
        yield http


@pytest.fixture(scope="module")
def done(server: Server) -> dict[str, Any]:
    """A job of everything that is done."""
    with client(server, ADA) as http:
        job = ended(http, accepted(submit(http, outputs=list(RESULTS))))
    assert job["state"] == "done", job["problem"]
    return job


def blobs(server: Server) -> list[Path]:
    return sorted((server.log.parent / "data" / "voxport" / "jobs" / "blobs" / "cases").glob("*/*/*"))


def test_a_job_is_accepted_followed_to_its_end_and_gives_a_plain_requests_mask(http: httpx.Client) -> None:
    answer = submit(http, overlap="0.25")
    job = accepted(answer)
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["attempts"], job["results"]) == ("queued", 0, {})
    assert job["eta_seconds"] > 0
    assert [file["name"] for file in job["inputs"]] == ["volume_1.nii.gz"]
    told = list(events(http, job))
    assert told[0]["id"] == job["id"]
    last = told[-1]
    assert (last["state"], last["attempts"], last["eta_seconds"], last["problem"]) == ("done", 1, None, None)
    assert last["tiles"]["done"] == last["tiles"]["total"] > 0
    assert set(last["results"]) == set(last["outputs"]) == {"mask", "statistics", "preview", "report"}
    assert last == look(http, job)
    mask = http.get(last["results"]["mask"]["href"])
    assert mask.content == http.post("/segment", files={"volume": volume()}, data={"overlap": "0.25"}).content


def test_times_are_in_utc_and_data_is_kept_for_a_week(done: dict[str, Any]) -> None:
    times = [datetime.fromisoformat(done[name]) for name in ("submitted", "started", "ended", "expires")]
    assert times == sorted(times)
    assert times[3] - times[2] == timedelta(days=7)
    assert all(done[name].endswith("Z") for name in ("submitted", "started", "ended", "expires"))


def test_every_result_has_its_hash_its_size_and_a_name(http: httpx.Client, done: dict[str, Any]) -> None:
    for output, (path, media_type, name) in RESULTS.items():
        told = done["results"][output]
        assert told["href"] == f"/v1/jobs/{done['id']}/{path}"
        answer = http.get(told["href"])
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == media_type
        assert hashlib.sha256(answer.content).hexdigest() == told["sha256"]
        assert answer.headers["etag"] == f'"{told["sha256"]}"'
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    report = http.get(done["results"]["report"]["href"]).json()
    assert report["statistics"] == http.get(done["results"]["statistics"]["href"]).json()


@pytest.mark.parametrize("known", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_who_has_the_bytes_does_not_get_them_again(http: httpx.Client, done: dict[str, Any], known: str) -> None:
    mask = done["results"]["mask"]
    answer = http.get(mask["href"], headers={"If-None-Match": known.format(mask["sha256"])})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{mask["sha256"]}"'
    assert http.get(mask["href"], headers={"If-None-Match": '"other"'}).status_code == 200


def test_statistics_come_as_json_or_as_a_table(http: httpx.Client, done: dict[str, Any]) -> None:
    href = done["results"]["statistics"]["href"]
    table = http.get(href, headers={"Accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    assert table.headers["vary"] == "Accept"
    assert table.text.startswith("value,name,voxels,")
    assert table.headers["etag"] == f'"{hashlib.sha256(table.content).hexdigest()}"'
    assert str(http.get(href).json()["labels"][0]["voxels"]) in table.text
    refused(http.get(href, headers={"Accept": "image/png"}), 406, "not-acceptable")


def test_any_slice_can_be_looked_at(http: httpx.Client, done: dict[str, Any]) -> None:
    href = done["results"]["preview"]["href"]
    whole = http.get(href)
    slices = {index: http.get(href, params={"plane": "coronal", "index": index}) for index in (0, 6, 11)}
    for answer in slices.values():
        assert answer.headers["content-type"] == "image/png"
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.size == (12, 60)  # 12 x 12 voxels of 1 x 5 mm
    assert len({whole.content, *(answer.content for answer in slices.values())}) == 4
    assert http.get(href, params={"plane": "coronal"}).content == slices[6].content
    told = refused(http.get(href, params={"plane": "coronal", "index": 12}), 422, "usage")
    assert told.startswith("index: expected a slice from 0 to 11, got 12")
    refused(http.get(href, params={"index": 3}), 422, "usage")
    refused(http.get(href, params={"plane": "oblique"}), 422, "usage")


def test_a_result_that_was_not_asked_for_is_not_there(http: httpx.Client) -> None:
    job = ended(http, accepted(submit(http)))
    told = refused(http.get(f"/v1/jobs/{job['id']}/probabilities"), 404, "not-found")
    assert "outputs=probabilities" in told


def test_a_request_sent_again_gives_the_job_that_it_made(server: Server, http: httpx.Client) -> None:
    first = submit(http, key="case 1")
    again = submit(http, key="case 1")
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.json()["id"] == first.json()["id"]
    refused(submit(http, key="case 1", overlap="0"), 422, "usage")
    refused(submit(http, volume(seed=1), key="case 1"), 422, "usage")
    with client(server, BOB) as bob:
        assert accepted(submit(bob, key="case 1"))["id"] != first.json()["id"]
    for bad in (b"k" * 256, "k\u00e9y".encode("latin-1")):
        answer = http.post("/v1/jobs", files={"volume": volume()}, headers={b"Idempotency-Key": bad})
        assert "Idempotency-Key" in refused(answer, 422, "usage")


def test_a_job_is_its_owners_alone(server: Server, http: httpx.Client, done: dict[str, Any]) -> None:
    with client(server, BOB) as bob:
        path = f"/v1/jobs/{done['id']}"
        asked = [bob.get(path), bob.get(f"{path}/events"), bob.delete(path), bob.post(f"{path}/retry")]
        asked += [bob.get(f"{path}/{name}") for name, _, _ in RESULTS.values()]
        for answer in asked:
            refused(answer, 404, "unknown-job")
        assert done["id"] not in {job["id"] for job in bob.get("/v1/jobs").json()["jobs"]}
    assert done["id"] in {job["id"] for job in http.get("/v1/jobs").json()["jobs"]}
    for odd in ("x", "00000000-0000-4000-8000-000000000000", "%00", "a" * 300, done["id"].upper()):
        refused(http.get(f"/v1/jobs/{odd}"), 404, "unknown-job")


def test_jobs_are_listed_the_latest_first_by_state_and_not_too_many(http: httpx.Client) -> None:
    made = [ended(http, accepted(submit(http)))["id"] for _ in range(2)]
    listed = [job["id"] for job in http.get("/v1/jobs").json()["jobs"]]
    assert listed[:2] == made[::-1]
    assert [job["id"] for job in http.get("/v1/jobs", params={"limit": 1}).json()["jobs"]] == [made[1]]
    both = http.get("/v1/jobs", params={"state": ["queued", "failed"]}).json()
    assert both == {"jobs": []}
    for wrong in ({"limit": 0}, {"limit": 1001}, {"state": "asleep"}):
        refused(http.get("/v1/jobs", params=wrong), 422, "usage")


def test_while_it_runs_its_tiles_are_told_and_cancelling_stops_it(http: httpx.Client) -> None:
    job = slow_job(http)
    refused(http.get(f"/v1/jobs/{job['id']}/preview.png", params={"plane": "axial"}), 409, "conflict")
    told = []
    for event in events(http, job):
        told.append(event)
        if len(told) == 4:
            running = http.get(f"/v1/jobs/{job['id']}/mask")
            assert "one that is running" in refused(running, 409, "conflict")
            assert int(running.headers["retry-after"]) >= 1
            refused(http.post(f"/v1/jobs/{job['id']}/retry"), 409, "conflict")
            assert 0 < look(http, job)["eta_seconds"] < 120
            assert http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    tiles = [event["tiles"]["done"] for event in told]
    assert tiles == sorted(tiles)
    assert len(told) >= 4
    assert (told[-1]["state"], told[-1]["results"]) == ("cancelled", {})
    assert 0 < tiles[-1] < told[-1]["tiles"]["total"]
    gone = http.get(f"/v1/jobs/{job['id']}/mask")
    assert "one that was cancelled" in refused(gone, 409, "conflict")
    assert "retry-after" not in gone.headers


def test_a_cancelled_job_can_be_tried_again_and_a_done_one_cannot(http: httpx.Client) -> None:
    blocking = slow_job(http)
    scoring(http, blocking)
    job = accepted(submit(http, content := volume(seed=2)))
    assert look(http, job)["position"] == 0
    cancelled = http.delete(f"/v1/jobs/{job['id']}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    again = http.post(f"/v1/jobs/{job['id']}/retry")
    assert (again.status_code, again.json()["state"], again.json()["position"]) == (202, "queued", 0)
    stop_job(http, blocking)
    assert ended(http, job)["state"] == "done"
    mask = http.get(f"/v1/jobs/{job['id']}/mask").content
    assert mask == http.post("/segment", files={"volume": content}).content
    told = refused(http.post(f"/v1/jobs/{job['id']}/retry"), 409, "conflict")
    assert "one that is done" in told
    unchanged = http.post(f"/v1/jobs/{job['id']}/cancel")
    assert (unchanged.status_code, unchanged.json()["state"]) == (202, "done")


def test_deleting_an_ended_job_takes_its_data(server: Server, http: httpx.Client) -> None:
    before = blobs(server)
    job = ended(http, accepted(submit(http, volume(seed=3))))
    assert len(blobs(server)) > len(before)
    answer = http.delete(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert blobs(server) == before
    refused(http.get(f"/v1/jobs/{job['id']}"), 404, "unknown-job")
    refused(http.get(f"/v1/jobs/{job['id']}/events"), 404, "unknown-job")


def test_only_so_many_jobs_may_wait_and_each_knows_its_place(http: httpx.Client) -> None:
    first = slow_job(http)
    scoring(http, first)
    waiting = [accepted(submit(http, volume(seed=n), key=f"full {n}")) for n in range(WAITING)]
    full = submit(http, volume(seed=9))
    assert "jobs that wait" in refused(full, 503, "busy")
    assert int(full.headers["retry-after"]) >= 1
    assert submit(http, volume(seed=1), key="full 1").headers["idempotency-replayed"] == "true"
    places = [look(http, job) for job in waiting]
    assert [place["position"] for place in places] == list(range(WAITING))
    assert all(place["eta_seconds"] > 0 for place in places)
    health = http.get("/health").json()["jobs"]
    assert health == {"queue": "ok", "queued": WAITING, "running": 1, "workers": 1}
    shown = http.get("/metrics").text
    for line in (
        "voxport_job_queue_up 1.0",
        f'voxport_jobs{{state="queued"}} {WAITING}.0',
        'voxport_jobs{state="running"} 1.0',
        "voxport_job_workers 1.0",
        "voxport_job_slots 1.0",
    ):
        assert shown.count(line) == 1, line
    stop_job(http, first)
    assert [ended(http, job)["state"] for job in waiting] == ["done"] * WAITING
    stats = http.get("/metrics").text
    assert "voxport_jobs_oldest_queued_seconds 0.0" in stats
    told = (line.rpartition(" ") for line in stats.splitlines() if not line.startswith("#"))
    counted = {name: float(value) for name, _, value in told}
    assert counted['voxport_jobs_ended_total{state="done"}'] >= counted['voxport_jobs{state="done"}'] >= WAITING


def test_a_request_waits_for_the_slot_of_a_job(http: httpx.Client) -> None:
    job = slow_job(http)
    scoring(http, job)
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(http.post, "/segment", files={"volume": volume()})
        wait_until(lambda: http.get("/health").json()["queued"] == 1)
        assert http.get("/health").json()["in_flight"] == 1
        assert not request.done()
        stop_job(http, job)
        assert request.result().status_code == 200


@pytest.mark.parametrize(
    ("content", "fields", "status", "kind"),
    [
        (b"no volume", {}, 422, "input"),
        (volume()[:-20], {}, 422, "input"),
        (None, {"model": "nothing"}, 404, "unknown-model"),
        (None, {"patch": "7"}, 422, "usage"),
        (None, {"memory": "1"}, 422, "usage"),
        (None, {"model": ["edges", "edges"]}, 422, "usage"),
        (None, {"outputs": "colours"}, 422, "usage"),
    ],
)
def test_what_could_never_be_done_is_refused_at_once(
    server: Server, http: httpx.Client, content: bytes | None, fields: dict[str, Any], status: int, kind: str
) -> None:
    before, stored = http.get("/v1/jobs").json(), blobs(server)
    refused(submit(http, content, **fields), status, kind)
    assert (http.get("/v1/jobs").json(), blobs(server)) == (before, stored)


def test_nothing_of_the_callers_own_names_is_kept(server: Server, http: httpx.Client, done: dict[str, Any]) -> None:
    assert "patient" not in json.dumps(done)
    assert "patient" not in http.get(done["results"]["report"]["href"]).text
    assert "patient" not in server.log.read_text(encoding="utf-8")


def test_a_stream_that_its_reader_leaves_is_over(server: Server, http: httpx.Client) -> None:
    job = slow_job(http, volume(72))  # it must not end before its reader leaves, however busy the machine is
    with client(server, ADA) as other, other.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        request = stream.headers["voxport-request"]
        lines = stream.iter_lines()  # kept: a generator that is dropped closes the stream
        assert next(lines) == "event: job"
        assert request not in server.log.read_text(encoding="utf-8")
    wait_until(lambda: request in server.log.read_text(encoding="utf-8"))
    stop_job(http, job)
