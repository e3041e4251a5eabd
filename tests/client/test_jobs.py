"""Jobs on the application: what goes out and comes back, and what is refused before anything does."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from voxport.client import Client, LostAnswerError, RemoteError, RemoteJob, UnreachableError
from voxport.client.answers import remote_job
from voxport.domain.errors import CancelledError, InputError, OutputError, TimeLimitError, UsageError, VoxportError
from voxport.domain.job import JobFailure

from .conftest import form_of
from .test_waiting import DONE, ID, TOLD


def present(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def ended(state: str, kind: str, detail: str) -> dict[str, object]:
    """The changes of a job that comes to nothing."""
    problem = {"type": f"urn:voxport:problem:{kind}", "title": "A title", "detail": detail}
    return {"state": state, "problem": problem}


def telling(**changed: object) -> httpx.MockTransport:
    """A server that answers with the one job and deletes nothing."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        return httpx.Response(200, json=TOLD | changed)

    return httpx.MockTransport(answer)


@pytest.fixture
def done(client: Client, scan: Path) -> RemoteJob:
    """A job that is done."""
    return client.jobs.wait(client.jobs.submit(scan, outputs=["probabilities"]))


def test_what_is_known_of_a_job(client: Client, scan: Path) -> None:
    job = client.jobs.submit(scan, outputs=["probabilities"])
    sha256 = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert [(entry.name, entry.sha256) for entry in job.inputs] == [(str(scan), sha256)]
    assert job.volumes == (scan,)
    assert job.outputs == ("mask", "probabilities", "statistics", "preview", "report")
    assert job.model == "two-photon-vessels:1.1.0"
    assert (job.ended, job.expires, job.failure, job.error) == (None, None, None, None)
    assert (dict(job.results), job.cancelling, job.has_ended) == ({}, False, False)
    done = client.jobs.wait(job)
    assert set(done.results) == set(job.outputs)
    assert done.started is not None
    assert done.ended is not None
    assert done.expires is not None
    assert job.submitted <= done.started <= done.ended < done.expires
    assert (done.error, done.has_ended, done.eta_seconds, done.attempts) == (None, True, None, 1)
    assert {done, job, done} == {job, done}


def test_a_job_by_its_id_alone_has_the_servers_names(client: Client, done: RemoteJob, tmp_path: Path) -> None:
    job = client.jobs.get(done.id)
    assert ([entry.name for entry in job.inputs], job.volumes) == (["volume_1.nii.gz"], ())
    report = client.jobs.download(done.id, tmp_path / "mask.nii.gz")
    assert report["inputs"][0]["name"] == "volume_1.nii.gz"


def test_fields_go_out_as_the_contract_spells_them(scan: Path) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        inputs = [{"name": "volume_1.nii.gz", "sha256": hashlib.sha256(scan.read_bytes()).hexdigest()}] * 2
        return httpx.Response(202, json=TOLD | {"inputs": inputs})

    stages = []
    with Client(transport=httpx.MockTransport(answer)) as client:
        client.jobs.submit(
            [scan, scan],
            model="two-photon-vessels:1.0.0",
            overlap=0.25,
            patch=(96, 96, 16),
            blending="halo",
            threshold=0.5,
            nan_as=0,
            outputs=["probabilities"],
            key="case 7/2026",
            on_progress=lambda *stage: stages.append(stage),
        )
    (request,) = sent
    assert form_of(request) == {
        "model": ["two-photon-vessels:1.0.0"],
        "overlap": ["0.25"],
        "patch": ["96,96,16"],
        "blending": ["halo"],
        "threshold": ["0.5"],
        "nan_as": ["0.0"],
        "outputs": ["mask", "probabilities", "report"],
        "files": ["volume_1.nii.gz", "volume_2.nii.gz"],
    }
    assert request.headers["Idempotency-Key"] == "case 7/2026"
    size = 2 * scan.stat().st_size
    assert {stage for stage, _, _ in stages} == {"upload"}
    assert stages[-1] == ("upload", size, size)


def test_each_file_is_listed_with_its_hash_and_its_bytes_are_reported(
    client: Client, done: RemoteJob, tmp_path: Path
) -> None:
    names = {"probabilities": "p.nii.gz", "statistics": "s.csv", "preview": "p.png"}
    calls: list[tuple[str, int, int]] = []
    report = client.jobs.download(
        done,
        tmp_path / "mask.nii.gz",
        outputs={output: tmp_path / name for output, name in names.items()},
        on_progress=lambda *stage: calls.append(stage),
    )
    assert {entry["name"]: entry["sha256"] for entry in report["outputs"]} == {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / name for name in ("mask.nii.gz", *names.values()))
    }
    mask_bytes = (tmp_path / "mask.nii.gz").stat().st_size
    assert ("download", mask_bytes, mask_bytes) in calls


