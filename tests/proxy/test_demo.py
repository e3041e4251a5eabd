"""The demo behind a real nginx below a path, in a real browser: styled, and able to segment, stripped or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Response, sync_playwright

from tests.demo.conftest import save
from tests.demo.serving import Visitor, launch, running_demo
from tests.rest.serving import Server

from .nginx import proxied, running_nginx

PREFIX = "/lab/demo"
STREAMED = "proxy_buffering off; client_max_body_size 64m;"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {
        "VOXPORT_DEMO__PUBLIC_URL": f"https://lab.example{PREFIX}",
        "VOXPORT_DEMO__TRUST_FORWARDED_PREFIX": "true",
    }
    with running_demo(tmp_path_factory.mktemp("demo"), env=env) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(demo: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    locations = [
        proxied(f"{PREFIX}/", f"{demo.url}/", headers=STREAMED),
        proxied("/unstripped/", demo.url, headers=f"{STREAMED} proxy_set_header X-Forwarded-Prefix /unstripped;"),
        proxied("/told/", f"{demo.url}/", headers=f"{STREAMED} proxy_set_header X-Forwarded-Prefix /told;"),
    ]
    with running_nginx(tmp_path_factory.mktemp("nginx"), "\n".join(locations)) as url:
        yield url


@pytest.mark.parametrize("prefix", [PREFIX, "/unstripped", "/told"])
def test_the_demo_works_below_a_path(proxy: str, prefix: str, tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), np.uint8)
    values[5:15, 5:15, 5:15] = 200
    volume = save(tmp_path / "blob.nii.gz", values, np.eye(4))
    with sync_playwright() as playwright:
        browser = launch(playwright)
        visitor = Visitor(browser.new_context(accept_downloads=True), f"{proxy}{prefix}/")
        answers: list[Response] = []
        visitor.page.on("response", lambda response: answers.append(response))
        visitor.open(volume)
        visitor.choose("No model")
        assert "dummy mode" in visitor.run()
        assert visitor.download("Mask", tmp_path).stat().st_size > 0
        weight = visitor.page.evaluate("getComputedStyle(document.querySelector('.vx-head h1')).fontWeight")
        assert weight == "750"
        assert [answer.url for answer in answers if answer.status == 404] == []
        assert visitor.elsewhere == []
        assert visitor.troubles == []
        browser.close()
