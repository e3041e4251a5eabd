"""The results of a job on their way here: each is on disk, and has the hash that it must have, before it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..domain.run import RESULT_FILES, STATISTICS_TABLE
from .answers import JSON, json_object
from .downloads import spool
from .errors import RemoteError
from .job import RemoteJob
from .uploads import Callback

if TYPE_CHECKING:
    import httpx

    from .connection import Connection

_LARGEST_JSON_BYTES = 2**26
_CHUNK_BYTES = 2**20
_GZIP = "application/gzip"


class _Route(NamedTuple):
    """Where a member is: the job's output, the last part of the path, and the media type."""

    output: str
    name: str
    media_type: str


_ROUTES = {
    RESULT_FILES["mask"]: _Route("mask", "mask", _GZIP),
    RESULT_FILES["probabilities"]: _Route("probabilities", "probabilities", _GZIP),
    RESULT_FILES["statistics"]: _Route("statistics", "statistics", JSON),
    STATISTICS_TABLE: _Route("statistics", "statistics", "text/csv"),
    RESULT_FILES["preview"]: _Route("preview", "preview.png", "image/png"),
    RESULT_FILES["report"]: _Route("report", "report", JSON),
}
# The job has no hash of this form; the ETag is its hash.
_BY_ETAG = frozenset({STATISTICS_TABLE})


@dataclass(frozen=True)
class JobFiles:
    """See ``Members``: the results of a job that is done.

    Args:
        connection: to the server.
        path: the job's.
        job: with the hashes of its results.
        folder: where files are until they have been checked.
        callback: receives the bytes of each file.
    """

    connection: Connection
    path: str
    job: RemoteJob
    folder: Path
    callback: Callback

    @property
    def url(self) -> str:
        """See ``Members``."""
        return self.connection.url

    def json(self, member: str) -> dict[str, Any]:
        """See ``Members``."""
        with self.open(member) as file:
            body = file.read(_LARGEST_JSON_BYTES + 1)
        if len(body) > _LARGEST_JSON_BYTES:
            raise RemoteError.wrong_answer(self.url, expected=f"a {member}", got="one too large to be one")
        return json_object(body, self.url)

    @contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """See ``Members``."""
        route = _ROUTES[member]
        with spool(self.folder) as file:
            with self.connection.answer("GET", f"{self.path}/{route.name}", route.media_type) as answer:
                due = _etag(answer) if member in _BY_ETAG else self.job.results[route.output]
                self.connection.save(answer, file, lambda done, total: self.callback("download", done, total))
            file.seek(0)
            if _sha256(file) != due:
                got = "one with another sha256 than the job's"
                do = "download it again, and tell who runs the server"
                raise RemoteError(self.url, expected=f"the {route.output} of job {self.job.id}", got=got, do=do)
            file.seek(0)
            yield file


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _etag(answer: httpx.Response) -> str:
    """The hash in an ETag, which a proxy may have made a weak one."""
    return str(answer.headers.get("ETag", "")).removeprefix("W/").strip('"')
