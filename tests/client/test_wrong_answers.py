"""Servers that fail, lie, or are something else: one clear line each, and not a file on disk."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import ssl
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from voxport.client import Client, LostAnswerError, RemoteError, UnreachableError
from voxport.client.downloads import chunks
from voxport.client.errors import one_line
from voxport.domain.errors import (
    BusyError,
    InputError,
    LimitError,
    ModelError,
    OutputError,
    TimeLimitError,
    UnknownJobError,
    UnknownModelError,
    UsageError,
    VoxportError,
)

from .conftest import rude

ZIP = "application/zip"
PROBLEM = "application/problem+json"
FOLDER = "two-photon-vessels-1.1.0"


def present(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


Change = Callable[[httpx.Response], httpx.Response]
Changed = Callable[[Change], Client]
Refused = Callable[..., VoxportError]


@pytest.fixture
def changed(transport: httpx.BaseTransport) -> Changed:
    """Makes clients of the application whose answers are changed on the way."""

    def client(change: Change) -> Client:
        def answer(request: httpx.Request) -> httpx.Response:
            return change(transport.handle_request(request))

        return Client(transport=httpx.MockTransport(answer))

    return client


@pytest.fixture
def refused(changed: Changed, scan: Path, tmp_path: Path) -> Refused:
    """Gives the error of a segmentation whose answer is changed; nothing may be left of it."""

    def error(change: Change, name: str = "mask.nii.gz") -> VoxportError:
        before = present(tmp_path)
        with changed(change) as client, pytest.raises(VoxportError) as caught:
            client.segment(scan, tmp_path / name, outputs={"statistics": tmp_path / "s.json"})
        assert present(tmp_path) == before
        assert len(str(caught.value).splitlines()) == 1
        return caught.value

    return error


def members(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.headers["Content-Type"] == ZIP, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> httpx.Response:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return httpx.Response(200, content=file.getvalue(), headers={"Content-Type": ZIP})


def changed_member(name: str, content: bytes | None) -> Callable[[httpx.Response], httpx.Response]:
    """Put other content into a member of the archive; None takes the member out."""

    def change(answer: httpx.Response) -> httpx.Response:
        inside = members(answer)
        assert content is None or name in inside
        kept = {known: data for known, data in inside.items() if known != name}
        return zipped(kept if content is None else kept | {name: content})

    return change


def changed_report(change: Callable[[dict[str, Any]], object]) -> Callable[[httpx.Response], httpx.Response]:
    def changed(answer: httpx.Response) -> httpx.Response:
        inside = members(answer)
        report = json.loads(inside[f"{FOLDER}/report.json"])
        change(report)
        return zipped(inside | {f"{FOLDER}/report.json": json.dumps(report).encode()})

    return changed


def added_member(name: str) -> Callable[[httpx.Response], httpx.Response]:
    return lambda answer: zipped(members(answer) | {name: b"data"})


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/etc/passwd", f"{FOLDER}/../../escaped", f"{FOLDER}/extra.txt", "C:\\escaped", "mask.nii.gz"],
)
def test_a_member_that_was_not_asked_for(refused: Refused, name: str) -> None:
    error = refused(added_member(name))
    assert isinstance(error, RemoteError)
    assert one_line(name).split("\\")[-1] in str(error)


@pytest.mark.parametrize(
    "name", ["results.json", *(f"{FOLDER}/{m}" for m in ("mask.nii.gz", "report.json", "statistics.json"))]
)
def test_a_member_that_is_missing(refused: Refused, name: str) -> None:
    error = refused(changed_member(name, None))
    assert isinstance(error, RemoteError)
    assert name.split("/")[-1] in str(error)


def test_a_member_that_comes_twice(refused: Refused) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        file = io.BytesIO(answer.content)
        with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"{FOLDER}/mask.nii.gz", b"another")
        return httpx.Response(200, content=file.getvalue(), headers={"Content-Type": ZIP})

    assert "twice" in str(refused(change))


def test_members_that_would_inflate(refused: Refused) -> None:
    error = refused(lambda answer: zipped(members(answer), zipfile.ZIP_DEFLATED))
    assert "compressed" in str(error)


def test_members_that_are_encrypted(refused: Refused) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        content = bytearray(answer.content)
        # the flags of the first entry of the central directory
        content[content.index(b"PK\x01\x02") + 8] |= 1
        return httpx.Response(200, content=bytes(content), headers={"Content-Type": ZIP})

    assert "encrypted" in str(refused(change))


def test_members_that_say_they_are_larger_than_the_archive(refused: Refused) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        content = bytearray(answer.content)
        entry = content.index(b"PK\x01\x02")
        # compressed and uncompressed size in the central directory
        content[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
        return httpx.Response(200, content=bytes(content), headers={"Content-Type": ZIP})

    assert isinstance(refused(change), RemoteError)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_short(refused: Refused, share: float) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        content = answer.content[: int(len(answer.content) * share)]
        return httpx.Response(200, content=content, headers={"Content-Type": ZIP})

    assert isinstance(refused(change), RemoteError)


def test_a_bit_that_fell_over(refused: Refused) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        content = bytearray(answer.content)
        content[content.index(b"\x1f\x8b") + 200] ^= 1
        return httpx.Response(200, content=bytes(content), headers={"Content-Type": ZIP})

    assert "damaged" in str(refused(change))


def huge_header() -> bytes:
    """A header that promises little, before much."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    return bytes(image.to_bytes()) + bytes(2**24)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<html>no mask</html>", gzip.compress(b"no volume"), gzip.compress(b"\0" * 400), gzip.compress(b"")],
    ids=["empty", "text", "other gzip", "zeros", "empty gzip"],
)
def test_a_mask_that_is_none(refused: Refused, content: bytes, name: str) -> None:
    error = refused(changed_member(f"{FOLDER}/mask.nii.gz", content), name=name)
    assert "NIfTI" in str(error)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("inflate", [False, True])
