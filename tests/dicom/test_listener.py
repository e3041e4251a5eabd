"""The receiver, in this process: what it takes, and what hostile or broken senders meet."""

from __future__ import annotations

import gc
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import IO, Any, cast

import psutil
import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]
from voxport.domain.dicom_series import Instance
from voxport.domain.errors import OutputError
from voxport.entrypoints.dicom.listener import Limits, listening

from .network import send_files, wait_until
from .series import FILES, as_new_series, head_ct

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
LOOPBACK = ("", ip_network("127.0.0.0/8"))


class Kept:
    """Keeps objects in memory, or fails with an error."""

    def __init__(self) -> None:
        self.instances: list[tuple[Instance, bytes]] = []
        self.error: Exception | None = None

    def __call__(self, instance: Instance, content: IO[bytes]) -> bool:
        if self.error is not None:
            raise self.error
        self.instances.append((instance, content.read()))
        return True


@contextmanager
def receiver(
    kept: Kept, *, senders: Any = (LOOPBACK,), associations: int = 4, most: int = 2**24, silence: float = 30.0
) -> Iterator[int]:
    limits = Limits(associations, most, silence)
    with listening(kept, "VOXPORT", ("127.0.0.1", 0), senders, limits) as port:
        yield port


def test_an_object_is_handed_on_as_the_file_that_it_was(tmp_path: Path) -> None:
    kept = Kept()
    (file,) = as_new_series(tmp_path, head_ct()[:1], SeriesDescription="Head", BodyPartExamined="HEAD")
    with receiver(kept) as port:
        assert send_files(port, [file]) == [0]
    ((instance, content),) = kept.instances
    stored, sent = pydicom.dcmread(BytesIO(content)), pydicom.dcmread(file)
    assert stored == sent
    assert (instance.uid, instance.series) == (sent.SOPInstanceUID, sent.SeriesInstanceUID)
    assert instance.is_image
    facts = instance.facts
    assert (facts.study, facts.modality, facts.description, facts.body_part) == (
        sent.StudyInstanceUID, "CT", "Head", "HEAD",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_jp2klossless"])
def test_compressed_images_are_taken_as_they_are(name: str) -> None:
    kept, file = Kept(), FILES / f"{name}.dcm"
    with receiver(kept) as port:
        assert send_files(port, [file]) == [0]
    stored, sent = pydicom.dcmread(BytesIO(kept.instances[0][1])), pydicom.dcmread(file)
    assert stored.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert stored.PixelData == sent.PixelData


def test_the_network_is_verified_by_c_echo() -> None:
    entity = AE("CT1")
    entity.add_requested_context(Verification)
    with receiver(Kept()) as port:
        association = entity.associate("127.0.0.1", port, ae_title="VOXPORT")
        assert association.send_c_echo().Status == 0
        association.release()


def send_raw(port: int, place: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Send any bytes as a CT image, under names that are right; the status."""
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)  # it does not look into the file
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, pydicom.uid.UID("1.2.3")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    with place.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(cast("Any", file), meta)
        file.write(content)
    entity = AE("CT1")
    entity.add_requested_context(CTImageStorage, meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="VOXPORT")
    try:
        return int(association.send_c_store(place).Status)
    finally:
        association.release()


def _elements(**values: Any) -> bytes:
    """A CT image's elements with other values; those that are None are left out."""
    dataset = pydicom.dcmread(head_ct()[0])
    for name, value in values.items():
        delattr(dataset, name)
        if value is not None:
            dataset.add(pydicom.DataElement(name, "UI", value, validation_mode=0))
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


@pytest.mark.parametrize(
    "values",
    [
        {"StudyInstanceUID": None},
        {"SeriesInstanceUID": "../../etc"},
        {"SOPInstanceUID": "1.2.3/../4"},
        {"SOPInstanceUID": "1" * 65},
        {"SeriesInstanceUID": ""},
    ],
)
def test_an_object_without_names_is_refused(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    with receiver(kept) as port:
        assert send_raw(port, tmp_path / "raw", _elements(**values), monkeypatch) == 0xC000
        assert send_raw(port, tmp_path / "raw", _elements(), monkeypatch) == 0
    assert len(kept.instances) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 400,
        b"\x08\x00\x16\x00UI\xff\xff1.2",
        bytes(1000),
        b"\x08\x00\x05\x10SQ\x00\x00\xff\xff\xff\xff" * 50,
        b"\x08\x00\x18\x00UL\x03\x00abc",
    ],
)
def test_damaged_data_are_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set of a message need not be one at all."""
    kept = Kept()
    with receiver(kept) as port:
        assert send_raw(port, tmp_path / "raw", content, monkeypatch) == 0xC000
    assert kept.instances == []


def test_what_cannot_be_kept_is_told_so_that_the_sender_sends_it_again(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    with receiver(kept) as port:
        for error in (OutputError.cannot_write("place", "no space"), OSError(28, "No space left on device")):
            kept.error = error
            assert send_files(port, head_ct()[:1]) == [0xA700]
        kept.error = None
        assert send_files(port, head_ct()[:1]) == [0]
    assert "no space" in caplog.text


def test_others_than_the_listed_senders_are_not_answered() -> None:
    listed, elsewhere = ("CT1", ip_network("127.0.0.1/32")), ("CT1", ip_network("10.0.0.0/8"))
    with receiver(Kept(), senders=[listed]) as port:
        assert send_files(port, head_ct()[:1]) == [0]
        with pytest.raises(ConnectionError):
            send_files(port, head_ct()[:1], calling="OTHER")
        with pytest.raises(ConnectionError):
            send_files(port, head_ct()[:1], title="ELSEWHERE")
    with receiver(Kept(), senders=[elsewhere]) as port, pytest.raises(ConnectionError):
        send_files(port, head_ct()[:1])


@pytest.mark.parametrize("name", ["", "CT1"])
def test_a_title_counts_at_its_own_address_alone(name: str) -> None:
    """CT2 may send from elsewhere, and this address may send as CT1."""
    here, elsewhere = ("CT1", ip_network("127.0.0.1/32")), ("CT2", ip_network("10.0.0.0/8"))
    kept, anyone = Kept(), (name, ip_network("10.1.0.0/16"))
    with receiver(kept, senders=[here, elsewhere, anyone]) as port:
        assert send_files(port, head_ct()[:1], calling="CT1") == [0]
        assert send_files(port, head_ct()[:1], calling="CT2") == [0x0124]
    assert len(kept.instances) == 1


def _closed(connection: socket.socket) -> bool:
    """Whether the other side closes a connection that nothing more is sent on."""
    connection.settimeout(30)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\x01",
        b"\x01\x00\x00\x00\x01\x00",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x7f\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_connection_that_says_nothing_more_is_closed(begun: bytes) -> None:
    with receiver(Kept(), silence=0.5) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(begun)
        assert _closed(connection)


def test_a_message_that_comes_byte_by_byte_is_cut_off() -> None:
    """Each byte is in time, but not the whole."""
    stop = threading.Event()
    with receiver(Kept(), silence=0.5) as port, socket.create_connection(("127.0.0.1", port)) as connection:

        def drip() -> None:
            try:
                connection.sendall(struct.pack(">BBL", 1, 0, 2**16))
                while not stop.wait(0.1):
                    connection.sendall(b"\x00")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert _closed(connection)
        finally:
            stop.set()
            thread.join()


def test_a_length_beyond_all_messages_is_not_believed() -> None:
    with receiver(Kept()) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + bytes(4096))
        assert _closed(connection)


def test_an_object_beyond_the_limit_ends_its_association_alone(tmp_path: Path) -> None:
    kept = Kept()
    (large,) = as_new_series(tmp_path, head_ct()[:1], PixelData=bytes(2**21), Rows=1024, Columns=1024)
    with receiver(kept, most=2**20) as port:
        with pytest.raises(ConnectionError):
            send_files(port, [large])
        assert send_files(port, head_ct()[:1]) == [0]
    assert len(kept.instances) == 1


def test_associations_that_never_end_leave_room_once_they_are_silent() -> None:
    entity = AE("CT1")
    entity.add_requested_context(Verification)
    with receiver(Kept(), associations=2, silence=1.0) as port:
        first, second = (entity.associate("127.0.0.1", port, ae_title="VOXPORT") for _ in range(2))
        assert first.is_established
        assert second.is_established
        third = entity.associate("127.0.0.1", port, ae_title="VOXPORT")
        assert not third.is_established
        wait_until(lambda: _is_taken(port), lambda: "no room")


def _is_taken(port: int) -> bool:
    try:
        return send_files(port, head_ct()[:1]) == [0]
    except ConnectionError:
        return False


def test_nothing_grows_with_connections_that_fail() -> None:
    process = psutil.Process()
    with receiver(Kept(), silence=0.3) as port:

        def fail(count: int) -> tuple[int, int]:
            for begun in [b"", b"\x01\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff"] * count:
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(begun)
            wait_until(lambda: _is_taken(port), lambda: "no room")
            gc.collect()
            return process.num_fds(), threading.active_count()

        fail(2)
        few = fail(2)
        wait_until(lambda: all(n <= m for n, m in zip(fail(8), few, strict=True)), lambda: f"it grows: {few}")
