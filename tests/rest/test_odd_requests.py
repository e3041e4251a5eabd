"""Requests that are put together oddly: each is answered by one problem, never by a failure of the service."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import httpx
import pytest
from voxport.application import Application
from voxport.entrypoints.rest.app import create_app

from .odd import SCAN, npy, refused

NO_NUMBERS = ["nan", "inf", "-inf", "1e400", "1e308", "-1e308", "null", "0x1", "0.5\0", "9" * 5000, ""]
NO_EDGES = ["8", "8,8", "8,8,8,8", "8,8,8.0", "-8,8,8", "0,0,0", "\u00b2,8,8", "\0,8,8", "8" * 41]
NO_UTF_8 = ["undefined", "utf-8; charset=undefined", "punycode", "idna", "utf-16", "unicode_escape", "hex", "no-such"]
NO_PATHS = ["/v1/models/", "/segment/", "/health/", "/.//health", "/docs/", "/redoc", "/v1/models/%ff"]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("field", ["overlap", "threshold", "nan_as"])
def test_a_field_that_is_no_usable_number(http: httpx.Client, field: str, value: str) -> None:
    for path, content in (("/segment", SCAN), ("/v1/plan", SCAN), ("/predict", npy())):
        refused(http.post(path, files={"volume": content}, data={field: value}), 422, "usage")


@pytest.mark.parametrize("value", NO_EDGES)
def test_a_patch_that_is_no_three_edges(http: httpx.Client, value: str) -> None:
    for path, content in (("/segment", SCAN), ("/v1/plan", SCAN), ("/predict", npy())):
        refused(http.post(path, files={"volume": content}, data={"patch": value}), 422, "usage")


def test_a_patch_beyond_all_measure_is_no_larger_than_the_volume(http: httpx.Client) -> None:
    answer = http.post("/v1/plan", files={"volume": SCAN}, data={"patch": "999999999999,999999999999,999999999999"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["tiles"] == 1


WRONG_OPTIONS = {"overlap": "0.9", "threshold": "0", "nan_as": "1e39", "patch": "0,8,8", "axis": "w"}


@pytest.mark.parametrize(("field", "value"), WRONG_OPTIONS.items())
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_a_refused_option_is_named_by_its_form_field_not_by_a_flag(
    http: httpx.Client, path: str, field: str, value: str
) -> None:
    content = npy() if path == "/predict" else SCAN
    detail = refused(http.post(path, files={"volume": content}, data={field: value}), 422, "usage")
    assert detail.startswith(f"{field}: expected "), detail
    assert "--" not in detail


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_a_field_that_there_is_not_is_named(http: httpx.Client, path: str) -> None:
    """A misspelt option would otherwise be a mask made in another way than was asked for."""
    content = npy() if path == "/predict" else SCAN
    assert "overlpa" in refused(http.post(path, files={"volume": content}, data={"overlpa": "0"}), 422, "usage")
    files = [("volume", content), ("mask", content)]
    answer = http.post(path, files=files)
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_a_field_given_twice_is_refused(http: httpx.Client, path: str) -> None:
    content = npy() if path == "/predict" else SCAN
    answer = http.post(path, files={"volume": content}, data={"overlap": ["0", "0.5"]})
    assert "overlap" in refused(answer, 422, "usage")


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_files_and_texts_are_not_exchanged(http: httpx.Client, path: str) -> None:
    refused(http.post(path, files={"model": (None, "edges"), "volume": (None, "text")}), 422, "usage")
    answer = http.post(path, files=[("volume", SCAN), ("model", ("m", b"edges"))])
    assert answer.status_code in (400, 422), answer.text
    assert http.post(path, files={"volume": ("", SCAN)}).status_code == 422


def test_more_of_a_field_than_there_may_be(http: httpx.Client) -> None:
    scan = [("volume", SCAN)]
    for data in ({"model": ["edges"] * 17}, {"outputs": ["mask"] * 7}):
        refused(http.post("/segment", files=scan, data=data), 422, "usage")
    refused(http.post("/segment", files=scan * 65), 422, "usage")
    refused(http.post("/segment", files=scan, data={"model": "m" * 201}), 422, "usage")


@pytest.mark.parametrize("charset", NO_UTF_8)
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_a_form_in_another_character_set_is_refused(http: httpx.Client, path: str, charset: str) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="volume"; filename="v"\r\n\r\n' + SCAN + b"\r\n"
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\\ud800\r\n--x--\r\n'
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    refused(http.post(path, content=form, headers=headers), 415, "media-type")


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"junk" * 99,
        b"--x--\r\n",
        b"--x\r\n\r\n1\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="volume"; filename="v"\r\n\r\nnever closed',
        b'--x\nContent-Disposition: form-data; name="volume"; filename="v"\n\n1\n--x--\n',
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + b"m" * 1_100_000 + b"\r\n--x--\r\n",
        b"--x\r\n" + b"A: b\r\n" * 9999 + b"\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="volume"; filename="'
        + b"v" * 50_000
        + b'"\r\n\r\n1\r\n--x--\r\n',
    ],
)
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_a_form_that_is_torn(http: httpx.Client, path: str, form: bytes) -> None:
    answer = http.post(path, content=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'b' * 5000}", "; boundary=\xff"])
def test_a_boundary_that_is_none(http: httpx.Client, boundary: str) -> None:
    headers = {b"Content-Type": f"multipart/form-data{boundary}".encode("latin-1")}
    refused(http.post("/segment", content=b"--b\r\n\r\n", headers=headers), 400, "malformed")


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "application/gzip;q=nan", ";;;,,,", "a" * 5000])
def test_an_answer_in_no_form_that_there_is(http: httpx.Client, accept: str) -> None:
    refused(http.post("/segment", files={"volume": SCAN}, headers={"Accept": accept}), 406, "not-acceptable")


@pytest.mark.parametrize("path", NO_PATHS)
def test_nothing_is_redirected(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404, answer.headers
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO"])
def test_a_method_that_a_path_does_not_take(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/segment")
    refused(answer, 405, "method")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_no_room_for_an_upload_is_not_the_callers_fault(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPORT_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    app = create_app(Application.build())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.post(path, files={"volume": bytes(2**21)})

    assert "with room" in refused(asyncio.run(send()), 507, "output")


def test_the_service_failed_at_nothing(http: httpx.Client) -> None:
    """All that the tests of this service sent has left no failure behind; it comes last in the file."""
    assert 'kind="internal"' not in http.get("/metrics").text
