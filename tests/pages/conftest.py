"""One browser for all tests of a module, which opens pages from the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.demo.serving import launch

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One person's browser, without a network."""
    context = browser.new_context(accept_downloads=True, offline=True)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext) -> Iterator[Open]:
    """Opens a file. Nothing but the file may be asked for, and nothing may go wrong or pop up."""
    asked: list[str] = []
    troubles: list[str] = []
    files: list[str] = []

    def trouble(what: Any) -> None:
        troubles.append(str(getattr(what, "text", what)))

    def come(file: Path, width: int = 1280, height: int = 860, scheme: str = "light") -> Page:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", trouble)
        page.on("console", trouble)
        page.on("dialog", trouble)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        files.append(file.absolute().as_uri())
        page.goto(files[-1])
        return page

    yield come
    assert troubles == []
    assert [url for url in asked if url not in files and not url.startswith(("data:", "blob:"))] == []