def test_volumes_of_every_kind_pass_as_they_are(version: int, big_endian: bool, inflate: bool) -> None:
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = kind.header_class(endianness=">" if big_endian else "<")
    plain = kind(np.ones((5, 4, 3, 2), np.float32), np.eye(4), header).to_bytes()
    stored = gzip.compress(plain)
    passed = b"".join(chunks(io.BytesIO(stored), inflate=inflate, url="http://server"))
    assert passed == (plain if inflate else stored)


def test_a_header_that_makes_no_sense_is_none(refused: Refused) -> None:
    plain = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())
    plain[42:44] = struct.pack("<h", -2)
    bad = changed_member(f"{FOLDER}/mask.nii.gz", gzip.compress(bytes(plain)))
    assert "no sense" in str(refused(bad))


def test_a_mask_that_inflates_to_more_than_it_says(refused: Refused) -> None:
    bomb = changed_member(f"{FOLDER}/mask.nii.gz", gzip.compress(huge_header()))
    assert "longer" in str(refused(bomb, name="mask.nii"))
    short = changed_member(f"{FOLDER}/mask.nii.gz", gzip.compress(huge_header()[:355]))
    assert "shorter" in str(refused(short, name="mask.nii"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.clear(), "without"),
        (lambda report: report["statistics"].pop("labels"), "labels"),
        (lambda report: report["statistics"].update(labels="none"), "one whose"),
        (lambda report: report["tiles"].update(count="many"), "one whose"),
        (lambda report: report["tiles"].update(blending="\x1b[2J"), "one whose"),
        (lambda report: report["grid"].update(unit="\x1b[2J"), "one whose"),
        (lambda report: report["model"].update(name="../there"), "one whose"),
        (lambda report: report.update(seconds=[1, 2]), "one whose"),
        (lambda report: report.update(warnings=None), "one whose"),
        (lambda report: report["inputs"][0].update(sha256="0" * 64), "others, by their sha256"),
        (lambda report: report["inputs"].append(report["inputs"][0]), "others, by their sha256"),
    ],
)
def test_a_report_that_is_none(refused: Refused, change: Callable[[dict[str, Any]], object], said: str) -> None:
    assert said in str(refused(changed_report(change)))


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'{"results": []}', b'{"results": [1]}', b"\xff"])
def test_results_that_list_none(refused: Refused, content: bytes) -> None:
    assert isinstance(refused(changed_member("results.json", content)), RemoteError)


