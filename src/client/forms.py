"""Requests: the server's address and key, form fields, arrays, and volumes that are streamed from disk and hashed."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..contract.card import MODEL_NAME, MODEL_VERSION
from ..contract.options import encode
from ..domain.errors import InputError, OutputError, UsageError
from ..domain.report import FileReport
from ..domain.volume_names import GZIP_MAGIC, HDF5, HEADERS, NIFTI, PACKED, PLAIN, MaskFormat, sent_name
from .errors import one_line
from .folders import pack_volume

_SENT_NAME = re.compile(r"(?:[^\s'\"]*/)?volume_(\d+)(?:\.[a-z0-9]+)+")
_START_BYTES = 4  # of a volume, which tell its kind
_LONGEST_KEY = 255

StrPath = str | os.PathLike[str]
Volumes = StrPath | Sequence[StrPath]
Fields = dict[str, list[str]]
# Receives the stage (upload, score, download), the bytes done, and the total; 0 if unknown.
OnProgress = Callable[[str, int, int], None]


def checked_url(url: str) -> str:
    """Return a server's address without a trailing slash; a path is kept, for servers behind a proxy.

    Raises:
        UsageError: not http or https, no host, or a password, query or fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.hostname is not None and parts.port != 0
    except ValueError:
        raise _bad_url("one that cannot be read") from None
    if parts.username is not None or parts.password is not None:
        # not repeated: error messages are logged
        raise UsageError("server", expected="a URL", got="one with a name or password", do="give the key apart from it")
    if parts.scheme not in ("http", "https") or not usable or not url.isprintable() or " " in url:
        raise _bad_url(one_line(url) or "nothing")
    if parts.query or parts.fragment:
        raise _bad_url("one with a query or a fragment")
    return url.rstrip("/")


