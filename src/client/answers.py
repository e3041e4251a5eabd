"""Answers of a server, checked before use: reports, predictions, and zip archives of results."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ..contract.reading import problems_of
from ..domain.errors import VoxportError
from ..domain.labels.label_map import Label, Labels, Logits
from ..domain.report import Report
from ..domain.run import RESULT_FILES, STATISTICS_TABLE
from .errors import RemoteError, one_line, problem_error
from .fields import model_folder

JSON = "application/json"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PredictResult:
    """The answer to ``Client.predict``.

    Attributes:
        segmentation: labels ``(X, Y, Z)``, of the smallest unsigned type that holds them, read-only.
        labels: what the values mean; 0 is background.
        statistics: per label, as in a report.
        model: name, version and sha256 of what scored.
        runtime: what it ran in.
        timings: seconds of each stage.
        warnings: what to know about this result.
        probabilities: ``(K, X, Y, Z)`` where they were asked for, read-only.
    """

    segmentation: Labels
    labels: tuple[Label, ...]
    statistics: Mapping[str, Any]
    model: Mapping[str, Any]
    runtime: Mapping[str, Any]
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    probabilities: Logits | None = None


@dataclass(frozen=True)
class ModelResult:
    """One model's part of ``Client.segment_many``: a report and where its files are, or an error.

    Attributes:
        model: ``NAME:VERSION``; as it was asked for where it failed.
        report: the provenance of its run.
        files: what was written, by the names ``mask.nii.gz``, ``statistics.csv`` and so on.
        error: why there is no mask.
    """

    model: str
    report: Mapping[str, Any] | None
    files: Mapping[str, Path]
    error: VoxportError | None = None


def json_object(body: bytes, url: str) -> dict[str, Any]:
    """A JSON object from its bytes. Raises RemoteError."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteError.wrong_answer(url, expected="JSON", got="something else under its name") from None
    if not isinstance(data, dict):
        raise RemoteError.wrong_answer(url, expected="a JSON object", got=f"a {type(data).__name__}")
    return data


