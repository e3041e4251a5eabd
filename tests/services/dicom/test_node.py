"""The node's steps, with a clock of its own, and killed between any two things that it does."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from zipfile import ZipFile

import pytest
from voxport.domain.dicom_series import Instance, SeriesFacts, SeriesRule
from voxport.domain.errors import ModelError, UnknownJobError
from voxport.domain.job import Job, StoredFile, begun, finished
from voxport.ports.model import Model
from voxport.services.dicom.node import DicomNode, NodeTimes
from voxport.services.jobs.submit import JobPorts, forget_job
from voxport.testing.affine import affine_card
from voxport.testing.blobs import MemoryBlobs
from voxport.testing.dicom_peer import RecordingPeer
from voxport.testing.job_queue_fake import MemoryJobQueue

SERIES, STUDY = "1.2.3", "1.2"
TIMES = NodeTimes(quiet=10, keep=100, retention=1000)
RULES = [SeriesRule(modality="CT", send_to="pacs")]


class Killed(BaseException):
    """The end of a process in the middle of what it did."""


class Bench:
    """What outlives a node: a queue, stored files, a peer and a clock. It kills nodes, if asked to."""

    def __init__(self, folder: Path) -> None:
        self.queue, self.blobs, self.peer = MemoryJobQueue(), MemoryBlobs(), RecordingPeer()
        self.folder, self.now, self.rules, self.missing = folder, 1000.0, RULES, False
        self.left = -1  # things that a node does until it is killed
        self.node = self.new_node()

    def new_node(self) -> DicomNode:
        """A node as after a start of the process."""
        self.left = -1
        ports = JobPorts(
            _Mortal(self, self.queue, "submit", "cancel"), _Mortal(self, self.blobs, "put", "delete_prefix")
        )
        peers = {"pacs": _Mortal(self, self.peer, "send")}
        self.node = DicomNode(self.rules, peers, TIMES, ports, self, self.find, lambda: self.now)
        return self.node

    def find(self, name: str | None) -> Model:
        """The model of the rules."""
        if self.missing:
            raise ModelError(str(name), expected="a model", got="none", do="add it")
        return Model(self.folder / "model.onnx", affine_card(1, 2), "0" * 64, "0" * 64)

    @contextmanager
    def new(self) -> Iterator[Path]:
        """A work folder."""
        with TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def clear(self) -> int:
        """As the port has it."""
        return 0

    def spend(self) -> None:
        """Count one thing done. After the last, nothing of the process happens any more, not even its cleaning up."""
        if self.left == 0:
            raise Killed
        self.left -= 1

    def receive(self, *uids: str, modality: str = "CT", series: str = SERIES, is_image: bool = True) -> None:
        for uid in uids:
            instance = Instance(uid, series, SeriesFacts(STUDY, modality, "words"), is_image)
            self.node.keep(instance, io.BytesIO(f"slice {uid}".encode()))

    def pass_time(self, seconds: float = 10.0) -> None:
        """Let time pass, then let the node do what is due."""
        self.now += seconds
        self.node.advance()

    def jobs(self) -> list[Job]:
        return [*reversed(self.queue.list())]

    def work(self, mask: bytes = b"") -> None:
        """Run every job that is queued, as a worker does; its mask has the names of its slices."""
        for job in self.jobs():
            if job.state == "queued":
                with self.blobs.open(job.case.inputs[0].blob) as file, ZipFile(io.BytesIO(file.read())) as archive:
                    content = mask or " ".join(sorted(archive.namelist())).encode()
                blob = f"{job.case.folder}/results-1/mask.dcm"
                result = StoredFile("mask.dcm", blob, self.blobs.put(blob, io.BytesIO(content)))
                self.set(job.id, lambda job, result=result: finished(begun(job, self.now), self.now, {"mask": result}))

    def set(self, id: str, change: Any) -> None:
        """Change a job as its worker does."""
        self.queue._change(id, None, change)

    def run(self) -> None:
        """Do all that is left to do."""
        for _ in range(8):
            self.pass_time()
            self.work()
        self.pass_time(600)
        self.pass_time()


class _Mortal:
    """A port of a bench's; after some of its methods the process may be gone."""

    def __init__(self, bench: Bench, part: Any, *methods: str) -> None:
        self._bench, self._part, self._methods = bench, part, methods

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name not in self._methods:
            return method  # no other method is called where an error is cleaned up

        def call(*given: Any, **named: Any) -> Any:
            self._bench.spend()
            result = method(*given, **named)
            self._bench.spend()
            return result

        return call


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_series_is_submitted_when_nothing_of_it_comes_any_more(bench: Bench) -> None:
    bench.receive("1.1")
    bench.pass_time(9)
    bench.receive("1.2")
    bench.pass_time(9)
    assert bench.jobs() == []
    bench.pass_time(1)
    (job,) = bench.jobs()
    assert (job.owner, job.case.mask_format, job.case.model) == ("dicom", "dcm", affine_card(1, 2).reference)
    with bench.blobs.open(job.case.inputs[0].blob) as file, ZipFile(io.BytesIO(file.read())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "1.1.dcm": b"slice 1.1",
            "1.2.dcm": b"slice 1.2",
        }


