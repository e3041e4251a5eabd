"""Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them, of a bearable size.

Nothing remembers where a stream was: each event tells the whole of it, so ids and retry times are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .errors import RemoteError

EVENT_STREAM = "text/event-stream"
_LARGEST_BYTES = 2**20
_LINE_END = re.compile(rb"\r\n|\r|\n")


def events(chunks: Iterable[bytes], url: str) -> Iterator[tuple[str, bytes]]:
    """The name and data of each event, as soon as it is there; one that the stream breaks off in is left out.

    Args:
        chunks: the stream, in whatever pieces it comes.
        url: where it comes from.

    Raises:
        RemoteError: a line or an event that is too large to be one.
    """
    name, data, size = "message", list[bytes](), 0
    for line in _lines(chunks, url):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                yield name, b"\n".join(data)
            name, data, size = "message", [], 0
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"data":
            data.append(value)
            size = _bearable(size + len(value) + 1, url)


def _lines(chunks: Iterable[bytes], url: str) -> Iterator[bytes]:
    """Lines without their ends, whichever of the three kinds these are; what follows the last end is left out."""
    line, after_return = bytearray(), False
    for chunk in filter(None, chunks):
        first, *others = _LINE_END.split(chunk.removeprefix(b"\n") if after_return else chunk)
        after_return = chunk.endswith(b"\r")
        line += first
        for other in others:
            _bearable(len(line), url)
            yield bytes(line)
            line = bytearray(other)
        _bearable(len(line), url)


def _bearable(size: int, url: str) -> int:
    if size > _LARGEST_BYTES:
        raise RemoteError.wrong_answer(
            url, expected="events of a bearable size", got=f"more than {_LARGEST_BYTES} bytes"
        )
    return size
