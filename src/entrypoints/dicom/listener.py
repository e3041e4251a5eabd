"""A C-STORE receiver: each object that arrives is handed on, and acknowledged once it is kept."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from socketserver import BaseServer
from typing import IO, Any

import pydicom
from pydicom import uid as syntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from ...domain.dicom_series import Instance, SeriesFacts
from ...domain.errors import InputError, VoxportError

_log = logging.getLogger("voxport.dicom")
# Statuses of PS3.4 table B.2-1.
_STORED, _NOT_AUTHORISED, _OUT_OF_RESOURCES, _NOT_UNDERSTOOD = 0x0000, 0x0124, 0xA700, 0xC000
_FACTS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription",
          "BodyPartExamined", "Rows")  # fmt: skip
# Images that show no patient: segmentations, label maps, doses.
_DERIVED = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.2")
_SYNTAXES = [
    syntaxes.ExplicitVRLittleEndian, syntaxes.ImplicitVRLittleEndian, syntaxes.DeflatedExplicitVRLittleEndian,
    syntaxes.ExplicitVRBigEndian, syntaxes.RLELossless, syntaxes.JPEGBaseline8Bit, syntaxes.JPEGExtended12Bit,
    syntaxes.JPEGLossless, syntaxes.JPEGLosslessSV1, syntaxes.JPEGLSLossless, syntaxes.JPEGLSNearLossless,
    syntaxes.JPEG2000Lossless, syntaxes.JPEG2000, syntaxes.HTJ2KLossless, syntaxes.HTJ2KLosslessRPCL, syntaxes.HTJ2K,
]  # fmt: skip

_LONGEST = 256  # characters of a field
_MOST_PDU_BYTES = 2**20  # 128 contexts with 16 syntaxes each take 70 kB

Network = IPv4Network | IPv6Network
Address = tuple[str, int]


@dataclass(frozen=True)
class Limits:
    """Limits of a receiver.

    Args:
        associations: open at a time; a connection counts from its first byte.
        bytes_at_once: of objects that are being received, all associations together.
        silence_seconds: an association that sends nothing for so long, or whose message takes so long, is ended.
    """

    associations: int
    bytes_at_once: int
    silence_seconds: float


@contextmanager
def listening(
    keep: Callable[[Instance, IO[bytes]], bool],
    title: str,
    address: tuple[str, int],
    senders: Sequence[tuple[str, Network]],
    limits: Limits,
) -> Iterator[int]:
    """Receive objects until the block ends; gives the port.

    Args:
        keep: keeps one object, given as a DICOM file. VoxportError, OSError: it could not.
        title: the application entity title that senders must call.
        address: IP address and port to listen on.
        senders: titles and networks of those who may send; an empty title is any. Nobody else is answered.
        limits: see there.
    """
    _config.LOG_HANDLER_LEVEL = "none"  # its log would contain what is received
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    entity = AE(title)
    entity.require_called_aet = True
    if all(name for name, _ in senders):
        entity.require_calling_aet = sorted({name for name, _ in senders})
    entity.maximum_associations = limits.associations
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = limits.silence_seconds
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", _SYNTAXES)
    budget = _Budget(limits.bytes_at_once)
    handlers: list[Any] = [(evt.EVT_C_STORE, _stored, [keep, senders, budget])]
    networks = [network for _, network in senders]
    server = entity.make_server(
        address, evt_handlers=handlers, server_class=_Server, networks=networks, limits=limits, budget=budget
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="voxport-dicom-listen")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        for association in server.active_associations:
            association.abort()


class _Server(ThreadedAssociationServer):
    """A server that talks to known addresses alone, and to so many at a time."""

    def __init__(self, *given: Any, networks: Sequence[Network], limits: Limits, budget: _Budget, **named: Any) -> None:
        self._networks, self._limit, self._seconds = networks, limits.associations, limits.silence_seconds
        self._budget = budget
        super().__init__(*given, **named)

    def shutdown(self) -> None:
        """Stop to listen. The library's own method expects a server that it has started itself."""
        BaseServer.shutdown(self)
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """Return the next connection, and its address."""
        plain, address = super().get_request()
        connection = _Connection(fileno=plain.detach())
        connection.watch(address, self._seconds, self._budget)
        connection.settimeout(self._seconds)
        return connection, address

    def verify_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> bool:
        """Return whether a connection is taken."""
        del request
        address = _address(client_address[0])
        if not any(address in network for network in self._networks):
            _log.warning("a connection from %s is refused: no sender of the settings has this address", address)
            return False
        return len(self.active_associations) < self._limit