def test_its_mask_is_sent_once(bench: Bench) -> None:
    bench.receive("1.1", "1.2")
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm 1.2.dcm"]
    bench.receive("1.2", "1.1")  # sent again by somebody
    bench.run()
    bench.new_node()
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm 1.2.dcm"]


def test_what_comes_late_is_segmented_with_the_rest_and_the_first_job_is_cancelled(bench: Bench) -> None:
    bench.receive("1.1", "1.2")
    bench.pass_time()
    bench.receive("1.3")
    bench.run()
    assert [job.state for job in bench.jobs()] == ["cancelled", "done"]
    assert bench.peer.sent == [b"1.1.dcm 1.2.dcm 1.3.dcm"]


def test_what_comes_after_the_others_were_deleted_is_not_segmented_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.receive("1.1", "1.2")
    bench.run()
    bench.pass_time(TIMES.keep)
    assert not bench.blobs.names(f"dicom/{SERIES}/instances")
    bench.receive("1.3")
    bench.run()
    assert len(bench.peer.sent) == 1
    assert "send the whole series again" in caplog.text
    bench.receive("1.1", "1.2", "1.3")
    bench.run()
    assert bench.peer.sent[1:] == [b"1.1.dcm 1.2.dcm 1.3.dcm"]


def test_after_the_retention_nothing_of_a_series_is_left(bench: Bench) -> None:
    bench.receive("1.1")
    bench.run()
    bench.pass_time(TIMES.retention)
    assert bench.blobs.names("dicom") == ()
    bench.receive("1.1")
    bench.run()
    assert len(bench.peer.sent) == 2


def test_what_no_rule_takes_is_not_kept_and_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "voxport.dicom"):
        bench.receive("1.1", "1.2", modality="MR")
        bench.receive("1.3", series="1.9", is_image=False)
    assert bench.blobs.names("dicom") == ()
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["no rule takes it; it is not kept"] * 2