def predict_result(data: Mapping[str, Any], shape: tuple[int, ...], url: str) -> PredictResult:
    """The answer to an array whose last three axes are ``shape``. Raises RemoteError."""
    try:
        segmentation = _labels(data["segmentation"])
        logits = data.get("probabilities")
        probabilities = None if logits is None else _frozen(np.array(logits, dtype=np.float32))
        result = PredictResult(
            segmentation=segmentation,
            labels=tuple(Label(int(x["value"]), str(x["name"]), str(x["colour"])) for x in data["labels"]),
            statistics=_mapping(data["statistics"]),
            model=_mapping(data["model"]),
            runtime=_mapping(data["runtime"]),
            timings={str(name): float(seconds) for name, seconds in data["timings"].items()},
            warnings=tuple(one_line(warning) for warning in data["warnings"]),
            probabilities=probabilities,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise malformed(url, "a prediction", error) from None
    if segmentation.shape != shape or (probabilities is not None and probabilities.shape[1:] != shape):
        got = f"{segmentation.shape}" if probabilities is None else f"{segmentation.shape} and {probabilities.shape}"
        raise RemoteError.wrong_answer(url, expected=f"labels of shape {shape}", got=got)
    return result


def checked_report(data: object, url: str, localised: Callable[[str], str]) -> dict[str, Any]:
    """Return a report in which texts are on one line each, and warnings have the volumes' names on this machine.

    Raises:
        RemoteError: a part is missing or wrong.
    """
    found = checked(Report, data, url, "a report")
    if model_folder(f"{found.model.name}:{found.model.version}") is None:
        raise RemoteError.wrong_answer(url, expected="a report of a model", got="one whose name is none")
    report: dict[str, Any] = json.loads(json.dumps(data))
    for label in report["statistics"]["labels"]:
        label["name"] = one_line(label["name"])
    report["warnings"] = [localised(one_line(warning)) for warning in report["warnings"]]
    return report


def checked(kind: type[T], data: object, url: str, what: str) -> T:
    """Return an answer as a value of the contract. Raises RemoteError, which names the first wrong part."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_json(json.dumps(data), strict=True)
    except (ValidationError, OverflowError) as error:
        raise malformed(url, what, error) from None


def malformed(url: str, what: str, error: Exception) -> RemoteError:
    """Return the error for an answer whose reading raised ``error``."""
    got = f"one without {error}" if isinstance(error, KeyError) else "one that is put together wrongly"
    if isinstance(error, ValidationError):
        path, words = problems_of(error)[0]
        got = f"one without '{path}'" if words == "is missing" else f"one whose {path or 'content'} {words}"
    return RemoteError.wrong_answer(url, expected=what, got=one_line(got))


def _labels(nested: Any) -> Labels:
    values = np.array(nested)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0:
        raise ValueError("labels are whole numbers from 0 on")
    return _frozen(values.astype(np.min_scalar_type(values.max())))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError("a mapping is needed")
    return data


MEDIA_TYPE = "application/zip"
RESULTS = "results.json"
# The members of one model, by output.
MEMBERS: Mapping[str, tuple[str, ...]] = {
    output: (name, STATISTICS_TABLE) if output == "statistics" else (name,) for output, name in RESULT_FILES.items()
}
_LARGEST_JSON_BYTES = 2**26
_ENCRYPTED = 1


@dataclass(frozen=True)
class Result:
    """What one model came to: the folder of its members, or an error."""

    model: str
    folder: str
    error: VoxportError | None


def asked_outputs(outputs: Iterable[str]) -> list[str]:
    """The outputs to ask for: always the report, by which the rest is checked."""
    return list(dict.fromkeys([*outputs, "report"]))


def member_of(output: str, path: Path) -> str:
    """The member of the archive that goes to a path."""
    return next((name for name in MEMBERS[output] if Path(name).suffix == path.suffix), MEMBERS[output][0])


class Archive:
    """A zip archive that came whole. Its names are only ever compared, never used as paths.

    Args:
        file: the archive; it must be seekable and stays the caller's to close.
        url: where it came from.
        outputs: keys of ``MEMBERS`` that were asked for; no others may come.
        localised: puts the volumes' names here into the server's words.

    Raises:
        RemoteError: it is no such archive.
    """

    def __init__(self, file: BinaryIO, url: str, outputs: Iterable[str], localised: Callable[[str], str]) -> None:
        self.url = url
        self._localised = localised
        with self._clear_errors():
            self._zip = zipfile.ZipFile(file)
            self._check_stored(file.seek(0, 2))
            self.results = tuple(self._results())
            asked = [member for output in outputs for member in MEMBERS[output]]
            self._check_names([f"{r.folder}/{member}" for r in self.results if r.error is None for member in asked])

    def only(self) -> Result:
        """The result of the one model that was asked. Raises its error, or RemoteError."""
        if len(self.results) != 1:
            raise self._wrong(f"one of {len(self.results)} models")
        (result,) = self.results
        if result.error is not None:
            raise result.error
        return result

    def members(self, result: Result) -> ArchiveMembers:
        """What the archive has of a result."""
        return ArchiveMembers(self, result.folder)

    def json(self, name: str) -> dict[str, Any]:
        """A small file of the archive, parsed. Raises RemoteError."""
        with self._clear_errors():
            return self._json(self._known(name))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file's content, to be read once and to its end, where its checksum is compared. Raises RemoteError."""
        with self._clear_errors(), self._zip.open(self._known(name)) as content:
            yield content

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._zip.namelist()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        # RuntimeError and NotImplementedError are how zipfile refuses encryption and unknown features
        except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, KeyError, ValueError) as error:
            raise self._wrong(f"a damaged one ({one_line(error)})") from None

    def _known(self, name: str) -> str:
        if not self.has(name):
            raise self._wrong(f"one without {name.rpartition('/')[2]}")
        return name

    def _check_stored(self, size: int) -> None:
        """Stored members that lie in the file side by side cannot add up to more than it: nothing can inflate."""
        members = self._zip.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise self._wrong("one with compressed members")
            if member.flag_bits & _ENCRYPTED:
                raise self._wrong("one with encrypted members")
        if sum(member.file_size for member in members) > size:
            raise self._wrong("one whose members overlap")

    def _check_names(self, asked: list[str]) -> None:
        names = self._zip.namelist()
        if odd := sorted(set(names).difference([RESULTS, *asked])):
            raise self._wrong(f"one with {one_line(', '.join(odd))}")
        if len(set(names)) < len(names):
            raise self._wrong("one with a name that comes twice")

    def _results(self) -> Iterator[Result]:
        listed = self._json(RESULTS).get("results")
        if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
            raise self._wrong(f"one whose {RESULTS} lists none")
        for entry in listed:
            model, problem = one_line(entry.get("model")), entry.get("problem")
            if isinstance(problem, dict):
                yield Result(model, "", problem_error(problem, self.url, self._localised))
                continue
            folder = model_folder(entry.get("model"))
            if folder is None:
                raise self._wrong(f"one of a model {model}")
            yield Result(model, folder, None)

    def _json(self, name: str) -> dict[str, Any]:
        if self._zip.getinfo(name).file_size > _LARGEST_JSON_BYTES:
            raise self._wrong(f"a {name} too large to be one")
        return json_object(self._zip.read(name), self.url)

    def _wrong(self, got: str) -> RemoteError:
        return RemoteError.wrong_answer(self.url, expected="an archive of results", got=got)


@dataclass(frozen=True)
class ArchiveMembers:
    """See ``Members``: a model's folder in an archive."""

    archive: Archive
    folder: str

    @property
    def url(self) -> str:
        """See ``Members``."""
        return self.archive.url

    def has(self, member: str) -> bool:
        """Whether the result came with a member."""
        return self.archive.has(f"{self.folder}/{member}")

    def json(self, member: str) -> dict[str, Any]:
        """See ``Members``."""
        return self.archive.json(f"{self.folder}/{member}")

    def open(self, member: str) -> AbstractContextManager[IO[bytes]]:
        """See ``Members``."""
        return self.archive.open(f"{self.folder}/{member}")
