"""Arrays that are put together oddly: each is answered by one problem, never by a failure of the service."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from .odd import VALUES, npy, refused

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "member",
    [
        '"spacing": [1, 1, 1e308]',
        '"spacing": [1e308, 1e308, 1e308]',
        '"spacing": [1e-320, 1, 1]',
        '"spacing": [1e-308, 1e-308, 1e-308]',
        '"spacing": [1e-12, 1, 1e12]',
        '"spacing": [-1, 1, 1]',
        '"unit": "MM"',
    ],
)
def test_a_grid_that_cannot_be(http: httpx.Client, member: str) -> None:
    body = f'{{"volume": [[[1, 2]]], {member}}}'
    answer = http.post("/predict", content=body.encode(), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("spacing", [[1e-12, 1e-12, 1e-12], [1e12, 1e12, 1e12], [1e-6, 1, 1e6]])
def test_a_grid_that_just_can_be(http: httpx.Client, spacing: list[float]) -> None:
    answer = http.post("/predict", json={"volume": [[[0, 255], [255, 0]]], "spacing": spacing})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "member",
    [
        '"overlap": "0.5"',
        '"overlap": true',
        '"overlap": NaN',
        '"overlap": 1e400',
        '"nan_as": 1e39',
        '"nan_as": "nan"',
        '"threshold": 1',
        '"patch": 5',
        '"patch": [8, 8, 8]',
        '"probabilities": 1',
        '"probabilities": "yes"',
        '"spacing": "1,1,1"',
        '"spacing": ["1", "1", "1"]',
        '"spacing": [1, 1]',
        '"spacing": null',
        '"unit": null',
        '"model": 5',
        '"model": "\\ud800"',
        '"colour": "red"',
        '"\\ud800": 1',
    ],
)
def test_a_member_of_another_type_is_not_made_to_fit(http: httpx.Client, member: str) -> None:
    body = f'{{"volume": [[[1, 2]]], {member}}}'
    refused(http.post("/predict", content=body.encode(), headers=JSON), 422, "usage")


@pytest.mark.parametrize("name", ["\x00", "a\nb", "\u2028", ""])
def test_what_is_repeated_stays_one_line(http: httpx.Client, name: str) -> None:
    answers = [
        http.post("/predict", json={"volume": [[[1]]], "model": name}),
        http.post("/predict", json={"volume": [[[1]]], "blending": name}),
        http.post("/predict", json={"volume": [[[1]]], name: 1}),
    ]
    assert [answer.status_code for answer in answers] == [404, 422, 422]
    for answer in answers:
        assert answer.json()["detail"].isprintable()


@pytest.mark.parametrize(
    "volume",
    [
        "1",
        "null",
        '"text"',
        '{"a": 1}',
        "[[[1e400]]]",
        "[[[1e308]]]",
        "[[[NaN]]]",
        "[[[1, [2]]]]",
        "[[[1], [2, 3]]]",
        "[[[]]]",
        "[" * 40 + "1" + "]" * 40,
        "[" * 70 + "1" + "]" * 70,
        "[" * 5000 + "1" + "]" * 5000,
    ],
)
def test_a_nested_list_that_is_no_array(http: httpx.Client, volume: str) -> None:
    answer = http.post("/predict", content=f'{{"volume": {volume}}}'.encode(), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_whole_numbers_beyond_64_bits_are_taken_as_floats(http: httpx.Client) -> None:
    body = b'{"volume": [[[123456789012345678901234567890, 0]]]}'
    assert http.post("/predict", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("part", [b"[],", b"[[]],", b"0,"])
def test_lists_that_would_fill_the_memory_are_refused_before_they_are_built(http: httpx.Client, part: bytes) -> None:
    body = b'{"volume": [' + part * 5_000_000 + b"0]}"
    refused(http.post("/predict", content=body, headers=JSON), 413, "limit")


def headed(header: bytes, length: int = 118) -> bytes:
    """An .npy file with a header of its own."""
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + header.ljust(length - 1) + b"\n" + VALUES.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        headed(b"(" * 8990, 9000),
        headed(b"-" * 8990 + b"1", 9000),
        headed(b"\0" * 100),
        headed(b"{'descr': (), 'fortran_order': False, 'shape': (6, 5, 4), }"),
        headed(b"{'descr': [('a',)], 'fortran_order': False, 'shape': (6, 5, 4), }"),
        headed(b"{'descr': {'names': 3}, 'fortran_order': False, 'shape': (6, 5, 4), }"),
        headed(b"{[]: 1, 'fortran_order': False, 'shape': (6, 5, 4), }"),
        headed(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-6, -5, 4), }"),
        headed(b"{'descr': '|u1', 'fortran_order': False, 'shape': (True, 5, 4), }"),
        headed(b"{'descr': '|u1', 'fortran_order': False, 'shape': (0, 99999999999999999999), }"),
        headed(b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1," * 100 + b"), }", 400),
        headed(b"{'descr': '(9999999,)u1', 'fortran_order': False, 'shape': (6, 5, 4), }"),
        npy(VALUES)[:-5],
        npy(VALUES)[:40],
        npy(VALUES.astype(np.complex64)),
        npy(VALUES.astype(np.longdouble)),
        npy(VALUES.astype("S3")),
        npy(np.zeros((2, 2))),
        npy(np.zeros((0, 2, 2))),
        npy(np.full((2, 2, 2), np.nan)),
    ],
)
def test_a_file_of_numpy_that_is_damaged(http: httpx.Client, content: bytes) -> None:
    refused(http.post("/predict", files={"volume": content}), 422, "input")