def test_the_mask_appears_last(
    client: Client, done: RemoteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    client.jobs.download(done, tmp_path / "mask.nii.gz", outputs={"preview": tmp_path / "p.png"})
    assert [name for name in order if name in ("p.png", "mask.nii.gz")] == ["p.png", "mask.nii.gz"]


class Losing(httpx.BaseTransport):
    """Loses the first answers to submissions, and keeps the keys; a request that cannot connect is not received."""

    def __init__(self, transport: httpx.BaseTransport, *errors: type[httpx.TransportError]) -> None:
        self._transport, self._errors = transport, list(errors)
        self.keys: list[str] = []
        self.ids: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        error = self._errors.pop(0) if request.method == "POST" and self._errors else None
        if error is httpx.ConnectError:
            raise error("lost", request=request)
        answer = self._transport.handle_request(request)
        if "Idempotency-Key" in request.headers:
            self.keys.append(request.headers["Idempotency-Key"])
            self.ids.add(answer.json()["id"])
        if error is not None:
            raise error("lost", request=request)
        return answer


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout])
def test_a_lost_answer_is_asked_for_once_more(
    transport: httpx.BaseTransport, scan: Path, error: type[httpx.TransportError]
) -> None:
    losing = Losing(transport, error)
    with Client(transport=losing) as client:
        job = client.jobs.submit(scan)
    assert losing.ids == {job.id}
    assert len(losing.keys) == 2
    assert len(set(losing.keys)) == 1
    with pytest.raises(LostAnswerError), Client(transport=Losing(transport, error)) as other:
        other.segment(scan, scan.with_name("mask.nii.gz"))


@pytest.mark.parametrize("second", [httpx.ReadError, httpx.ConnectError])
def test_where_that_fails_too_the_error_has_the_key(
    transport: httpx.BaseTransport, scan: Path, second: type[httpx.TransportError]
) -> None:
    losing = Losing(transport, httpx.ReadError, second)
    with Client(transport=losing) as client:
        with pytest.raises(LostAnswerError, match="makes no second job") as caught:
            client.jobs.submit(scan)
        (key,) = set(losing.keys)
        assert f"key='{key}'" in caught.value.do
        assert str(uuid.UUID(key)) == key
        job = client.jobs.submit(scan, key=key)
    assert losing.ids == {job.id}


class HangingUp(httpx.BaseTransport):
    """Takes none of a request, and counts them."""

    def __init__(self, error: type[httpx.TransportError]) -> None:
        self.asked, self._error = 0, error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        raise self._error("no", request=request)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.WriteError, httpx.WriteTimeout])
def test_what_cannot_have_made_a_job_is_not_sent_again(scan: Path, error: type[httpx.TransportError]) -> None:
    transport = HangingUp(error)
    with Client(transport=transport) as client, pytest.raises(UnreachableError) as caught:
        client.jobs.submit(scan)
    assert transport.asked == 1
    assert not isinstance(caught.value, LostAnswerError)


def test_jobs_are_listed_latest_first(client: Client, scan: Path) -> None:
    ids = [client.jobs.submit(scan).id for _ in range(3)][::-1]
    for id in ids:
        client.jobs.wait(id)
    assert [job.id for job in client.jobs.list()][:3] == ids
    assert [job.id for job in client.jobs.list(["done"], limit=2)] == ids[:2]
    assert [job.id for job in client.jobs.list(["cancelled", "done"], limit=1, offset=1)] == ids[1:2]
    assert client.jobs.list(["parked"]) == ()