def test_a_failed_job_that_an_operator_tries_again_is_sent(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.receive("1.1")
    bench.pass_time()
    (job,) = bench.jobs()
    bench.set(job.id, lambda job: begun(job, bench.now).to("failed", ended=bench.now))
    bench.pass_time(2)
    assert "its job was failed" in caplog.text
    bench.queue.retry(job.id)
    bench.pass_time(60)
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm"]


def test_a_job_that_was_deleted_is_an_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.receive("1.1")
    bench.pass_time()
    (job,) = bench.jobs()
    bench.queue.cancel(job.id)
    forget_job(job.id, None, ports=JobPorts(bench.queue, bench.blobs))
    with pytest.raises(UnknownJobError):
        bench.queue.get(job.id)
    bench.run()
    assert caplog.text.count("its job was deleted") == 1
    assert bench.peer.sent == []
    bench.pass_time(TIMES.retention)
    assert bench.blobs.names("dicom") == ()


def test_a_model_that_is_missing_for_a_while_delays_its_series_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.missing = True
    bench.receive("1.1")
    bench.pass_time()
    assert "expected a model, got none; add it" in caplog.text
    bench.missing = False
    bench.pass_time(60)
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm"]


def test_a_series_that_fails_in_a_way_that_nobody_expected_does_not_stop_the_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.receive("1.1", series="1.5")
    bench.receive("2.1", series="1.6")
    bench.blobs.put("dicom/1.5/record", io.BytesIO(b"no JSON"))
    bench.run()
    assert bench.peer.sent == [b"2.1.dcm"]
    assert "an unexpected JSONDecodeError" in caplog.text


def test_a_peer_that_fails_is_tried_again_and_asked_first(bench: Bench) -> None:
    bench.peer.fails = True
    bench.receive("1.1")
    bench.run()
    assert bench.peer.sent == []
    bench.peer.fails = False
    bench.pass_time(600)
    assert bench.peer.sent == [b"1.1.dcm"]


def test_a_peer_whose_answer_was_lost_is_not_sent_the_mask_again(bench: Bench) -> None:
    bench.peer.loses_answers = True
    bench.receive("1.1")
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm"]


def test_a_peer_that_answers_no_questions_is_sent_the_same_object_again(bench: Bench) -> None:
    bench.peer.loses_answers, bench.peer.answers = True, False
    bench.receive("1.1")
    bench.pass_time()
    bench.work()
    for _ in range(4):
        bench.pass_time()
    assert set(bench.peer.sent) == {b"1.1.dcm"}
    assert len(bench.peer.sent) > 1


def test_a_peer_that_the_settings_name_no_longer_keeps_the_mask_waiting(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.rules = [SeriesRule(send_to="gone")]
    bench.new_node()
    bench.receive("1.1")
    bench.run()
    assert "no peer is named gone" in caplog.text
    assert bench.peer.sent == []


def test_killed_between_any_two_things_it_loses_nothing_and_sends_once(tmp_path: Path) -> None:
    """Each blob written or deleted, each job submitted, each object sent: the process ends before or after it."""
    for count in range(1000):
        bench = Bench(tmp_path)
        bench.left = count  # a node is killed before or after each thing
        try:
            bench.receive("1.1", "1.2", "1.3")
            bench.run()
            break  # it did all without being killed
        except Killed:
            bench.new_node()
            bench.receive("1.1", "1.2", "1.3")  # the sender had no answer to all, or sends all again
            bench.run()
        assert bench.peer.sent == [b"1.1.dcm 1.2.dcm 1.3.dcm"], count
        live = [job for job in bench.jobs() if job.state != "cancelled"]
        assert len(live) == 1, count
    assert count > 15


def test_the_log_names_no_uid(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        bench.receive("1.2.840.9999.1", series="1.2.840.8888")
        bench.blobs.delete_prefix("dicom/1.2.840.8888/record")
        bench.run()
        bench.receive("1.2.840.9999.1", series="1.2.840.8888")
        bench.run()
    assert caplog.records
    for record in caplog.records:
        text = record.getMessage() + repr(getattr(record, "fields", ""))
        assert "840.8888" not in text
        assert "840.9999" not in text
        assert STUDY not in text


class _Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002 - the signature is a stream's
        raise OSError(5, "Input/output error")


def test_an_instance_that_cannot_be_stored_is_the_senders_to_send_again(bench: Bench) -> None:
    broken: IO[bytes] = _Unreadable()
    with pytest.raises(OSError, match="Input/output"):
        bench.node.keep(Instance("1.1", SERIES, SeriesFacts(STUDY, "CT")), broken)
    bench.pass_time()
    assert bench.jobs() == []
    bench.run()
    assert bench.blobs.names("dicom") == ()


class Ticking(threading.Event):
    """Lets a bench's time pass where it is waited for, and is set after so many waits."""

    def __init__(self, bench: Bench, waits: int) -> None:
        super().__init__()
        self._bench, self._left = bench, waits

    def wait(self, timeout: float | None = None) -> bool:
        if self._left == 0:
            return True
        self._left -= 1
        self._bench.now += timeout or 0
        return False


def test_it_looks_each_second_until_it_is_stopped(bench: Bench) -> None:
    bench.receive("1.1")
    bench.node.run(Ticking(bench, 9))
    assert bench.jobs() == []
    bench.node.run(Ticking(bench, 1))
    assert [job.state for job in bench.jobs()] == ["queued"]


def test_what_comes_while_its_series_is_submitted_is_waited_for_as_ever(bench: Bench) -> None:
    def find(name: str | None) -> Model:
        bench.node.find_model = bench.find
        bench.receive("1.2")
        return bench.find(name)

    bench.node.find_model = find
    bench.receive("1.1")
    bench.pass_time()
    bench.pass_time(9)
    assert [job.state for job in bench.jobs()] == ["queued"]
    bench.pass_time(1)
    assert [job.state for job in bench.jobs()] == ["cancelled", "queued"]
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm 1.2.dcm"]


def test_what_comes_while_its_series_is_about_to_be_deleted_is_segmented_with_the_rest(bench: Bench) -> None:
    bench.receive("1.1")
    bench.pass_time()
    bench.work()
    bench.pass_time()
    bench.pass_time()
    assert bench.peer.sent == [b"1.1.dcm"]
    names = bench.blobs.names

    def names_before_another(prefix: str = "") -> tuple[str, ...]:
        found = names(prefix)
        bench.blobs.names = names  # type: ignore[method-assign]
        bench.receive("1.2")
        return found

    bench.blobs.names = names_before_another  # type: ignore[method-assign]
    bench.pass_time(TIMES.retention)
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm", b"1.1.dcm 1.2.dcm"]


def test_a_series_that_changed_rules_no_longer_take_is_not_segmented(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.receive("1.1")
    bench.rules = [SeriesRule(modality="MR", send_to="pacs")]
    bench.new_node()
    with caplog.at_level(logging.INFO, "voxport.dicom"):
        bench.run()
    assert bench.jobs() == []
    assert caplog.text.count("no rule takes it any more") == 1
    bench.pass_time(TIMES.retention)
    assert bench.blobs.names("dicom") == ()


def test_a_job_that_was_deleted_before_its_mask_was_sent_is_an_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.peer.fails = True
    bench.receive("1.1")
    bench.pass_time()
    bench.work()
    bench.pass_time()
    bench.pass_time()
    assert "sent again in" in caplog.text
    (job,) = bench.jobs()
    forget_job(job.id, None, ports=JobPorts(bench.queue, bench.blobs))
    bench.peer.fails = False
    bench.pass_time(600)
    bench.run()
    assert caplog.text.count("its job was deleted") == 1
    assert bench.peer.sent == []


def test_an_error_of_the_system_is_logged_without_the_name_of_the_file(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def full(name: str | None) -> Model:  # noqa: ARG001 - as find_model
        raise OSError(28, "No space left on device", f"/scratch/{SERIES}")

    bench.node.find_model = full
    bench.receive("1.1")
    bench.pass_time()
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["no space left on device"]
    bench.node.find_model = bench.find
    bench.pass_time(60)
    bench.run()
    assert bench.peer.sent == [b"1.1.dcm"]
