"""What goes out: fields, neutral names, keys, and where to; and what is refused before anything does."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from voxport.client import Client, RemoteError
from voxport.client.forms import is_loopback
from voxport.domain.errors import BusyError, InputError, LimitError, OutputError, UsageError

from .conftest import form_of, problem, rude

_DEAD = "http://127.0.0.1:9"
HEALTHY = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'


class Recorder(httpx.BaseTransport):
    """Keeps requests, reads their bodies in pieces, and answers with one thing."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.body_bytes = 0
        self.beginning = b""
        self._answer = answer or httpx.Response(200, json={})

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert isinstance(request.stream, httpx.SyncByteStream)
        for chunk in request.stream:
            self.body_bytes += len(chunk)
            self.beginning += chunk if len(self.beginning) < 2**16 else b""
        return self._answer


def test_fields_go_out_as_the_contract_spells_them(scan: Path, tmp_path: Path) -> None:
    sent: list[dict[str, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(form_of(request))
        return problem(422, "usage")

    places = {"statistics": tmp_path / "s.json"}
    with Client(transport=httpx.MockTransport(answer)) as client, pytest.raises(UsageError, match="a detail"):
        client.segment(
            [scan, scan],
            tmp_path / "mask.nii.gz",
            model="two-photon-vessels:1.0.0",
            overlap=0.25,
            patch=(96, 96, 16),
            blending="halo",
            nan_as=0,
            outputs=places,
        )
    (fields,) = sent
    assert fields == {
        "model": ["two-photon-vessels:1.0.0"],
        "overlap": ["0.25"],
        "patch": ["96,96,16"],
        "blending": ["halo"],
        "nan_as": ["0.0"],
        "outputs": ["mask", "statistics", "report"],
        "files": ["volume_1.nii.gz", "volume_2.nii.gz"],
    }


def test_the_volumes_own_names_stay_here(scan: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    with Client(transport=recorder) as client:
        client.plan(scan)
        with pytest.raises(RemoteError):
            client.segment(scan, tmp_path / "Doe_mask.nii.gz", outputs={"preview": tmp_path / "Doe.png"})
    assert recorder.body_bytes == len(recorder.beginning) > 0
    headers = str([(request.url, request.headers.raw) for request in recorder.requests])
    assert b"Doe" not in recorder.beginning + headers.encode()


def test_nothing_is_asked_for_twice(scan: Path, tmp_path: Path) -> None:
    recorder = Recorder(httpx.Response(503, headers={"Retry-After": "7"}, text="overloaded"))
    with Client(transport=recorder) as client, pytest.raises(RemoteError):
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert len(recorder.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(scan: Path, tmp_path: Path) -> None:
    elsewhere = httpx.Response(307, headers={"Location": "http://elsewhere.example/segment"})
    recorder = Recorder(elsewhere)
    with (
        Client(api_key="secret", transport=recorder) as client,
        pytest.raises(RemoteError, match=r"redirect to http://elsewhere\.example"),
    ):
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert [request.url.host for request in recorder.requests] == ["127.0.0.1"]


@pytest.mark.parametrize("given", ["argument", "variable"])
def test_the_key_is_sent(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    recorder = Recorder()
    monkeypatch.setenv("VOXPORT_API_KEY", " s3cret\n" if given == "variable" else "another")
    with Client(api_key="s3cret" if given == "argument" else None, transport=recorder) as client:
        client.models()
    assert recorder.requests[0].headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_none_is_sent_and_the_refusal_says_where_it_is_set(key: str | None) -> None:
    recorder = Recorder(problem(401, "unauthorised"))
    with Client(api_key=key, transport=recorder) as client, pytest.raises(UsageError, match="VOXPORT_API_KEY"):
        client.models()
    assert "Authorization" not in recorder.requests[0].headers


def test_a_busy_server_says_when_to_ask_again(scan: Path, tmp_path: Path) -> None:
    busy = Recorder(problem(503, "busy", **{"Retry-After": "7"}))
    with Client(transport=busy) as client, pytest.raises(BusyError, match="try again in 7 s") as caught:
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert caught.value.retry_after_seconds == 7


def test_the_health_of_a_server_that_is_unavailable_is_an_answer() -> None:
    with Client(transport=Recorder(httpx.Response(503, json={"status": "unavailable"}))) as client:
        assert client.health()["status"] == "unavailable"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:3000", "127.0.0.1:3000"),
        ("localhost", "localhost"),
        ("ftp://lab.example", "ftp://lab.example"),
        ("file:///etc/passwd", "file"),
        ("http://", "http://"),
        ("", "nothing"),
        ("http://lab.example:port", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://lab.example/?a=b", "query"),
        ("http://lab.example/#there", "fragment"),
        ("http://lab example", "lab example"),
    ],
)
def test_what_is_no_servers_address_is_a_usage_error(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:3000") as caught:
        Client(url)
    assert said in caught.value.got


@pytest.mark.parametrize("url", ["http://me:hush@lab.example", "https://hush@lab.example", "http://:hush@lab.example"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Client(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "höflich", "line\nend"])
def test_a_key_that_fits_no_header_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UsageError, match="API key") as caught:
        Client(api_key=key)
    assert key.split()[0] not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout"):
        Client(timeout_seconds=seconds)


def test_a_path_in_the_address_is_kept() -> None:
    recorder = Recorder()
    with Client("https://lab.example/tools/voxport/", transport=recorder) as client:
        client.models()
    assert str(recorder.requests[0].url) == "https://lab.example/tools/voxport/v1/models"


@pytest.mark.parametrize("name", ["../secrets", "model.onnx", "a/b", "", "UPPER", "a:b:c"])
def test_a_name_that_no_model_has_is_a_usage_error(name: str, scan: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    with Client(transport=recorder) as client:
        with pytest.raises(UsageError, match="NAME:VERSION"):
            client.model(name)
        with pytest.raises(UsageError, match="NAME:VERSION"):
            client.segment(scan, tmp_path / "mask.nii.gz", model=name)
    assert not recorder.requests


@pytest.fixture
def closed() -> Iterator[Client]:
    """A client of which nothing must be sent."""
    recorder = Recorder()
    with Client(transport=recorder) as client:
        yield client
    assert not recorder.requests


def test_volumes_that_cannot_be_sent(closed: Client, scan: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    (tmp_path / "pair.hdr").write_bytes(b"")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(UsageError, match="at least one"):
        closed.segment([], mask)
    with pytest.raises(InputError, match="no such file"):
        closed.segment([scan, tmp_path / "missing.nii"], mask)
    with pytest.raises(InputError, match="one of a pair"):
        closed.segment(tmp_path / "pair.hdr", mask)
    with pytest.raises(InputError, match="a folder"):
        closed.segment(tmp_path / "folder.nii", mask)
    assert not mask.exists()


def test_a_named_pipe_is_not_waited_for(closed: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(InputError, match="not a regular file"):
        closed.segment(tmp_path / "pipe.nii", tmp_path / "mask.nii.gz")


def test_results_that_cannot_be_kept(closed: Client, scan: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    (tmp_path / "taken.nii").mkdir()
    with pytest.raises(OutputError, match="no such folder"):
        closed.segment(scan, tmp_path / "nowhere" / "mask.nii.gz")
    with pytest.raises(OutputError, match="a folder of that name"):
        closed.segment(scan, tmp_path / "taken.nii")
    with pytest.raises(OutputError, match="no such folder"):
        closed.segment(scan, mask, outputs={"preview": tmp_path / "nowhere" / "p.png"})
    with pytest.raises(OutputError, match="no such folder"):
        closed.segment_many(scan, tmp_path / "nowhere", models=["a"])
    with pytest.raises(UsageError, match=r"\.nii"):
        closed.segment(scan, tmp_path / "mask.hdr")
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        closed.segment(scan, mask, outputs={"statistics": tmp_path / "s.txt"})
    with pytest.raises(UsageError, match="masks"):
        closed.segment(scan, mask, outputs={"masks": tmp_path / "m.nii"})
    with pytest.raises(UsageError, match="everything"):
        closed.segment_many(scan, tmp_path, models=["a"], outputs=["everything"])
    with pytest.raises(UsageError, match="an input"):
        closed.segment(scan, scan)
    with pytest.raises(UsageError, match="another output"):
        closed.segment(scan, mask, outputs={"probabilities": mask})


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("LocalHost.", True),
        ("voxport.localhost", True),
        ("10.0.0.1", False),
        ("[fe80::1%25eth0]", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_which_addresses_are_this_machines(host: str, is_here: bool) -> None:
    assert is_loopback(f"http://{host}:3000") is is_here


def test_lab_proxies_do_not_capture_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, _DEAD)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for host in ("127.0.0.1", "localhost", "LOCALHOST"):
        with rude(HEALTHY) as url, Client(url.replace("127.0.0.1", host)) as client:
            assert client.health()["status"] == "ok"


def test_other_machines_are_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with rude(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        with (
            Client("http://voxport.lab.invalid") as client,
            pytest.raises(RemoteError, match="HTTP 404"),
        ):
            client.health()


def test_a_proxy_that_makes_no_sense_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "gopher://lab.example")
    with pytest.raises(UsageError, match="proxy"):
        Client("http://voxport.lab.invalid")


def test_a_large_volume_is_sent_from_disk(tmp_path: Path) -> None:
    large = tmp_path / "large.nii"
    with large.open("wb") as file:
        file.truncate(2**28)
    recorder = Recorder()
    with Client(transport=recorder) as client:
        tracemalloc.start()
        client.plan(large)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert recorder.body_bytes > 2**28
    assert peak < 2**22


def test_without_httpx_the_library_works_and_the_client_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['httpx'] = None\nimport voxport\nfrom voxport.client import Client\n"
        "try:\n    Client()\nexcept voxport.UsageError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert "httpx" in result.stdout
    assert "voxport[serving]" in result.stdout


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (413, LimitError, "limit of the proxy on the way, got HTTP 413"),
        (403, RemoteError, "got HTTP 403 Forbidden without voxport's problem details, as proxies answer"),
    ],
)
def test_a_page_of_a_proxy_is_named_as_the_proxys(
    scan: Path, tmp_path: Path, status: int, kind: type[Exception], words: str
) -> None:
    page = httpx.Response(status, html="<html><body>413 Request Entity Too Large</body></html>")
    transport = httpx.MockTransport(lambda _: page)
    with Client(transport=transport) as client, pytest.raises(kind, match=words):
        client.segment(scan, tmp_path / "mask.nii.gz")
    assert not (tmp_path / "mask.nii.gz").exists()