def test_cancelling_what_is_done_keeps_its_results(client: Client, done: RemoteJob, tmp_path: Path) -> None:
    assert client.jobs.cancel(done) == done
    client.jobs.download(done, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_has_not_ended_is_neither_deleted_nor_cancelled(state: str) -> None:
    with (
        Client(transport=telling(state=state)) as client,
        pytest.raises(UsageError, match=rf"one that has ended, got one that is {state}; cancel it first"),
    ):
        client.jobs.delete(ID)


@pytest.mark.parametrize(
    ("last", "error", "said"),
    [
        (
            ended("failed", "input", "/srv/x/volume_1.nii.gz: expected finite values, got NaN; give nan_as"),
            InputError,
            "{scan}: expected finite values, got NaN; give nan_as",
        ),
        (ended("failed", "timeout", "run: expected an end, got none; wait"), TimeLimitError, "run: expected an end"),
        (ended("failed", "usage", "a line of another form"), UsageError, "got a line of another form"),
        (ended("parked", "worker-lost", "the worker was lost while it ran this job"), RemoteError, "try the job again"),
        (ended("parked", "internal", "an unexpected KeyError"), RemoteError, "job {id}: .*an unexpected KeyError"),
        (ended("failed", "of-the-future", "odd"), RemoteError, "odd"),
        ({"state": "failed"}, RemoteError, "failed for no reason"),
        ({"state": "cancelled"}, CancelledError, "to stop"),
    ],
)
def test_a_job_that_comes_to_nothing_raises_its_own_error(
    tmp_path: Path, last: dict[str, object], error: type[VoxportError], said: str
) -> None:
    calls: list[RemoteJob] = []
    scan = tmp_path / "scan.nii.gz"
    said = said.format(scan=scan, id=ID)
    job = remote_job(TOLD, "http://server", [scan])
    with Client(transport=telling(**last)) as client:
        with pytest.raises(error, match=said):
            client.jobs.wait(job, on_progress=calls.append)
        assert calls[-1].state == last["state"]
        assert type(calls[-1].error) is error
        with pytest.raises(error, match=said):
            client.jobs.download(job, tmp_path / "mask.nii.gz")
    assert present(tmp_path) == []


def test_a_job_that_waits_for_its_next_attempt_says_why() -> None:
    data = TOLD | ended("queued", "output", "results: expected room, got a full disk; make some")
    job = remote_job(data, "http://server")
    assert job.failure == JobFailure("output", "results: expected room, got a full disk; make some")
    assert job.error is None


@pytest.mark.parametrize(
    ("job", "outputs", "said"),
    [
        ({"state": "queued"}, {}, "one that is done, got one that is queued; wait"),
        (DONE, {"probabilities": "p.nii.gz"}, "one with probabilities, got one without; submit"),
    ],
)
def test_results_that_are_not_there(tmp_path: Path, job: dict[str, Any], outputs: dict[str, str], said: str) -> None:
    places = {output: tmp_path / name for output, name in outputs.items()}
    with Client(transport=telling(**job)) as client, pytest.raises(UsageError, match=f"job {ID}: expected {said}"):
        client.jobs.download(ID, tmp_path / "mask.nii.gz", outputs=places)
    assert present(tmp_path) == []


@pytest.fixture
def closed() -> Iterator[Client]:
    """A client of which nothing must be sent."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.method} {request.url} was sent")

    with Client(transport=httpx.MockTransport(answer)) as client:
        yield client


@pytest.mark.parametrize("id", ["", "../health", "a/b", "a b", "-a", "a\n", "é", "a" * 101, "?x"])
def test_what_is_no_jobs_id_is_not_sent(closed: Client, id: str, tmp_path: Path) -> None:
    for ask in (closed.jobs.get, closed.jobs.wait, closed.jobs.cancel, closed.jobs.retry, closed.jobs.delete):
        with pytest.raises(UsageError, match="the id of a job"):
            ask(id)
    with pytest.raises(UsageError, match="the id of a job"):
        closed.jobs.download(id, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("key", ["", "a" * 256, "höflich", "line\nend", " a", "a ", "\x7f"])
def test_what_is_no_key_of_a_request_is_not_sent(closed: Client, scan: Path, key: str) -> None:
    with pytest.raises(UsageError, match="key: expected 1 to 255 printable ASCII"):
        closed.jobs.submit(scan, key=key)


def test_what_makes_no_sense_is_not_sent(closed: Client, scan: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    with pytest.raises(UsageError, match="masks"):
        closed.jobs.submit(scan, outputs=["masks"])
    with pytest.raises(UsageError, match="NAME:VERSION"):
        closed.jobs.submit(scan, model="model.onnx")
    with pytest.raises(UsageError, match="at least one"):
        closed.jobs.submit([])
    with pytest.raises(UsageError, match=r"some of queued, running.*got ended"):
        closed.jobs.list(["queued", "ended"])
    for limit in (0, 1001):
        with pytest.raises(UsageError, match=f"1 to 1000, got {limit}"):
            closed.jobs.list(limit=limit)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="timeout_seconds"):
            closed.jobs.wait(ID, timeout_seconds=seconds)
        with pytest.raises(UsageError, match="patience_seconds"):
            closed.jobs.wait(ID, patience_seconds=seconds)
    with pytest.raises(OutputError, match="no such folder"):
        closed.jobs.download(ID, tmp_path / "nowhere" / "mask.nii.gz")
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        closed.jobs.download(ID, mask, outputs={"statistics": tmp_path / "s.txt"})


def test_a_mask_does_not_replace_what_it_was_made_from(client: Client, done: RemoteJob, scan: Path) -> None:
    with pytest.raises(UsageError, match="an input"):
        client.jobs.download(done, scan)