@pytest.mark.parametrize("model", [None, 7, "two-photon-vessels", "../..:1", "a:../..", "a:b/c", "a:1\n"])
def test_results_of_a_model_with_no_proper_name(refused: Refused, model: object) -> None:
    content = json.dumps({"results": [{"model": model, "report": {}}]}).encode()
    assert isinstance(refused(changed_member("results.json", content)), RemoteError)


def test_results_of_several_models_where_one_was_asked(refused: Refused) -> None:
    def change(answer: httpx.Response) -> httpx.Response:
        inside = members(answer)
        results = json.loads(inside["results.json"])["results"]
        problem = {"type": "urn:voxport:problem:model", "title": "bad", "status": 422, "detail": "bad"}
        other = {"model": "kidneys:1", "problem": problem | {"instance": "urn:uuid:1"}}
        return zipped(inside | {"results.json": json.dumps({"results": [*results, other]}).encode()})

    assert "2 models" in str(refused(change))


def test_several_models_leave_nothing_where_one_archive_is_wrong(changed: Changed, scan: Path, tmp_path: Path) -> None:
    change = changed_member("kidneys-2.0.0-rc.1/mask.nii.gz", b"no mask")
    before = present(tmp_path)
    with changed(change) as client, pytest.raises(RemoteError, match="NIfTI"):
        client.segment_many(scan, tmp_path, models=["two-photon-vessels", "kidneys"])
    assert present(tmp_path) == before


def test_what_a_server_says_cannot_steer_a_terminal(changed: Changed, scan: Path, tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\nsecond line\u202e"

    def change(report: dict[str, Any]) -> None:
        report["warnings"] = [hostile]
        report["statistics"]["labels"][0]["name"] = hostile

    with changed(changed_report(change)) as client:
        report = client.segment(scan, tmp_path / "mask.nii.gz")
    assert report["warnings"][0].isprintable()
    assert report["statistics"]["labels"][0]["name"].isprintable()
    assert one_line("x" * 10_000).endswith("...")


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (422, "usage", UsageError),
        (422, "input", InputError),
        (422, "model", ModelError),
        (404, "unknown-model", UnknownModelError),
        (503, "model-unavailable", ModelError),
        (413, "limit", LimitError),
        (504, "timeout", TimeLimitError),
        (507, "output", OutputError),
        (503, "busy", BusyError),
        (429, "rate", BusyError),
        (503, "unavailable", BusyError),
        (404, "unknown-job", UnknownJobError),
        (409, "conflict", UsageError),
        (401, "unauthorised", UsageError),
        (403, "forbidden", UsageError),
        (503, "cancelled", RemoteError),
        (404, "not-found", RemoteError),
        (405, "method", RemoteError),
        (415, "media-type", RemoteError),
        (406, "not-acceptable", RemoteError),
        (500, "internal", RemoteError),
        (418, "of-the-future", RemoteError),
    ],
)
def test_each_kind_of_problem_has_its_error(
    refused: Refused, scan: Path, status: int, kind: str, error: type[VoxportError]
) -> None:
    body = {"type": f"urn:voxport:problem:{kind}", "title": "A title", "status": status}
    words = {"expected": "this", "got": "that", "do": "mend it"}
    detail = "volume_1.nii.gz: expected this, got that; mend it"

    def full(_: httpx.Response) -> httpx.Response:
        return httpx.Response(status, json=body | words | {"detail": detail}, headers={"Content-Type": PROBLEM})

    def bare(_: httpx.Response) -> httpx.Response:
        kept = body | {"detail": "no luck", "instance": "urn:uuid:1234"}
        return httpx.Response(status, json=kept, headers={"Content-Type": PROBLEM})

    found = refused(full)
    assert type(found) is error
    assert (found.expected, found.got) == ("this", "that")
    assert found.subject == str(scan)
    found = refused(bare)
    assert type(found) is error
    assert "no luck" in found.got
    assert error is not RemoteError or kind == "not-found" or "1234" in found.do


