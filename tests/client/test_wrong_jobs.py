"""Servers that tell of jobs what cannot be, and results that are not the job's: one clear line, no file on disk."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from voxport.client import Client, RemoteError
from voxport.client.answers import remote_job
from voxport.domain.errors import OutputError

from .conftest import write_scan
from .test_waiting import DONE, ID, TOLD

URL = "http://server"
Change = Callable[[httpx.Request, httpx.Response], httpx.Response]


class Changing(httpx.BaseTransport):
    """The application, and something in between that changes its answers."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport
        self.change: Change = lambda _, answer: answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.change(request, self._transport.handle_request(request))


@pytest.fixture
def between(transport: httpx.BaseTransport) -> Changing:
    return Changing(transport)


@pytest.fixture
def client(between: Changing) -> Iterator[Client]:
    with Client(transport=between) as client:
        yield client


def present(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def only(path: str, **changed: Any) -> Change:
    """Changes the answers whose path ends so."""

    def change(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if not request.url.path.endswith(path):
            return answer
        kept = {name: value for name, value in answer.headers.items() if name in ("content-type", "etag")}
        given: dict[str, Any] = {"status_code": 200, "headers": kept, "content": answer.content} | changed
        return httpx.Response(**given)

    return change


@pytest.mark.parametrize("member", sorted(TOLD))
def test_a_job_has_all_its_parts(member: str) -> None:
    data = {name: value for name, value in TOLD.items() if name != member}
    with pytest.raises(RemoteError, match=f"a job, got one without '{member}'"):
        remote_job(data, URL)


@pytest.mark.parametrize("data", [None, 7, "job", [], [TOLD]])
def test_what_is_no_object_is_no_job(data: object) -> None:
    with pytest.raises(RemoteError, match="a job"):
        remote_job(data, URL)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", None),
        ("id", "../x"),
        ("id", "a" * 101),
        ("state", "paused"),
        ("state", ["queued"]),
        ("cancelling", 1),
        ("cancelling", None),
        ("model", "vessels"),
        ("model", "../..:1"),
        ("model", 7),
        ("inputs", []),
        ("inputs", {}),
        ("inputs", [{}]),
        ("inputs", [{"name": "a", "sha256": "1" * 63}]),
        ("inputs", [{"name": "a", "sha256": "A" * 64}]),
        ("inputs", [{"name": "a", "sha256": None}]),
        ("inputs", TOLD["inputs"] * 1001),
        ("outputs", "mask"),
        ("submitted", None),
        ("submitted", "yesterday"),
        ("submitted", "2026-03-01T12:00:00"),
        ("submitted", 1772366400),
        ("started", ""),
        ("ended", "9999-99-99T00:00:00Z"),
        ("ended", "0001-01-01T00:00:00+23:00"),
        ("expires", True),
        ("position", -1),
        ("position", 1.5),
        ("position", True),
        ("attempts", None),
        ("attempts", 2**54),
        ("tiles", None),
        ("tiles", {"done": 1}),
        ("tiles", {"done": "1", "total": 2}),
        ("eta_seconds", -1),
        ("eta_seconds", float("nan")),
        ("eta_seconds", float("inf")),
        ("eta_seconds", 10**400),
        ("eta_seconds", "soon"),
        ("problem", "none"),
        ("problem", {}),
        ("results", None),
        ("results", {"mask": "1" * 64}),
        ("results", {"mask": {"sha256": "../x"}}),
    ],
)
def test_a_job_with_a_part_that_makes_no_sense(member: str, value: object) -> None:
    with pytest.raises(RemoteError, match="a job, got one") as caught:
        remote_job(TOLD | {member: value}, URL)
    assert len(str(caught.value).splitlines()) == 1


def test_a_job_that_is_done_has_a_mask_and_a_report() -> None:
    assert remote_job(DONE, URL).has_ended
    for results in ({}, {"mask": DONE["results"]["mask"]}, {"report": DONE["results"]["report"]}):
        with pytest.raises(RemoteError):
            remote_job(DONE | {"results": results}, URL)


