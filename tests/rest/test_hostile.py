"""What an unkind caller sends to a real service with a key and small limits: one problem each, and it serves on."""

from __future__ import annotations

import gzip
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from tests.cli.conftest import environment

from .conftest import named_model
from .serving import Server, free_port, is_ready, running_server, start_server

KEY, OTHER_KEY = "correct-horse-battery", "staple-of-another-lab"
LIMITS = {
    "VOXPORT_API_KEYS": f"{KEY},{OTHER_KEY}",
    "VOXPORT_MAX_VOXELS": "200000",
    "VOXPORT_SERVING__MAX_BODY_BYTES": "300000",
    "VOXPORT_SERVING__TIME_LIMIT_SECONDS": "3",
    "VOXPORT_SERVING__QUEUE": "1",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with keys, small limits, a queue of one, a quick model and a slow one."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "scratch").mkdir()
    named_model(folder / "models", "quick")
    # tiles that overlap by three quarters along each axis: thousands of calls
    named_model(folder / "models", "slow", radius=3, overlap=0.75)
    arguments = ("--models", str(folder / "models"), "-m", "quick")
    with running_server(folder, *arguments, env=LIMITS | {"VOXPORT_SCRATCH_DIR": str(folder / "scratch")}) as server:
        yield server


@pytest.fixture
def http(guarded: Server) -> Iterator[httpx.Client]:
    with guarded.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(autouse=True)
def serves_on(guarded: Server, http: httpx.Client) -> Iterator[None]:
    """After whatever was sent, a good volume is segmented and nothing of a request is left."""
    yield
    guarded.wait_until(lambda _: not list((guarded.log.parent / "scratch").iterdir()))
    guarded.wait_until(lambda _: http.post("/segment", files={"volume": nifti()}).status_code == 200)
    assert "Traceback" not in guarded.log.read_text(encoding="utf-8")


def nifti(shape: tuple[int, ...] = (12, 12, 9), *, claims: tuple[int, ...] | None = None) -> bytes:
    """A gzipped volume of noise; its header may claim another shape."""
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = bytearray(nib.Nifti1Image(values, np.eye(4)).to_bytes())
    if claims is not None:
        content[40:56] = struct.pack("<8h", len(claims), *claims, *[1] * (7 - len(claims)))
    return gzip.compress(bytes(content), 1)


def refused(answer: httpx.Response, status: int, kind: str) -> str:
    """The detail of a problem; AssertionError if the answer is anything else, or says too much."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:voxport:problem:{kind}"
    assert body["instance"] == f"urn:uuid:{answer.headers['voxport-request']}"
    for secret in ("Traceback", ".py", "site-packages", "/tmp", KEY):
        assert secret not in answer.text
    return str(body["detail"])


@pytest.mark.requirement("R-ACCESS")
def test_no_key_and_a_wrong_key_are_refused_and_either_right_one_is_not(guarded: Server) -> None:
    with guarded.client() as http:
        for headers in ({}, {"X-API-Key": KEY + "x"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer"}):
            for path in ("/health", "/v1/models", "/metrics", "/openapi.json", "/nothing"):
                refused(http.get(path, headers=headers), 401, "unauthorised")
            refused(http.post("/segment", headers=headers, files={"volume": nifti()}), 401, "unauthorised")
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {OTHER_KEY}"}):
            assert http.get("/health", headers=headers).status_code == 200
        assert http.get("/livez").status_code == http.get("/readyz").status_code == 200


def test_a_body_beyond_the_limit_is_refused_before_it_is_read_and_while(http: httpx.Client) -> None:
    noise = np.random.default_rng(0).bytes(400_000)
    refused(http.post("/segment", files={"volume": noise}), 413, "limit")

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="volume"; filename="v.nii"\r\n\r\n'
        for _ in range(40):
            yield noise[:20_000]

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(http.post("/segment", content=endless(), headers=headers), 413, "limit")


def test_more_voxels_than_the_limit_are_refused_before_they_are_inflated(http: httpx.Client) -> None:
    zeros = gzip.compress(nib.Nifti1Image(np.zeros((100, 100, 30), np.uint8), np.eye(4)).to_bytes(), 9)
    assert "200000" in refused(http.post("/segment", files={"volume": zeros}), 413, "limit")


def test_a_header_that_claims_a_million_million_voxels_is_refused(http: httpx.Client) -> None:
    claims = nifti(claims=(30000, 30000, 1000))
    assert "900000000352 bytes" in refused(http.post("/segment", files={"volume": claims}), 422, "input")


def test_a_gzip_bomb_is_stopped_while_it_inflates(http: httpx.Client) -> None:
    """100 MB of zeros in 100 kB, behind the header of a small volume."""
    honest = gzip.decompress(nifti())
    bomb = gzip.compress(honest + bytes(100_000_000), 9)
    assert len(bomb) < 300_000
    refused(http.post("/segment", files={"volume": bomb}), 422, "input")


@pytest.mark.parametrize(
    "volume",
    [b"", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(40), b"not a volume", bytes(348), b"\x80\x04\x95pickle", nifti()[:-9]],
)
def test_what_is_no_volume_is_refused(http: httpx.Client, volume: bytes) -> None:
    refused(http.post("/segment", files={"volume": volume}), 422, "input")


@pytest.mark.parametrize(
    "name",
    ["../../../../tmp/voxport-escape.nii.gz", "/etc/passwd", "a\x00b", "..", "C:\\x.nii", "\u202egz.nii", "x" * 3000],
)
def test_a_file_name_leads_nowhere(http: httpx.Client, name: str) -> None:
    answer = http.post("/segment", files={"volume": (name, nifti())})
    assert answer.status_code == 200, answer.text
    assert "volume_1.nii.gz" in answer.headers["voxport-report"]
    assert not Path("/tmp/voxport-escape.nii.gz").exists()


@pytest.mark.parametrize("text", ["http://127.0.0.1:1/x.nii", "file:///etc/passwd", "/etc/passwd", "../model.onnx"])
@pytest.mark.parametrize("path", ["/segment", "/v1/plan", "/predict"])
def test_text_in_place_of_a_file_is_neither_fetched_nor_opened(http: httpx.Client, text: str, path: str) -> None:
    boundary = f'--x\r\nContent-Disposition: form-data; name="volume"\r\n\r\n{text}\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    detail = refused(http.post(path, content=boundary.encode(), headers=headers), 422, "usage")
    assert "passwd" not in detail


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "/etc/passwd", "http://127.0.0.1:1/m.onnx", "quick.onnx", "", "\x00"]
)
def test_a_model_is_named_never_opened(http: httpx.Client, model: str) -> None:
    answer = http.post("/segment", files={"volume": nifti()}, data={"model": model})
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("media_type", ["application/vnd.bentoml+pickle", "application/x-pickle", "text/plain", ""])
@pytest.mark.parametrize("path", ["/segment", "/predict", "/v1/plan"])
def test_other_media_types_are_refused(http: httpx.Client, path: str, media_type: str) -> None:
    refused(http.post(path, content=b"\x80\x04\x95", headers={"Content-Type": media_type}), 415, "media-type")


def test_compressed_bodies_are_refused(http: httpx.Client) -> None:
    body = gzip.compress(bytes(10_000_000))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    refused(http.post("/predict", content=body, headers=headers), 415, "media-type")


def test_json_that_nests_or_grows_without_end_is_refused(http: httpx.Client) -> None:
    deep = b'{"volume":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refused(http.post("/predict", content=deep, headers={"Content-Type": "application/json"}), 422, "usage")
    not_closed = b'{"volume":' + b"[1," * 90_000
    refused(http.post("/predict", content=not_closed, headers={"Content-Type": "application/json"}), 422, "usage")


def test_a_run_beyond_the_time_limit_is_stopped(http: httpx.Client) -> None:
    slow = http.post("/segment", files={"volume": nifti((60, 60, 50))}, data={"model": "slow"})
    refused(slow, 504, "timeout")


def test_a_full_queue_answers_at_once_with_when_to_come_again(guarded: Server) -> None:
    statuses: list[int] = []
    retry: list[str] = []
    kinds: list[str] = []

    def send() -> None:
        with guarded.client(headers={"X-API-Key": KEY}) as own:
            answer = own.post("/segment", files={"volume": nifti((60, 60, 40))}, data={"model": "slow"})
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            retry.append(answer.headers["retry-after"])
            kinds.append(answer.json()["type"])

    callers = [threading.Thread(target=send) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert set(statuses) <= {503, 504, 200}
    assert statuses.count(503) == 3
    assert all(1 <= int(seconds) <= 60 for seconds in retry)
    assert set(kinds) == {"urn:voxport:problem:busy"}


def test_a_caller_who_hangs_up_frees_the_slot(guarded: Server, http: httpx.Client) -> None:
    content = nifti((60, 60, 40))
    body = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nslow\r\n'
        b'--x\r\nContent-Disposition: form-data; name="volume"; filename="v"\r\n\r\n' + content + b"\r\n--x--\r\n"
    )
    head = (
        f"POST /segment HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(guarded.url.rsplit(":", 1)[1]))) as caller:
        caller.sendall(head.encode() + body)
        guarded.wait_until(lambda _: http.get("/health").json()["in_flight"] == 1)
    guarded.wait_until(lambda _: http.get("/health").json()["in_flight"] == 0)


def test_rates_are_limited_for_each_key(tmp_path: Path) -> None:
    named_model(tmp_path / "models", "quick")
    env = {"VOXPORT_API_KEYS": f"{KEY},{OTHER_KEY}", "VOXPORT_SERVING__RATE_PER_MINUTE": "5"}
    with (
        running_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "quick", env=env) as server,
        server.client(headers={"X-API-Key": KEY}) as http,
    ):
        answers = [http.get("/v1/models") for _ in range(7)]
        assert [a.status_code for a in answers] == [200] * 5 + [429] * 2
        refused(answers[-1], 429, "rate")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert http.get("/v1/models", headers={"X-API-Key": OTHER_KEY}).status_code == 200


def refused_start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``voxport serve`` says where it ends at once."""
    return subprocess.run(
        [sys.executable, "-m", "voxport", "serve", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.requirement("R-ACCESS")
@pytest.mark.parametrize(
    ("host", "words"), [("0.0.0.0", "VOXPORT_API_KEYS"), ("::", "VOXPORT_API_KEYS"), ("lab.example", "an IP address")]
)
def test_an_open_bind_without_a_key_does_not_start(tmp_path: Path, host: str, words: str) -> None:
    ended = refused_start(tmp_path, "--host", host, "--port", str(free_port()))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert words in line


def test_plain_bentoml_without_a_key_serves_no_other_host_or_site(tmp_path: Path) -> None:
    named_model(tmp_path / "models", "quick")
    env = {
        "VOXPORT_MODELS_DIR": str(tmp_path / "models"),
        "VOXPORT_MODEL": "quick",
        "VOXPORT_SERVING__INSECURE": "false",
    }
    with running_server(tmp_path, env=env, plain=True) as server, server.client() as http:
        refused(http.get("/health", headers={"Host": "evil.example"}), 403, "forbidden")
        refused(http.get("/health", headers={"Origin": "https://evil.example"}), 403, "forbidden")


def test_a_port_in_use_is_told_of_in_one_line(guarded: Server, tmp_path: Path) -> None:
    port = guarded.url.rsplit(":", 1)[1]
    ended = refused_start(tmp_path, "--port", port)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "another with --port" in ended.stderr


def test_callers_who_hung_up_in_mid_upload_do_not_keep_the_service_from_ending(tmp_path: Path) -> None:
    named_model(tmp_path / "models", "quick")
    server = start_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "quick")
    try:
        server.wait_until(is_ready)
        head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        part = b'--x\r\nContent-Disposition: form-data; name="volume"; filename="v"\r\n\r\n' + bytes(100_000)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as caller:
                caller.sendall(head + b"Content-Length: 9000000\r\n\r\n" + part)
        server.wait_until(lambda _: server.log.read_text(encoding="utf-8").count('"status": null') == 3)
    finally:
        began = time.monotonic()
        server.stop()
    assert time.monotonic() - began < 30
