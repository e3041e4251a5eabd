"""From an archive to files and reports: everything is checked and on disk before anything has its name."""

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
    """What a model's run came to, by the names ``mask.nii.gz``, ``report.json`` and so on."""

    @property
    def url(self) -> str:
        """The server that it comes from."""

    def json(self, member: str) -> dict[str, Any]:
        """A small member, parsed. Raises RemoteError."""

    def open(self, member: str) -> AbstractContextManager[IO[bytes]]:
        """A member's content, to be read once and to its end. Raises RemoteError."""


@contextmanager
def received(
    members: Members, sent: Sent, places: Mapping[str, Path], folder: Path | None = None
) -> Iterator[tuple[dict[str, Any], list[Download]]]:
    """A model's report, with the names here, and its files, written and yet to be committed.

    Args:
        members: what came.
        sent: what it must be the result of.
        places: where members go.
        folder: where the files are until they are committed; beside their places otherwise.

    Raises:
        RemoteError: what came is not what was asked for.
        OutputError: no room.
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