def test_a_job_of_another_number_of_volumes() -> None:
    with pytest.raises(RemoteError):
        remote_job(TOLD, URL, [Path("a.nii"), Path("b.nii")])


def test_what_a_later_server_adds_is_passed_over() -> None:
    more = {"outputs": ["mask", "mesh"], "results": DONE["results"] | {"mesh": 7}, "priority": 9}
    job = remote_job(DONE | more, URL)
    assert (job.outputs, set(job.results)) == (("mask",), {"mask", "report"})


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\nsecond line\u202e"
    problem = {"type": hostile, "title": hostile, "detail": hostile * 100}
    inputs = [{"name": hostile, "sha256": "1" * 64}]
    job = remote_job(TOLD | {"state": "failed", "problem": problem, "inputs": inputs}, URL)
    assert job.inputs[0].name.isprintable()
    assert job.failure is not None
    assert (job.failure.kind + job.failure.detail).isprintable()
    assert str(job.error).isprintable()
    assert len(str(job.error)) < 1000


def test_another_job_than_the_one_that_was_asked_for(client: Client, between: Changing, scan: Path) -> None:
    job = client.jobs.submit(scan)
    between.change = only(job.id, json=TOLD, headers={}, content=None)
    with pytest.raises(RemoteError, match=f"expected job {job.id}, got job {ID}"):
        client.jobs.get(job)


def test_a_job_for_other_volumes_than_were_sent(client: Client, between: Changing, scan: Path) -> None:
    between.change = only("/jobs", status_code=202, json=TOLD, headers={}, content=None)
    with pytest.raises(RemoteError, match="others, by their sha256"):
        client.jobs.submit(scan)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "up to 2 jobs, got something else"),
        ({"jobs": {}}, "up to 2 jobs, got something else"),
        ({"jobs": [TOLD] * 3}, "up to 2 jobs, got 3 of them"),
        ({"jobs": [TOLD, {}]}, "a job, got one without"),
        ([], "JSON object"),
    ],
)
def test_a_list_that_is_none(client: Client, between: Changing, body: object, said: str) -> None:
    between.change = only("/jobs", json=body, headers={}, content=None)
    with pytest.raises(RemoteError, match=said):
        client.jobs.list(limit=2)


def test_an_empty_answer_where_a_job_is_due(client: Client, between: Changing, scan: Path) -> None:
    job = client.jobs.submit(scan)
    between.change = only("", status_code=204, content=b"", headers={})
    with pytest.raises(RemoteError, match="204"):
        client.jobs.get(job)
    with pytest.raises(RemoteError, match="204"):
        client.jobs.retry(job)


