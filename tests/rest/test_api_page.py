"""The page of the API, in a browser: it loads nothing from elsewhere, and its requests run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.demo.serving import launch

from .conftest import named_model
from .serving import Server, running_server

KEY = "the-key-of-ada-1234"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key."""
    folder = tmp_path_factory.mktemp("page")
    named_model(folder / "models", "edges")
    env = {"VOXPORT_API_KEYS": KEY, "VOXPORT_SERVING__TRUST_FORWARDED_PREFIX": "true"}
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of Chromium; for the module, as its driver keeps an event loop running."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser.new_page(viewport={"width": 1280, "height": 1000})
        browser.close()


def test_requests_are_run_from_the_page_with_a_key(guarded: Server, page: Page, scan: Path) -> None:
    asked: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{guarded.url}/docs")
    for key in ("not-the-key-of-ada", KEY):
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Open").click()

    models = page.locator("#operations-models-models")
    models.locator(".opblock-summary").click()
    models.get_by_role("button", name="Try it out").click()
    models.get_by_role("button", name="Execute").click()
    expect(models.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    expect(models.locator(".live-responses-table")).to_contain_text("edges")

    segment = page.locator("#operations-segment-segment")
    segment.locator(".opblock-summary").click()
    segment.get_by_role("button", name="Try it out").click()
    segment.locator("input[type=file]").first.set_input_files(scan)
    segment.get_by_role("button", name="Execute").click()
    expect(segment.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    expect(segment.locator(".live-responses-table")).to_contain_text("Download file")

    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(guarded.url).netloc}
    assert not troubles


def test_the_page_needs_no_key_but_what_it_asks_does(guarded: Server) -> None:
    with guarded.client() as client:
        for path in ("/docs", "/docs/files/swagger-ui.css"):
            assert client.get(path).status_code == 200, path
        for path in (
            "/openapi.json",
            "/docs/openapi.json",
            "/v1/models",
            "/docs/other",
            "/docs/files",
            "/docs/files/../v1/models",
            "/auth/",
        ):
            assert client.get(path).status_code == 401, path
        assert client.get("/docs/files/nothing.js").json()["type"] == "urn:voxport:problem:not-found"
        behind = client.get("/docs", headers={"X-Forwarded-Prefix": "/lab"}).text
        assert '"/lab/docs/openapi.json"' in behind
        assert '"/lab/docs/files/swagger-ui-bundle.js"' in behind
        served = client.get("/docs/openapi.json", headers={"X-Forwarded-Prefix": "/lab", "X-API-Key": KEY}).json()
        assert served["servers"] == [{"url": "/lab"}]
        assert "swagger.io" not in client.get("/docs").text
        assert client.get("/docs").headers["content-security-policy"].startswith("default-src 'self'")
