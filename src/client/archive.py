"""The zip archive of results. Members must be expected, uncompressed, and as large as the directory says."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..domain.errors import VoxportError
from ..domain.run import RESULT_FILES, STATISTICS_TABLE
from .answers import json_object
from .errors import RemoteError, one_line
from .fields import model_folder
from .problems import problem_error

MEDIA_TYPE = "application/zip"
RESULTS = "results.json"
# Members of a model, by output.
MEMBERS: Mapping[str, tuple[str, ...]] = {
    output: (name, STATISTICS_TABLE) if output == "statistics" else (name,) for output, name in RESULT_FILES.items()
}
_LARGEST_JSON_BYTES = 2**26
_ENCRYPTED = 1


@dataclass(frozen=True)
class Result:
    """Result of one model: the folder of its members, or an error."""

    model: str
    folder: str
    error: VoxportError | None


def asked_outputs(outputs: Iterable[str]) -> list[str]:
    """Return the outputs to request, including the report."""
    return list(dict.fromkeys([*outputs, "report"]))


def member_of(output: str, path: Path) -> str:
    """Return the name of the member for a path."""
    return next((name for name in MEMBERS[output] if Path(name).suffix == path.suffix), MEMBERS[output][0])


class Archive:
    """A complete zip archive. Member names are compared, never used as paths.

    Args:
        file: the archive, seekable; the caller closes it.
        url: the server.
        outputs: requested keys of ``MEMBERS``; others are refused.
        localised: replaces the server's names of volumes by local ones.

    Raises:
        RemoteError: an invalid archive.
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
        """Return the result of the only model. Raises its error, or RemoteError."""
        if len(self.results) != 1:
            raise self._wrong(f"one of {len(self.results)} models")
        (result,) = self.results
        if result.error is not None:
            raise result.error
        return result

    def members(self, result: Result) -> ArchiveMembers:
        """Return the members of a result."""
        return ArchiveMembers(self, result.folder)

    def json(self, name: str) -> dict[str, Any]:
        """Parse a small file of the archive. Raises RemoteError."""
        with self._clear_errors():
            return self._json(self._known(name))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member, to be read once and to its end, where its checksum is compared. Raises RemoteError."""
        with self._clear_errors(), self._zip.open(self._known(name)) as content:
            yield content

    def has(self, name: str) -> bool:
        """Return whether the archive has a file of this name."""
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
        """Check that members are stored and do not overlap, so nothing can inflate."""
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
        """Return whether the result has a member."""
        return self.archive.has(f"{self.folder}/{member}")

    def json(self, member: str) -> dict[str, Any]:
        """See ``Members``."""
        return self.archive.json(f"{self.folder}/{member}")

    def open(self, member: str) -> AbstractContextManager[IO[bytes]]:
        """See ``Members``."""
        return self.archive.open(f"{self.folder}/{member}")
