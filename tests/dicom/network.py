"""Nodes, senders and archives on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from tests.cli.conftest import environment
from tests.rest.serving import free_port

PATIENCE = 120.0
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass
class Node:
    """A process of ``voxport dicom``: its port, its log and where it keeps what arrives."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    blobs: Path

    def lines(self) -> list[dict[str, Any]]:
        """Lines of its log, also those of processes before it in the same folder."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]

    def states(self) -> list[str]:
        """States in which its series are, as the log says."""
        return [line["state"] for line in self.lines() if line.get("event") == "dicom" and "state" in line]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait; AssertionError with the log where the condition never holds."""
        wait_until(condition, lambda: self.log.read_text(encoding="utf-8")[-4000:], self.process)

    def kill(self) -> None:
        """End it without a chance to say anything, with its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def wait_until(
    condition: Callable[[], object], told: Callable[[], str], process: subprocess.Popen[bytes] | None = None
) -> None:
    """Ask twenty times a second until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        with suppress(FileNotFoundError):  # a file that the process deleted while the condition looked at it
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError(f"never came about; the log:\n{told()}")


def start_node(folder: Path, settings: dict[str, Any], *arguments: str, **env: str) -> Node:
    """Start a node in a folder, with its own settings file; nothing answers yet."""
    file = folder / "settings.json"  # JSON is YAML
    file.write_text(json.dumps({"dicom": {"quiet_seconds": 0.5, **settings}}), encoding="utf-8")
    port, log = free_port(), folder / "node.log"
    own = {
        "VOXPORT_SETTINGS_FILE": str(file),
        "VOXPORT_JOBS__DATABASE": f"sqlite:///{folder / 'jobs.sqlite'}",
        "VOXPORT_JOBS__BLOBS": str(folder / "blobs"),
        "VOXPORT_JOBS__LEASE_SECONDS": "2",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "voxport", "dicom", "--port", str(port), *arguments],
            cwd=folder,
            env=environment(folder) | own | env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Node(process, port, log, folder / "blobs")


@contextmanager
def running_node(folder: Path, settings: dict[str, Any], *arguments: str, **env: str) -> Iterator[Node]:
    """A node from when it listens on; it is gone at the end."""
    node = start_node(folder, settings, *arguments, **env)
    try:
        node.wait_until(lambda: f"127.0.0.1:{node.port}" in node.log.read_text(encoding="utf-8"))
        yield node
    finally:
        if node.process.poll() is None:
            node.kill()


def send_files(port: int, files: Sequence[Path], *, title: str = "VOXPORT", calling: str = "CT1") -> list[int]:
    """Send files by C-STORE as a scanner does; the statuses. ConnectionError where the association ends."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    entity = AE(calling)
    for kind, syntax in {(header.SOPClassUID, header.file_meta.TransferSyntaxUID) for header in headers}:
        entity.add_requested_context(kind, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=title)
    if not association.is_established:
        raise ConnectionError("no association")
    statuses = []
    try:
        for file in files:
            answer = association.send_c_store(file)
            if "Status" not in answer:
                raise ConnectionError("the association ended")
            statuses.append(int(answer.Status))
    finally:
        if association.is_established:
            association.release()
    return statuses


@dataclass
class Archive:
    """A peer that counts what it is sent, and answers C-FIND by what it has.

    Attributes:
        sent: each object that arrived, also one that it has already.
        before_answer: called when an object has been stored, before the sender is told.
        status: of the answers; what is refused is not stored.
    """

    title: str = "ARCHIVE"
    answers_questions: bool = True
    takes_label_maps: bool = True
    status: int = 0x0000
    sent: list[Any] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None
    port: int = 0
    server: Any = None

    def associations(self) -> list[Any]:
        """Those that are open."""
        return list(self.server.active_associations)

    @property
    def settings(self) -> dict[str, Any]:
        """How a node reaches it."""
        return {"aet": self.title, "host": "127.0.0.1", "port": self.port}

    def _store(self, event: Any) -> int:
        if self.status == 0x0000:
            self.sent.append(pydicom.dcmread(BytesIO(event.encoded_dataset())))
            self.before_answer()
        return self.status

    def _find(self, event: Any) -> Iterator[tuple[int, Any]]:
        wanted = event.identifier
        for found in [item for item in self.sent if item.SOPInstanceUID == wanted.SOPInstanceUID][:1]:
            answer = pydicom.Dataset()
            answer.QueryRetrieveLevel = "IMAGE"
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(answer, name, found[name].value)
            yield 0xFF00, answer

    @contextmanager
    def running(self) -> Iterator[Archive]:
        """Listen until the block ends."""
        entity = AE(self.title)
        kinds = [context.abstract_syntax or "" for context in AllStoragePresentationContexts]
        kinds = [kind for kind in kinds if kind != LABEL_MAP]
        contexts = [build_context(kind) for kind in (*kinds, *([LABEL_MAP] if self.takes_label_maps else []))]
        if self.answers_questions:
            contexts.append(build_context(StudyRootQueryRetrieveInformationModelFind))
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        server = entity.start_server(("127.0.0.1", 0), block=False, contexts=contexts, evt_handlers=handlers)
        assert server is not None
        self.server = server
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()


def after(count: int, then: Callable[[], object]) -> Callable[[], None]:
    """A function that calls another at its ``count``-th call."""
    calls = iter(range(1, count + 1))
    lock = threading.Lock()

    def call() -> None:
        with lock:
            number = next(calls, None)
        if number == count:
            then()

    return call
