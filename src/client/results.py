"""Results of a run on their way from a server: in a zip archive, or as the files of a job."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from ..contract.job import PATHS
from ..contract.service import Results
from ..domain.errors import VoxportError
from ..domain.report import FileReport
from ..domain.run import RESULT_FILES, STATISTICS_TABLE, OutputName, result_files
from ..domain.volume_names import NIFTI, PACKED, SENT_MASKS, USUAL_FORMAT, ZIP, MaskFormat, mask_format
from .answers import RemoteJob, checked, checked_report, json_object
from .downloads import Download, FolderDownload, chunks, spool
from .errors import RemoteError, one_line, problem_error
from .forms import OnProgress, is_model_reference

if TYPE_CHECKING:
    from .connection import Connection

ZIP_TYPE = "application/zip"
_REPORT, _LISTED = RESULT_FILES["report"], "results.json"
_MEDIA_TYPES = {".gz": "application/gzip", ".json": "application/json", ".csv": "text/csv", ".png": "image/png"}
_LARGEST_JSON_BYTES = 2**26
_ENCRYPTED = 1


def asked_outputs(outputs: Iterable[str]) -> list[str]:
    """Return the outputs to request: always with the report, against which the rest is checked."""
    return list(dict.fromkeys([*outputs, "report"]))


def asked_format(mask: Path) -> MaskFormat | None:
    """Return the format to ask for a mask of this name; None for the usual one, which is inflated here if need be."""
    return None if mask.name.lower().endswith(NIFTI.single) else mask_format(mask.name)


def members_of(asked: MaskFormat | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return the members of one model's results, by output."""
    names = result_files(asked or USUAL_FORMAT)
    return {out: (name, STATISTICS_TABLE) if out == "statistics" else (name,) for out, name in names.items()}


def places_of(places: Mapping[str, Path], asked: MaskFormat | None) -> dict[str, Path]:
    """Return the path of each member that is written, from those of outputs."""
    members = members_of(asked)
    same = {o: next((n for n in members[o] if Path(n).suffix == p.suffix), members[o][0]) for o, p in places.items()}
    return {same[output]: path for output, path in places.items()}


@dataclass(frozen=True)
class Members:
    """Result files of a model on a server: ``mask.nii.gz``, ``report.json`` and so on.

    ``open`` opens one, to be read once and to its end. Raises RemoteError.
    """

    url: str
    open: Callable[[str], AbstractContextManager[IO[bytes]]]

    def json(self, member: str) -> dict[str, Any]:
        """Parse a small member. Raises RemoteError."""
        with self.open(member) as file:
            body = file.read(_LARGEST_JSON_BYTES + 1)
        if len(body) > _LARGEST_JSON_BYTES:
            raise RemoteError.wrong_answer(self.url, expected=f"a {member}", got="one too large to be one")
        return json_object(body, self.url)


def check_received(sent: Sequence[FileReport], sha256: Iterable[str], url: str) -> None:
    """Raise RemoteError unless a report or job lists exactly the uploaded bytes in order."""
    if list(sha256) != [file.sha256 for file in sent]:
        expected, got = "a result for the volumes that were sent", "one for others, by their sha256"
        raise RemoteError(url, expected=expected, got=got, do="ask again, and tell who runs the server")


@contextmanager
def received(
    members: Members, sent: Sequence[FileReport], places: Mapping[str, Path], folder: Path | None = None
) -> Iterator[tuple[dict[str, Any], list[Download]]]:
    """Yield a model's report with local names, and its files, written but not committed.

    ``places`` has the destination of each member; ``folder`` is for temporary files, by default beside them.

    Raises:
        RemoteError: the result is for another request.
        OutputError: a file cannot be written.
    """
    report = checked_report(members.json(_REPORT), members.url, [file.name for file in sent])
    check_received(sent, (entry["sha256"] for entry in report["inputs"]), members.url)
    report["inputs"] = [asdict(file) for file in sent]
    with ExitStack() as stack:
        downloads = []
        for member, place in places.items():
            if member != _REPORT:
                is_folder = member.endswith(ZIP) and not place.name.lower().endswith(ZIP)
                made = FolderDownload(place, folder, members.url) if is_folder else Download(place, folder)
                download = stack.enter_context(made)
                with members.open(member) as content:
                    download.fill(_content(content, member, place, members.url))
                downloads.append(download)
        report["outputs"] = [download.entry() for download in downloads]
        if _REPORT in places:
            download = stack.enter_context(Download(places[_REPORT], folder))
            download.fill([(json.dumps(report, indent=2) + "\n").encode()])
            downloads.append(download)
        yield report, downloads


