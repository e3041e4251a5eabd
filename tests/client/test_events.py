"""Server-sent events, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.client import RemoteError
from voxport.client.following import events

URL = "http://server"
STREAM = (
    ": a comment\n\n"
    "event: job\ndata: one\n\n"
    "data:two\ndata:  lines\r\n\r\n"
    "event: näme\rdata\rdata: x:y\r\r"
    "event: forgotten\n\n"
    "id: 3\nretry: 10\nodd\ndata: last\n\n"
    "data: broken off\n"
).encode()
EXPECTED = [("job", b"one"), ("message", b"two\n lines"), ("näme", b"\nx:y"), ("message", b"last")]


def test_events_as_the_standard_has_them() -> None:
    assert list(events([STREAM], URL)) == EXPECTED


@given(st.lists(st.integers(0, len(STREAM))))
def test_how_a_stream_is_cut_into_pieces_makes_no_difference(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(ends)]
    assert list(events(pieces, URL)) == EXPECTED


def test_an_event_is_there_as_soon_as_it_ends() -> None:
    left = [b"data: one\r\r", b"data: two\n\n", b"never asked for"]
    found = events((left.pop(0) for _ in range(3)), URL)
    assert next(found) == ("message", b"one")
    assert len(left) == 2
    assert next(found) == ("message", b"two")
    assert len(left) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x" * 2**20, b"x"],
        [b"\n", b"data: " + b"x" * 2**20],
        [b"data: " + b"x" * 2**20 + b"\n\n"],
        [b"data: x\n\n" + b"x" * (2**20 + 1) + b"\n"],
        [b"data:" + b"x" * 1023 + b"\n"] * 1025,
    ],
)
def test_what_is_too_large_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(RemoteError, match="bearable"):
        list(events(pieces, URL))


def test_a_stream_that_is_long_is_none_that_is_too_large() -> None:
    assert len(list(events([b": comment\n", b"data: " + b"x" * 2**19 + b"\n\n"] * 10, URL))) == 10
