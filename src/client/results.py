"""From an archive to files and reports: everything is checked and on disk before anything has its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .answers import checked_report
from .archive import Archive, Result
from .downloads import Download
from .nifti import chunks
from .uploads import Uploads

REPORT = "report.json"


@contextmanager
def received(
    archive: Archive, result: Result, uploads: Uploads, places: Mapping[str, Path], folder: Path | None = None
) -> Iterator[tuple[dict[str, Any], list[Download]]]:
    """A model's report, with the names here, and its files, written and yet to be committed.

    Args:
        archive: what came.
        result: the model's part of it.
        uploads: what was sent.
        places: where members go.
        folder: where the files are until they are committed; beside their places otherwise.

    Raises:
        RemoteError: what came is not what was asked for.
        OutputError: no room.
    """
    report = checked_report(archive.json(result, REPORT), archive.url, uploads.localised)
    uploads.check_received(report, archive.url)
    report["inputs"] = uploads.hashed()
    with ExitStack() as stack:
        downloads = []
        for member, place in places.items():
            if member != REPORT:
                download = stack.enter_context(Download(place, folder))
                with archive.open(result, member) as content:
                    download.fill(_content(content, member, place, archive.url))
                downloads.append(download)
        report["outputs"] = [download.entry() for download in downloads]
        if REPORT in places:
            download = stack.enter_context(Download(places[REPORT], folder))
            download.fill([(json.dumps(report, indent=2) + "\n").encode()])
            downloads.append(download)
        yield report, downloads


def _content(stored: Any, member: str, place: Path, url: str) -> Iterator[bytes]:
    if member.endswith(".nii.gz"):
        yield from chunks(stored, inflate=not place.name.endswith(".gz"), url=url)
        return
    while chunk := stored.read(2**20):
        yield chunk