def _content(stored: IO[bytes], member: str, place: Path, url: str) -> Iterator[bytes]:
    if member.endswith(PACKED):
        yield from chunks(stored, inflate=not place.name.lower().endswith(".gz"), url=url)
        return
    yield from iter(lambda: stored.read(2**20), b"")


@dataclass(frozen=True)
class Result:
    """A model's folder in an archive, or its error."""

    model: str
    folder: str
    error: VoxportError | None = None


class Archive:
    """A complete zip archive. Its names are only compared, never used as paths.

    Args:
        file: the archive; it must be seekable and stays the caller's to close.
        url: the server.
        asked: names of members that were requested; no others may come.
        localised: replaces the server's names of volumes by local ones.

    Raises:
        RemoteError: it is not such an archive.
    """

    def __init__(self, file: BinaryIO, url: str, asked: Iterable[str], localised: Callable[[str], str]) -> None:
        self.url = url
        self._localised = localised
        with self._clear_errors():
            self._zip = zipfile.ZipFile(file)
            self._check_stored(file.seek(0, 2))
        self.results = tuple(self._results())
        asked = list(asked)
        self._check_names([f"{r.folder}/{member}" for r in self.results if r.error is None for member in asked])

    def only(self) -> Result:
        """Return the result of the one requested model. Raises its error, or RemoteError."""
        if len(self.results) != 1:
            raise self._wrong(f"one of {len(self.results)} models")
        (result,) = self.results
        if result.error is not None:
            raise result.error
        return result

    def members(self, result: Result) -> Members:
        """Return the files of a result."""
        return Members(self.url, lambda member: self._open(f"{result.folder}/{member}"))

    def has(self, result: Result, member: str) -> bool:
        """Return whether the result came with a member."""
        return f"{result.folder}/{member}" in self._zip.namelist()

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member; its checksum is compared at its end."""
        if name not in self._zip.namelist():
            raise self._wrong(f"one without {name.rpartition('/')[2]}")
        with self._clear_errors(), self._zip.open(name) as content:
            yield content

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        # RuntimeError and NotImplementedError are how zipfile refuses encryption and unknown features
        except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, KeyError, ValueError) as error:
            raise self._wrong(f"a damaged one ({one_line(error)})") from None

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
        if odd := sorted(set(names).difference([_LISTED, *asked])):
            raise self._wrong(f"one with {one_line(', '.join(odd))}")
        if len(set(names)) < len(names):
            raise self._wrong("one with a name that comes twice")

    def _results(self) -> Iterator[Result]:
        listed = checked(Results, Members(self.url, self._open).json(_LISTED), self.url, "a list of results").results
        if not listed:
            raise self._wrong(f"one whose {_LISTED} lists none")
        for entry in listed:
            model = one_line(entry.model)
            if entry.problem is not None:
                yield Result(model, "", problem_error(entry.problem.model_dump(), self.url, self._localised))
            elif ":" in model and is_model_reference(entry.model):
                yield Result(model, model.replace(":", "-", 1))
            else:
                raise self._wrong(f"one of a model {model}")

    def _wrong(self, got: str) -> RemoteError:
        return RemoteError.wrong_answer(self.url, expected="an archive of results", got=got)


def job_members(connection: Connection, path: str, job: RemoteJob, folder: Path, on_progress: OnProgress) -> Members:
    """Return the results of a job that is done; ``folder`` holds each result until its hash has been checked."""
    known = members_of(job.format)
    outputs: dict[str, OutputName] = {member: output for output in PATHS for member in known[output]}

    @contextmanager
    def opened(member: str) -> Iterator[IO[bytes]]:
        output = outputs[member]
        with spool(folder) as file:
            is_mask = output == "mask"
            media_type = SENT_MASKS[job.format].media_type if is_mask else _MEDIA_TYPES[Path(member).suffix]
            with connection.answer("GET", f"{path}/{PATHS[output]}", media_type) as answer:
                due = job.results[output]
                if member == STATISTICS_TABLE:  # the job has the hash of the other form; a proxy may weaken an ETag
                    due = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
                connection.save(answer, file, lambda done, total: on_progress("download", done, total))
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != due:  # type: ignore[arg-type]
                expected, got = f"the {output} of job {job.id}", "one with another sha256 than the job's"
                do = "download it again, and tell who runs the server"
                raise RemoteError(connection.url, expected=expected, got=got, do=do)
            file.seek(0)
            yield file

    return Members(connection.url, opened)
