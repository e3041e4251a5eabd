"""Jobs on a server that keeps the contract: what goes out and comes back, and what is refused before anything does."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from voxport.client import Client, LostAnswerError, RemoteError, RemoteJob, UnreachableError
from voxport.domain.errors import (
    CancelledError,
    InputError,
    OutputError,
    TimeLimitError,
    UnknownJobError,
    UsageError,
    VoxportError,
)
from voxport.domain.job import JobFailure

from .conftest import InProcess
from .standin import Standin, serving

UNKNOWN = "0" * 8 + "-0000-0000-0000-" + "0" * 12


def present(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def ended(state: str, kind: str, detail: str) -> dict[str, object]:
    """The last step of a job that comes to nothing."""
    problem = {"type": f"urn:voxport:problem:{kind}", "title": "A title", "detail": detail}
    return {"state": state, "problem": problem}


@pytest.fixture
def standin() -> Standin:
    return Standin()


@pytest.fixture
def client(standin: Standin) -> Iterator[Client]:
    with Client(transport=InProcess(standin.app())) as client:
        yield client


def test_a_job_from_its_submission_to_its_mask(standin: Standin, scan: Path, tmp_path: Path) -> None:
    calls: list[RemoteJob] = []
    with serving(standin.app()) as url, Client(url) as client:
        submitted = client.jobs.submit(scan)
        done = client.jobs.wait(submitted, on_progress=calls.append)
        report = client.jobs.download(done, tmp_path / "mask.nii.gz")
        client.segment(scan, tmp_path / "at_once.nii.gz")
    assert (submitted.state, submitted.position, done.state) == ("queued", 1, "done")
    seen = [(job.state, job.position, job.tiles_done) for job in calls]
    told = [("queued", 1, 0), ("queued", 0, 0), ("running", None, 0), ("running", None, 1), ("running", None, 3)]
    assert seen == [*told, ("done", None, 4)]
    assert calls[-1] == done
    assert (tmp_path / "mask.nii.gz").read_bytes() == (tmp_path / "at_once.nii.gz").read_bytes()
    sha256 = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert report["inputs"] == [{"name": str(scan), "sha256": sha256}]
    assert present(tmp_path) == sorted([scan.name, "at_once.nii.gz", "mask.nii.gz"])


def test_what_is_known_of_a_job(client: Client, scan: Path) -> None:
    job = client.jobs.submit(scan, outputs=["probabilities"])
    sha256 = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert [(entry.name, entry.sha256) for entry in job.inputs] == [(str(scan), sha256)]
    assert job.volumes == (scan,)
    assert job.outputs == ("mask", "probabilities", "statistics", "preview", "report")
    assert (job.model, job.attempts, job.eta_seconds) == ("two-photon-vessels:1.1.0", 0, 7.25)
    assert job.submitted == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert (job.started, job.ended, job.expires, job.failure, job.error) == (None, None, None, None, None)
    assert (dict(job.results), job.cancelling, job.has_ended) == ({}, False, False)
    done = client.jobs.wait(job)
    assert set(done.results) == set(job.outputs)
    assert (done.started, done.ended, done.expires) == tuple(datetime(2026, 3, 1, h, tzinfo=UTC) for h in (13, 14, 15))
    assert (done.error, done.has_ended, done.eta_seconds) == (None, True, None)
    assert {done, job, done} == {job, done}


def test_a_job_by_its_id_alone_has_the_servers_names(client: Client, scan: Path, tmp_path: Path) -> None:
    id = client.jobs.submit(scan).id
    job = client.jobs.wait(id)
    assert ([entry.name for entry in job.inputs], job.volumes) == (["volume_1.nii.gz"], ())
    report = client.jobs.download(id, tmp_path / "mask.nii.gz")
    assert report["inputs"][0]["name"] == "volume_1.nii.gz"
    assert report["warnings"] == ["volume_1.nii.gz: only a threshold was applied"]


def test_fields_go_out_as_the_contract_spells_them(client: Client, standin: Standin, scan: Path) -> None:
    stages = []
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
    assert standin.seen == [
        {
            "model": ["two-photon-vessels:1.0.0"],
            "overlap": ["0.25"],
            "patch": ["96,96,16"],
            "blending": ["halo"],
            "threshold": ["0.5"],
            "nan_as": ["0.0"],
            "outputs": ["mask", "probabilities", "report"],
            "files": ["volume_1.nii.gz", "volume_2.nii.gz"],
        }
    ]
    assert standin.queue.seen == ["case 7/2026"]
    size = 2 * scan.stat().st_size
    assert {stage for stage, _, _ in stages} == {"upload"}
    assert stages[-1] == ("upload", size, size)


def test_everything_beside_the_mask(client: Client, scan: Path, tmp_path: Path) -> None:
    job = client.jobs.wait(client.jobs.submit(scan, outputs=["probabilities"]))
    names = {"probabilities": "p.nii.gz", "statistics": "s.csv", "preview": "p.png", "report": "r.json"}
    calls: list[tuple[str, int, int]] = []
    report = client.jobs.download(
        job,
        tmp_path / "mask.nii.gz",
        outputs={output: tmp_path / name for output, name in names.items()},
        on_progress=lambda *stage: calls.append(stage),
    )
    assert present(tmp_path) == sorted([scan.name, "mask.nii.gz", *names.values()])
    labels = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj).argmax(axis=-1), labels)
    with (tmp_path / "s.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["voxels"]) == report["statistics"]["labels"][0]["voxels"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert report["warnings"] == [f"{scan}: only a threshold was applied"]
    written = {entry["name"]: entry["sha256"] for entry in report["outputs"]}
    assert written == {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / name for name in ("mask.nii.gz", "p.nii.gz", "s.csv", "p.png"))
    }
    mask_bytes = (tmp_path / "mask.nii.gz").stat().st_size
    assert ("download", mask_bytes, mask_bytes) in calls


def test_names_that_ask_for_plain_volumes_and_json(client: Client, scan: Path, tmp_path: Path) -> None:
    job = client.jobs.wait(client.jobs.submit(scan))
    client.jobs.download(job, tmp_path / "packed.nii.gz")
    report = client.jobs.download(job, tmp_path / "plain.nii", outputs={"statistics": tmp_path / "s.json"})
    assert (tmp_path / "plain.nii").read_bytes() == gzip.decompress((tmp_path / "packed.nii.gz").read_bytes())
    assert json.loads((tmp_path / "s.json").read_text())["labels"] == report["statistics"]["labels"]


def test_the_mask_appears_last(client: Client, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = client.jobs.wait(client.jobs.submit(scan))
    order: list[str] = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    client.jobs.download(job, tmp_path / "mask.nii.gz", outputs={"preview": tmp_path / "p.png"})
    assert order == ["p.png", "mask.nii.gz"]


def test_a_key_makes_one_job_however_often_it_comes(client: Client, standin: Standin, scan: Path) -> None:
    first, again = (client.jobs.submit(scan, key="case-7").id for _ in range(2))
    assert first == again
    with pytest.raises(UsageError, match=r"key case-7: .*another; take a new key"):
        client.jobs.submit([scan, scan], key="case-7")
    assert len({first, client.jobs.submit(scan).id, client.jobs.submit(scan).id}) == 3
    assert len(set(standin.queue.seen)) == 3


class Losing(httpx.BaseTransport):
    """The network loses the first answers to submissions; where nothing connects, the server has not heard them."""

    def __init__(self, standin: Standin, *errors: type[httpx.TransportError]) -> None:
        self._transport, self._errors = InProcess(standin.app()), list(errors)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        error = self._errors.pop(0) if request.method == "POST" and self._errors else None
        answer = None if error is httpx.ConnectError else self._transport.handle_request(request)
        if error is not None or answer is None:
            raise (error or httpx.ConnectError)("lost", request=request)
        return answer


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout])
def test_a_lost_answer_is_asked_for_once_more(standin: Standin, scan: Path, error: type[httpx.TransportError]) -> None:
    with Client(transport=Losing(standin, error)) as client:
        job = client.jobs.submit(scan)
        assert list(standin.queue.jobs) == [job.id]
        assert len(standin.queue.seen) == 2
        assert len(set(standin.queue.seen)) == 1
        with pytest.raises(LostAnswerError), Client(transport=Losing(standin, error)) as other:
            other.segment(scan, scan.with_name("mask.nii.gz"))


@pytest.mark.parametrize("second", [httpx.ReadError, httpx.ConnectError])
def test_where_that_fails_too_the_error_has_the_key(
    standin: Standin, scan: Path, second: type[httpx.TransportError]
) -> None:
    with Client(transport=Losing(standin, httpx.ReadError, second)) as client:
        with pytest.raises(LostAnswerError, match="makes no second job") as caught:
            client.jobs.submit(scan)
        (key,) = set(standin.queue.seen)
        assert f"key='{key}'" in caught.value.do
        assert str(uuid.UUID(key)) == key
        job = client.jobs.submit(scan, key=key)
    assert list(standin.queue.jobs) == [job.id]


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
    first, second, third = (client.jobs.submit(scan) for _ in range(3))
    client.jobs.cancel(second)
    assert [job.id for job in client.jobs.list()] == [third.id, second.id, first.id]
    assert [job.id for job in client.jobs.list(limit=1)] == [third.id]
    assert [job.id for job in client.jobs.list(["queued"])] == [third.id, first.id]
    assert [job.id for job in client.jobs.list(["queued", "cancelled"], limit=2)] == [third.id, second.id]
    assert client.jobs.list(["parked"]) == ()


def test_a_job_that_is_cancelled_and_tried_again(client: Client, scan: Path, tmp_path: Path) -> None:
    job = client.jobs.submit(scan)
    assert client.jobs.cancel(job).state == "cancelled"
    assert client.jobs.cancel(job.id).state == "cancelled"
    with pytest.raises(CancelledError):
        client.jobs.wait(job)
    with pytest.raises(CancelledError):
        client.jobs.download(job, tmp_path / "mask.nii.gz")
    again = client.jobs.retry(job)
    assert (again.id, again.state, again.volumes) == (job.id, "queued", (scan,))
    with pytest.raises(UsageError, match="queued"):
        client.jobs.retry(job)
    assert client.jobs.wait(again).state == "done"


def test_cancelling_what_is_done_keeps_its_results(client: Client, scan: Path, tmp_path: Path) -> None:
    job = client.jobs.wait(client.jobs.submit(scan))
    assert client.jobs.cancel(job) == job
    client.jobs.download(job, tmp_path / "mask.nii.gz")


def test_a_job_is_deleted_once_it_has_ended(client: Client, standin: Standin, scan: Path) -> None:
    job = client.jobs.submit(scan)
    with pytest.raises(UsageError, match=r"one that has ended, got one that is queued; cancel it first"):
        client.jobs.delete(job)
    assert standin.queue.jobs[job.id].state == "queued"
    client.jobs.wait(job)
    client.jobs.delete(job)
    assert not standin.queue.jobs
    for ask in (client.jobs.get, client.jobs.delete, client.jobs.cancel, client.jobs.retry, client.jobs.wait):
        with pytest.raises(UnknownJobError, match=job.id):
            ask(job)


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
    client: Client,
    standin: Standin,
    scan: Path,
    tmp_path: Path,
    last: dict[str, object],
    error: type[VoxportError],
    said: str,
) -> None:
    standin.queue.ends = last
    calls: list[RemoteJob] = []
    job = client.jobs.submit(scan)
    said = said.format(scan=scan, id=job.id)
    with pytest.raises(error, match=said):
        client.jobs.wait(job, on_progress=calls.append)
    assert calls[-1].state == last["state"]
    assert type(calls[-1].error) is error
    with pytest.raises(error, match=said):
        client.jobs.download(job, tmp_path / "mask.nii.gz")
    assert present(tmp_path) == [scan.name]


def test_a_job_that_waits_to_be_tried_again_says_why(client: Client, standin: Standin, scan: Path) -> None:
    standin.queue.ends = ended("queued", "output", "results: expected room, got a full disk; make some")
    job = client.jobs.submit(scan)
    standin.queue.jobs[job.id].steps = [standin.queue.ends]
    job = client.jobs.get(job)
    assert job.failure == JobFailure("output", "results: expected room, got a full disk; make some")
    assert job.error is None


def test_results_that_are_not_there(client: Client, scan: Path, tmp_path: Path) -> None:
    job = client.jobs.submit(scan)
    with pytest.raises(UsageError, match=rf"job {job.id}: expected one that is done, got one that is queued; wait"):
        client.jobs.download(job, tmp_path / "mask.nii.gz")
    client.jobs.wait(job)
    with pytest.raises(UsageError, match="one with probabilities, got one without; submit"):
        client.jobs.download(job, tmp_path / "mask.nii.gz", outputs={"probabilities": tmp_path / "p.nii.gz"})
    assert present(tmp_path) == [scan.name]


def test_refusals_are_the_librarys_errors(standin: Standin, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("no volume")
    standin.keys = ("s3cret",)
    app = standin.app()
    with Client(transport=InProcess(app)) as client, pytest.raises(UsageError, match="VOXPORT_API_KEY"):
        client.jobs.submit(scan)
    with Client(api_key="s3cret", transport=InProcess(app)) as client:
        with pytest.raises(InputError, match=r"text\.nii: expected a NIfTI volume"):
            client.jobs.submit(tmp_path / "text.nii")
        with pytest.raises(UnknownJobError, match=UNKNOWN):
            client.jobs.get(UNKNOWN)
    assert not standin.queue.jobs


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
            closed.jobs.wait(UNKNOWN, timeout_seconds=seconds)
        with pytest.raises(UsageError, match="patience_seconds"):
            closed.jobs.wait(UNKNOWN, patience_seconds=seconds)
    with pytest.raises(OutputError, match="no such folder"):
        closed.jobs.download(UNKNOWN, tmp_path / "nowhere" / "mask.nii.gz")
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        closed.jobs.download(UNKNOWN, mask, outputs={"statistics": tmp_path / "s.txt"})


def test_a_mask_does_not_replace_what_it_was_made_from(client: Client, scan: Path) -> None:
    job = client.jobs.wait(client.jobs.submit(scan))
    with pytest.raises(UsageError, match="an input"):
        client.jobs.download(job, scan)