def _bad_url(got: str) -> UsageError:
    return UsageError("server", expected="a URL such as http://127.0.0.1:3000", got=got, do="correct it")


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine's, by name or number."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked_key(key: str | None) -> str | None:
    """Return the API key without surrounding space, or None if empty. Raises UsageError, without the key."""
    key = (key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        do = "copy it again; VOXPORT_API_KEY holds the key alone"
        raise UsageError("API key", expected="printable ASCII without spaces", got="other characters", do=do)
    return key or None


def checked_request_key(key: str) -> str:
    """Return an idempotency key. Raises UsageError."""
    # space around a header's value is taken away on the way
    if not 1 <= len(key) <= _LONGEST_KEY or not all(" " <= c <= "~" for c in key) or key != key.strip():
        expected = f"1 to {_LONGEST_KEY} printable ASCII characters without space around them"
        raise UsageError("key", expected=expected, got=one_line(key) or "none", do="choose another")
    return key


def is_model_reference(text: str) -> bool:
    """Return whether ``text`` is ``NAME`` or ``NAME:VERSION`` of a model, and not, for example, a file."""
    return re.fullmatch(f"{MODEL_NAME}(:{MODEL_VERSION})?", text) is not None


def check_model(reference: str) -> None:
    """Raise UsageError unless it is ``NAME`` or ``NAME:VERSION``."""
    if not is_model_reference(reference):
        expected = "the NAME or NAME:VERSION of a model that the server has"
        raise UsageError("model", expected=expected, got=reference, do="see its list of models")


@dataclass(frozen=True)
class Form:
    """A request's body: fields with their values, and files with their fields' names.

    ``is_sent`` returns whether the files were sent completely; ``localised`` replaces the server's names of volumes by
    local ones.
    """

    fields: Fields
    parts: Sequence[tuple[str, tuple[str, BinaryIO, str]]]
    is_sent: Callable[[], bool] = lambda: True
    localised: Callable[[str], str] = str


def fields_of(
    models: Iterable[str | None],
    options: Mapping[str, Any],
    outputs: Iterable[str] = (),
    mask_format: MaskFormat | None = None,
) -> Fields:
    """Return the fields that are given. Raises UsageError for an invalid model reference."""
    named = [model for model in models if model is not None]
    for model in named:
        check_model(model)
    formats: list[str] = [] if mask_format is None else [mask_format]
    given: Fields = {"model": named, **encode(options), "outputs": list(outputs), "format": formats}
    return {name: values for name, values in given.items() if values}


def real_array(array: ArrayLike) -> NDArray[Any]:
    """Return an array ``(X, Y, Z)`` or ``(C, X, Y, Z)`` of real numbers. Raises InputError."""
    values = np.asarray(array)
    if values.ndim not in (3, 4) or values.dtype.kind not in "biuf":
        got = f"{values.dtype} of shape {values.shape}"
        do = "give all axes, and convert it to integers or floats"
        raise InputError("array", expected="real numbers (x, y, z) or (channel, x, y, z)", got=got, do=do)
    return values


def array_form(
    values: NDArray[Any], fields: Fields, spacing: Sequence[float] | None, unit: str | None, probabilities: bool
) -> Form:
    """Return a form with these fields, those of arrays alone, and the array as a file."""
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    given = {
        "spacing": [] if spacing is None else [",".join(repr(float(step)) for step in spacing)],
        "unit": [] if unit is None else [unit],
        "probabilities": ["true" if probabilities else "false"],
    }
    return Form(fields | given, [("volume", ("volume.npy", content, "application/octet-stream"))])


def localised(text: str, names: Sequence[str]) -> str:
    """Replace the neutral names of volumes in a server's text by these names."""

    def local(match: re.Match[str]) -> str:
        number = int(match[1])
        return names[number - 1] if 1 <= number <= len(names) else match[0]

    return _SENT_NAME.sub(local, text)


def silent(*progress: object) -> None:
    """Ignore progress."""


def paths_of(volumes: Volumes) -> list[Path]:
    """Return the paths as a list."""
    return [Path(path) for path in ([volumes] if isinstance(volumes, str | os.PathLike) else volumes)]


def files_of(volumes: Volumes, options: Mapping[str, Any]) -> tuple[list[Path], dict[str, Any]]:
    """Return the files to send and the options: a dataset, as in ``FILE.h5:/raw``, becomes the option ``series``.

    Raises:
        UsageError: datasets of different names.
    """
    files, names = [], {options["series"]} if options.get("series") is not None else set()
    for path in paths_of(volumes):
        file, mark, name = str(path).partition(HDF5.inside)
        inside = bool(mark) and Path(file).is_file()
        files.append(Path(file) if inside else path)
        names |= {f"/{name}"} if inside else set()
    if len(names) > 1:
        do = "send files whose datasets have one name"
        raise UsageError("series", expected="one", got=" and ".join(sorted(names)), do=do)
    return files, {**options, "series": names.pop()} if names else dict(options)


class Uploads:
    """The volumes of one case as files of a form; a context manager.

    A DICOM series or an OME-Zarr in a folder is sent as a zip, a header with its voxels as one file. The server
    receives neutral names, such as ``volume_1.nii.gz``. ``on_progress`` receives the bytes sent, and the stage
    ``score`` after the last.

    Raises:
        UsageError: no volumes.
        InputError: a file is missing, unreadable, or one of a pair.
    """

    def __init__(self, volumes: Sequence[Path], on_progress: OnProgress = silent) -> None:
        if not volumes:
            raise UsageError("volumes", expected="at least one", got="none", do="name the volumes of the case")
        self._names = tuple(map(str, volumes))
        self.localised = partial(localised, names=self._names)
        self._on_progress = on_progress
        self._sent = 0
        with ExitStack() as stack:
            self._files = [stack.enter_context(_open(path, self._advance)) for path in volumes]
            self._stack = stack.pop_all()
        self._total = sum(os.fstat(file.fileno()).st_size for file in self._files)

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def form(self, fields: Fields) -> Form:
        """Return a form with these fields and the volumes in order."""
        parts = [("volume", _part(file, number)) for number, file in enumerate(self._files, start=1)]
        return Form(fields, parts, lambda: self._sent >= self._total, self.localised)

    def sent(self) -> list[FileReport]:
        """Return the volumes with their local names; valid after the upload."""
        hashes = (file.sha256.hexdigest() for file in self._files)
        return [FileReport(name, sha256) for name, sha256 in zip(self._names, hashes, strict=True)]

    def _advance(self, count: int) -> None:
        self._sent += count
        self._on_progress("upload", self._sent, self._total)
        if self._sent >= self._total:
            self._on_progress("score", 0, 0)


class _Upload(io.BufferedReader):
    """A file that hashes and counts what is read, and detects changes; ``sent_as`` is its name for the server."""

    def __init__(self, file: io.FileIO, path: Path, sent_as: str, count_bytes: Callable[[int], None]) -> None:
        super().__init__(file)
        self._path, self.sent_as = path, sent_as
        self._count_bytes = count_bytes
        self._state = self._present_state()
        self.sha256 = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        """See io.BufferedReader. Raises InputError if the file has changed."""
        chunk = super().read(size)
        if self._present_state() != self._state:
            do = "ask again once nothing writes to it"
            raise InputError(str(self._path), expected="a volume that stays as it is", got="one that changed", do=do)
        self.sha256.update(chunk)
        if chunk:
            self._count_bytes(len(chunk))
        return chunk

    def _present_state(self) -> tuple[int, int]:
        now = os.fstat(self.fileno())
        return now.st_size, now.st_mtime_ns


def _open(path: Path, count_bytes: Callable[[int], None]) -> _Upload:
    try:
        mode = path.stat().st_mode  # First, because opening a named pipe would wait for a writer.
        if not stat.S_ISREG(mode):
            if stat.S_ISDIR(mode):
                return _packed(path, count_bytes)
            got = "something that is not a regular file"
            raise InputError(str(path), expected="a file", got=got, do="name the volume itself")
        if path.name.lower().endswith(tuple(half for pair in NIFTI.pairs for half in pair)):
            do = f"save it as one file, e.g. nibabel.save(nibabel.load('{path.name}'), 'volume{PACKED}')"
            raise InputError(str(path), expected=f"{PLAIN} or {PACKED} to send to a server", got="one of a pair", do=do)
        if path.name.lower().endswith(HEADERS):
            return _packed(path, count_bytes)
        return _Upload(io.FileIO(path), path, path.name, count_bytes)
    except FileNotFoundError:
        raise InputError(str(path), expected="a file", got="no such file", do="check the path") from None
    except (OSError, ValueError) as error:
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(str(path), expected="a readable file", got=got.lower(), do="check the path") from None


def _packed(volume: Path, count_bytes: Callable[[int], None]) -> _Upload:
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the upload closes it
    except OSError as error:
        raise OutputError.cannot_write(tempfile.gettempdir(), error) from None
    try:
        name = pack_volume(volume, file)
        file.seek(0)
        return _Upload(file, volume, name, count_bytes)
    except BaseException:
        file.close()
        raise


def _part(file: _Upload, number: int) -> tuple[str, BinaryIO, str]:
    """Return neutral name, content and media type, as httpx takes a file."""
    start = file.peek(_START_BYTES)
    kind = "application/gzip" if start.startswith(GZIP_MAGIC) else "application/octet-stream"
    return sent_name(number, file.sent_as, start), file, kind
