"""The service behind a real nginx below a path: links, Location and OpenAPI carry the path, stripped or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from voxport.client import Client
from voxport.domain.errors import UsageError
from voxport.entrypoints.public_address import PublicAddress

from tests.rest.conftest import named_model
from tests.rest.jobbing import accepted, ended, submit, volume
from tests.rest.serving import PATIENCE, Server, running_server

from .nginx import proxied, running_nginx

PREFIX = "/lab/voxport"
HEADER = "proxy_set_header X-Forwarded-Prefix /told;"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("proxied")
    named_model(folder / "models", "edges")
    env = {
        "VOXPORT_SERVING__PUBLIC_URL": f"https://lab.example{PREFIX}",
        "VOXPORT_SERVING__TRUST_FORWARDED_PREFIX": "true",
    }
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    locations = [
        proxied(f"{PREFIX}/", f"{service.url}/"),
        proxied("/unstripped/", service.url, headers="proxy_set_header X-Forwarded-Prefix /unstripped;"),
        proxied("/told/", f"{service.url}/", headers=HEADER),
    ]
    with running_nginx(tmp_path_factory.mktemp("nginx"), "\n".join(locations)) as url:
        yield url


@pytest.fixture(params=[PREFIX, "/unstripped", "/told"])
def prefix(request: pytest.FixtureRequest) -> str:
    """Set by the service's setting and stripped; by the header and not stripped; by the header and stripped."""
    return str(request.param)


@pytest.fixture
def http(proxy: str, prefix: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{proxy}{prefix}", timeout=PATIENCE, trust_env=False) as http:
        yield http


def links(value: Any) -> Iterator[str]:
    """Every ``href`` in a JSON value."""
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == "href")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from links(item)


def test_every_link_of_a_job_leads_back_through_the_proxy(http: httpx.Client, proxy: str, prefix: str) -> None:
    answer = submit(http)
    job = accepted(answer)
    assert answer.headers["location"] == f"{prefix}/v1/jobs/{job['id']}"
    done = ended(http, job)
    assert done["state"] == "done"
    events = http.get(f"/v1/jobs/{job['id']}/events").text
    streamed = json.loads(events.strip().rpartition("data: ")[2])
    for found in (done, streamed, http.get("/v1/jobs").json()):
        hrefs = list(links(found))
        assert hrefs
        assert all(href.startswith(f"{prefix}/v1/jobs/") for href in hrefs)
    for href in (answer.headers["location"], *links(done)):
        assert httpx.get(f"{proxy}{href}", timeout=PATIENCE, trust_env=False).status_code == 200


def test_the_signpost_and_the_document_name_the_public_paths(http: httpx.Client, prefix: str) -> None:
    signs = http.get("/").json()
    assert (signs["models"], signs["document"]) == (f"{prefix}/v1/models", f"{prefix}/openapi.json")
    document = http.get("/openapi.json").json()
    assert document["servers"] == [{"url": prefix}]
    assert "/v1/jobs" in document["paths"]


def test_probes_and_problems_are_what_they_are_without_a_proxy(http: httpx.Client) -> None:
    assert http.get("/livez").status_code == 200
    assert http.get("/v1/models/nothing").json()["type"].endswith("unknown-model")
    assert http.get("/nothing").status_code == 404


def test_the_client_segments_through_the_proxy(proxy: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(volume())
    with Client(f"{proxy}{prefix}") as client:
        job = client.jobs.submit(tmp_path / "scan.nii.gz")
        client.jobs.wait(job, timeout_seconds=PATIENCE)
        client.jobs.download(job, tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").is_file()


def test_the_host_of_the_public_address_may_be_asked_for_and_no_other(service: Server) -> None:
    with service.client() as http:
        own = {"Host": "lab.example", "Origin": "https://lab.example"}
        assert http.get("/v1/models", headers=own).status_code == 200
        assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
        assert http.get("/v1/models", headers=own | {"Origin": "https://evil.example"}).status_code == 403


def test_a_forwarded_prefix_is_ignored_where_it_is_not_trusted_or_is_no_path() -> None:
    scope: dict[str, Any] = {"path": "/v1/jobs", "headers": [(b"x-forwarded-prefix", b"/other")]}
    assert PublicAddress().applied_to(scope) == scope
    assert PublicAddress(trusts_header=True).applied_to(scope)["path"] == "/other/v1/jobs"
    for bad in (b"//evil.example", b"/a b", b"a", b"/a/../b\r\n", b"https://evil.example"):
        given = scope | {"headers": [(b"x-forwarded-prefix", bad)]}
        assert PublicAddress(trusts_header=True).applied_to(given) == given


@pytest.mark.parametrize(
    "url", ["lab.example", "ftp://lab.example", "https://lab.example/a?b", "https://lab.example/a b"]
)
def test_a_public_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="public_url: expected https://HOST"):
        PublicAddress(url)