class _Connection(socket.socket):
    """A connection whose messages are bounded in size and time; the library believes what their headers claim.

    A message (PDU, PS3.8 section 9.3) begins with 6 bytes, the last four of which are the length of the rest.
    """

    def watch(self, address: Address, seconds: float, budget: _Budget) -> None:
        """Set whose connection it is, the seconds of a message, and what its bytes count for."""
        self._address, self._seconds, self._budget = address[:2], seconds, budget
        self._header, self._left, self._since = b"", 0, 0.0

    def close(self) -> None:
        """Close the connection."""
        self._budget.forget(self._address)
        super().close()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive as `socket.recv`. Raises ConnectionAbortedError for what is too long or too slow."""
        data = super().recv(size, flags)
        if not (self._header or self._left):
            self._since = time.monotonic()
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
            else:
                taken = min(6 - len(self._header), len(data) - at)
                self._header += data[at : at + taken]
                if len(self._header) == 6:
                    self._left, self._header = int.from_bytes(self._header[2:]), b""
            at += taken
        if self._left > _MOST_PDU_BYTES or time.monotonic() > self._since + self._seconds:
            raise ConnectionAbortedError
        self._budget.add(self._address, len(data))
        return data


class _Budget:
    """Counts the bytes of objects that are being received, by the address that they come from."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._taken: dict[Address, int] = {}

    def add(self, address: Address, count: int) -> None:
        """Count bytes. Raises ConnectionAbortedError if those of all addresses exceed the limit."""
        with self._lock:
            self._taken[address] = self._taken.get(address, 0) + count
            if sum(self._taken.values()) <= self._limit:
                return
        _log.warning("an association is ended: objects of more than %d bytes are being received", self._limit)
        raise ConnectionAbortedError

    def forget(self, address: Address) -> None:
        """Count anew for an address, of which nothing is held any more."""
        with self._lock:
            self._taken.pop(address, None)


def _stored(
    event: evt.Event,
    keep: Callable[[Instance, IO[bytes]], bool],
    senders: Sequence[tuple[str, Network]],
    budget: _Budget,
) -> int:
    """Keep one object; return the status of the answer."""
    who = event.assoc.requestor
    try:
        if not any(name in ("", who.ae_title) and _address(who.address) in network for name, network in senders):
            _log.warning("an object is refused: no sender of the settings has this title at %s", who.address)
            return _NOT_AUTHORISED
        content = io.BytesIO(event.encoded_dataset())
        instance = _instance(content)
        content.seek(0)
        keep(instance, content)
    except InputError as error:
        _log.error("an object is refused: expected %s, got %s", error.expected, error.got)
        return _NOT_UNDERSTOOD
    except (VoxportError, OSError) as error:
        got = error.got if isinstance(error, VoxportError) else (error.strerror or type(error).__name__).lower()
        _log.error("an object could not be kept: %s", got)
        return _OUT_OF_RESOURCES
    finally:
        budget.forget((who.address, who.port))
    return _STORED


def _address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; an IPv4 address that is written as IPv6 is that address."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _instance(content: IO[bytes]) -> Instance:
    """Read what identifies an object. Raises InputError."""
    try:
        header = pydicom.dcmread(content, stop_before_pixels=True, specific_tags=[*_FACTS])
        text = {name: str(header.get(name) or "")[:_LONGEST] for name in _FACTS}
    except Exception as error:  # noqa: BLE001 - pydicom raises what its parsing happens to meet
        got = f"a damaged one ({type(error).__name__})"
        raise InputError("DICOM object", expected="a DICOM object", got=got, do="export it again") from None
    facts = SeriesFacts(text["StudyInstanceUID"], text["Modality"], text["SeriesDescription"], text["BodyPartExamined"])
    is_image = "Rows" in header and text["SOPClassUID"] not in _DERIVED
    return Instance(text["SOPInstanceUID"], text["SeriesInstanceUID"], facts, is_image)