def test_a_model_that_is_loading_says_when_to_ask_again(refused: Refused) -> None:
    body = {"type": "urn:voxport:problem:model-unavailable", "detail": "two-photon-vessels: still being loaded"}
    headers = {"Content-Type": PROBLEM, "Retry-After": "5"}
    error = refused(lambda _: httpx.Response(503, json=body, headers=headers))
    assert isinstance(error, ModelError)
    assert error.do == "try again in 5 s"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), "502 Bad Gateway"),
        (httpx.Response(799, text="?"), "799"),
        (httpx.Response(200, html="<h1>Hello</h1>"), "text/html"),
        (httpx.Response(200, json={"results": []}), "application/json"),
        (httpx.Response(200, content=b""), "no media type"),
        (httpx.Response(500, content=b"{", headers={"Content-Type": PROBLEM}), "500"),
        (httpx.Response(500, content=b"[1]", headers={"Content-Type": PROBLEM}), "500"),
        (httpx.Response(500, content=b"{}", headers={"Content-Type": PROBLEM}), "None"),
        (httpx.Response(500, content=b" " * 2**20, headers={"Content-Type": PROBLEM}), "500"),
        (httpx.Response(302, headers={"Location": "/login"}), "/login"),
        (httpx.Response(204), "204"),
    ],
)
def test_answers_that_are_not_voxports(refused: Refused, answer: httpx.Response, said: str) -> None:
    error = refused(lambda _: answer)
    assert isinstance(error, RemoteError)
    assert said in str(error)


@pytest.mark.parametrize("content", [b"", b"[]", b"nonsense", b"[" * 100_000])
def test_json_that_is_none(content: bytes) -> None:
    answer = httpx.Response(200, content=content, headers={"Content-Type": "application/json"})
    with Client(transport=httpx.MockTransport(lambda _: answer)) as client:
        with pytest.raises(RemoteError, match="JSON"):
            client.models()
        with pytest.raises(RemoteError, match="JSON"):
            client.predict(np.zeros((2, 2, 2)))


@pytest.mark.parametrize(
    "change",
    [
        {"segmentation": [[[0, 1]], [[0]]]},
        {"segmentation": [[[0.5, 1.0]]]},
        {"segmentation": [[[-1, 1]]]},
        {"segmentation": [[[0, 1, 1]]]},
        {"segmentation": []},
        {"probabilities": [[[[0.5]]]]},
        {"labels": [{"value": 1}]},
        {"timings": 3},
        {"statistics": None},
    ],
)
def test_predictions_that_are_none(changed: Changed, change: dict[str, Any]) -> None:
    with (
        changed(lambda answer: httpx.Response(200, json=answer.json() | change)) as client,
        pytest.raises(RemoteError),
    ):
        client.predict(np.array([[[0, 9]]]))