def mended(output: str, content: bytes) -> Change:
    """Puts another file in the place of a result, with its hash."""

    def change(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.url.path.endswith(f"/{output}"):
            return only("", content=content)(request, answer)
        if "results" not in (data := answer.json() if request.url.path.count("/") == 3 else {}):
            return answer
        data["results"][output]["sha256"] = hashlib.sha256(content).hexdigest()
        return httpx.Response(200, json=data)

    return change


def report_with(client: Client, id: str, change: Callable[[dict[str, Any]], object]) -> Change:
    report = client._connection.json("GET", f"/v1/jobs/{id}/report")
    change(report)
    return mended("report", json.dumps(report).encode())


def refused(client: Client, id: str, folder: Path, name: str = "mask.nii.gz") -> RemoteError:
    """The error of a download of a mask, a table and a picture, of which nothing may be left."""
    before = present(folder)
    places = {"statistics": folder / "s.csv", "preview": folder / "p.png"}
    with pytest.raises(RemoteError) as caught:
        client.jobs.download(id, folder / name, outputs=places)
    assert present(folder) == before
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.fixture(scope="module")
def done(transport: httpx.BaseTransport, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job that is done."""
    with Client(transport=transport) as client:
        return client.jobs.wait(client.jobs.submit(write_scan(tmp_path_factory.mktemp("scan")))).id


@pytest.mark.parametrize("path", ["mask", "preview.png", "report", "statistics"])
def test_a_file_with_another_hash_than_the_jobs(
    client: Client, between: Changing, done: str, tmp_path: Path, path: str
) -> None:
    between.change = only(f"/{path}", content=gzip.compress(b"other bytes"))
    error = refused(client, done, tmp_path)
    assert f"job {done}" in error.subject + error.expected
    assert "another sha256" in error.got


@pytest.mark.parametrize("etag", [{}, {"ETag": '"1"'}, {"ETag": ""}])
def test_a_table_is_checked_by_its_etag(
    client: Client, between: Changing, done: str, tmp_path: Path, etag: dict[str, str]
) -> None:
    between.change = only("/statistics", headers={"Content-Type": "text/csv"} | etag)
    assert "another sha256" in refused(client, done, tmp_path).got


def test_a_proxys_weak_etag_will_do(client: Client, between: Changing, done: str, tmp_path: Path) -> None:
    def change(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.url.path.endswith("/statistics"):
            answer.headers["ETag"] = f"W/{answer.headers['ETag']}"
        return answer

    between.change = change
    client.jobs.download(done, tmp_path / "mask.nii.gz", outputs={"statistics": tmp_path / "s.csv"})
    assert (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
@pytest.mark.parametrize("content", [b"no mask", gzip.compress(b"no mask"), b""], ids=["plain", "gzipped", "empty"])
def test_a_mask_that_is_none(
    client: Client, between: Changing, done: str, tmp_path: Path, content: bytes, name: str
) -> None:
    between.change = mended("mask", content)
    assert "NIfTI" in str(refused(client, done, tmp_path, name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.clear(), "a report, got one without"),
        (lambda report: report["tiles"].update(count="many"), "one whose"),
        (lambda report: report["inputs"][0].update(sha256="0" * 64), "others, by their sha256"),
        (lambda report: report["inputs"].append(report["inputs"][0]), "others, by their sha256"),
        (lambda report: report["model"].update(version="9.9.9"), "a report of two-photon-vessels:1.1.0"),
    ],
)
def test_a_report_that_is_another_runs(
    client: Client, between: Changing, done: str, tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    between.change = report_with(client, done, change)
    assert said in str(refused(client, done, tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b" " * (2**26 + 1)], ids=["empty", "half", "list", "huge"])
def test_a_report_that_is_no_json(client: Client, between: Changing, done: str, tmp_path: Path, content: bytes) -> None:
    between.change = mended("report", content)
    assert isinstance(refused(client, done, tmp_path), RemoteError)


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": {"Content-Type": "text/html"}},
        {"status_code": 404, "headers": {"Content-Type": "text/html"}},
        {"status_code": 206},
        {"status_code": 204},
        {"status_code": 302, "headers": {"Location": "http://elsewhere.example/mask"}},
    ],
)
def test_a_mask_under_another_name(
    client: Client, between: Changing, done: str, tmp_path: Path, changed: dict[str, Any]
) -> None:
    between.change = only("/mask", **changed)
    refused(client, done, tmp_path)


def test_where_a_server_says_that_results_are_is_not_asked(
    client: Client, between: Changing, done: str, tmp_path: Path
) -> None:
    """With the key, and with what is known of the volumes, that would go to any place that a server names."""
    asked: list[str] = []

    def change(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        asked.append(str(request.url))
        if not request.url.path.endswith(done):
            return answer
        job = answer.json()
        for result in job["results"].values():
            result["href"] = "http://elsewhere.example/mask"
        return httpx.Response(200, json=job)

    between.change = change
    client.jobs.download(done, tmp_path / "mask.nii.gz")
    assert asked == [f"http://127.0.0.1:3000/v1/jobs/{done}{path}" for path in ("", "/report", "/mask")]
    assert present(tmp_path) == ["mask.nii.gz"]


def test_an_older_mask_stays_where_another_comes_to_nothing(
    client: Client, between: Changing, done: str, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"older")
    between.change = only("/preview.png", content=b"other bytes")
    refused(client, done, tmp_path)
    assert mask.read_bytes() == b"older"


def test_a_disk_that_is_full(client: Client, done: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = present(tmp_path)
    with pytest.raises(OutputError, match="no space left on device"):
        client.jobs.download(done, tmp_path / "mask.nii.gz")
    assert present(tmp_path) == before
