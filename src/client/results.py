"""Write and check result files before any gets its final name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from ..domain.volume_names import PACKED
from .answers import checked_report
from .downloads import Download
from .nifti import chunks
from .sent import Sent

REPORT = "report.json"


class Members(Protocol):
    """Result files of a model: ``mask.nii.gz``, ``report.json`` and so on."""

    @property
    def url(self) -> str:
        """The server's address."""

    def json(self, member: str) -> dict[str, Any]:
        """Parse a small member. Raises RemoteError."""

    def open(self, member: str) -> AbstractContextManager[IO[bytes]]:
        """Open a member, to be read once and to its end. Raises RemoteError."""


@contextmanager
def received(
    members: Members, sent: Sent, places: Mapping[str, Path], folder: Path | None = None
) -> Iterator[tuple[dict[str, Any], list[Download]]]:
    """Return a model's report with local names, and its files, written but not committed.

    Args:
        members: the received files.
        sent: the volumes that were sent.
        places: destination of each member.
        folder: temporary folder; by default beside the destinations.

    Raises:
        RemoteError: the result is for another request.
        OutputError: a file cannot be written.
    """
    report = checked_report(members.json(REPORT), members.url, sent.localised)
    sent.check_received(report, members.url)
    report["inputs"] = sent.entries()
    with ExitStack() as stack:
        downloads = []
        for member, place in places.items():
            if member != REPORT:
                download = stack.enter_context(Download(place, folder))
                with members.open(member) as content:
                    download.fill(_content(content, member, place, members.url))
                downloads.append(download)
        report["outputs"] = [download.entry() for download in downloads]
        if REPORT in places:
            download = stack.enter_context(Download(places[REPORT], folder))
            download.fill([(json.dumps(report, indent=2) + "\n").encode()])
            downloads.append(download)
        yield report, downloads


def _content(stored: IO[bytes], member: str, place: Path, url: str) -> Iterator[bytes]:
    if member.endswith(PACKED):
        yield from chunks(stored, inflate=not place.name.endswith(".gz"), url=url)
        return
    while chunk := stored.read(2**20):
        yield chunk