class Trickle(httpx.SyncByteStream):
    """Pieces of an answer."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._pieces):
            yield bytes(2**16)


def test_an_answer_goes_to_disk_and_not_into_memory(scan: Path, tmp_path: Path) -> None:
    answer = httpx.Response(200, headers={"Content-Type": ZIP}, stream=Trickle(1000))
    with Client(transport=httpx.MockTransport(lambda _: answer)) as client:
        tracemalloc.start()
        with pytest.raises(RemoteError):
            client.segment(scan, tmp_path / "mask.nii.gz")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**23


def test_json_that_never_ends_is_given_up() -> None:
    answer = httpx.Response(200, headers={"Content-Type": "application/json"}, stream=Trickle(2000))
    with Client(transport=httpx.MockTransport(lambda _: answer)) as client, pytest.raises(RemoteError, match="size"):
        client.models()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP", "broke off"),
        (HEAD, "broke off"),
        (HEAD + b"Content-Length: 100000\r\n\r\nPK", "broke off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nPK", "broke off"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "broke off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "broke off"),
    ],
)
def test_a_server_that_dies_midway(scan: Path, tmp_path: Path, answer: bytes, said: str) -> None:
    before = present(tmp_path)
    # the end of the form
    with rude(answer, read=b"--\r\n") as url, Client(url) as client, pytest.raises(RemoteError, match=said):
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert present(tmp_path) == before


def test_a_server_that_hangs_up_while_it_is_sent_to(tmp_path: Path) -> None:
    large = tmp_path / "large.nii"
    with large.open("wb") as file:
        file.truncate(2**26)
    with rude(b"?") as url, Client(url) as client, pytest.raises(RemoteError) as caught:
        client.segment(large, tmp_path / "mask.nii.gz")
    assert "sending" in str(caught.value) or "broke off" in str(caught.value)


@pytest.mark.parametrize("size", [0, 2**18, 2**22])
def test_a_volume_that_is_written_to_while_it_is_sent(client: Client, scan: Path, tmp_path: Path, size: int) -> None:
    def change(stage: str, done: int, total: int) -> None:  # noqa: ARG001 - the signature is the client's
        if done <= 2**17:
            os.truncate(large, size)

    large = tmp_path / "volume_2.nii"
    large.write_bytes(bytes(2**20))
    with pytest.raises(InputError, match=r"volume_2\.nii: .* changed"):
        client.segment([large, scan], tmp_path / "mask.nii.gz", on_progress=change)
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_server_that_is_silent(scan: Path, tmp_path: Path) -> None:
    with (
        rude(b"", read=b"--\r\n") as url,
        Client(url, timeout_seconds=0.2) as client,
        pytest.raises(RemoteError, match=r"silence for 0\.2 s"),
    ):
        client.segment(scan, tmp_path / "mask.nii.gz")


def test_no_server_at_all(scan: Path, tmp_path: Path) -> None:
    with socket.socket() as held:
        # bound and not listening: nobody else gets the port, and nobody answers
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with Client(url) as client, pytest.raises(RemoteError, match=r"connection refused; .*that the server runs"):
            client.segment(scan, tmp_path / "mask.nii.gz")


def test_a_machine_that_does_not_answer() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("timed out", request=request)

    with (
        Client("http://voxport.lab.invalid", transport=httpx.MockTransport(lost)) as client,
        pytest.raises(RemoteError, match=r"a connection, got no answer; .*that the server runs"),
    ):
        client.health()


def test_no_such_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Client("http://voxport.lab.invalid") as client, pytest.raises(RemoteError, match="name or service not known"):
        client.health()


def test_https_where_http_is_spoken() -> None:
    with (
        rude(b"HTTP/1.1 400 Bad Request\r\n\r\n", read=b"") as url,
        Client(url.replace("http:", "https:")) as client,
        pytest.raises(RemoteError, match="secure connection"),
    ):
        client.health()


def test_a_secure_connection_that_ends_too_early_is_one_that_broke() -> None:
    def cut(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("cut", request=request) from ssl.SSLEOFError(8, "unexpected end of file")

    def forged(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("forged", request=request) from ssl.SSLError(1, "bad record")

    with Client(transport=httpx.MockTransport(cut)) as client, pytest.raises(LostAnswerError, match="broke off"):
        client.models()
    with Client(transport=httpx.MockTransport(forged)) as client, pytest.raises(RemoteError, match="secure") as caught:
        client.models()
    assert not isinstance(caught.value, UnreachableError)


def test_a_disk_that_is_full(changed: Changed, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    def change(answer: httpx.Response) -> httpx.Response:
        monkeypatch.setattr("os.fsync", full)
        return answer

    before = present(tmp_path)
    with changed(change) as client, pytest.raises(OutputError, match="no space left on device"):
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert present(tmp_path) == before
