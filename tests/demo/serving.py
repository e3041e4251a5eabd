"""A really started demo, and a browser that looks at it."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright

from tests.rest.serving import Server, free_port, started
from tests.trap import set_trap

PATIENCE_MS = 120_000
# Chromium's own services are off as well: the log of requests is the page's alone.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_demo(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, changed: str = ""
) -> Iterator[Server]:
    """``voxport demo`` from when its page can be had until it is stopped; sessions are kept in ``folder/scratch``.

    What the process would send to other machines goes into a trap; it must be empty in the end. ``changed``: code
    that the process runs first.
    """
    port = free_port()
    (folder / "scratch").mkdir(exist_ok=True)
    code = f"{changed}\nfrom voxport.entrypoints.cli.main import run\nrun()"
    begin = [sys.executable, "-c", code] if changed else [sys.executable, "-m", "voxport"]
    command = [*begin, "demo", "--port", str(port), *arguments]
    with set_trap() as trap:
        own = {"VOXPORT_SCRATCH_DIR": str(folder / "scratch"), **trap.env, "NO_PROXY": "127.0.0.1"}
        server = started(command, port, folder / "demo.log", own | dict(env or {}))
        try:
            server.wait_until(lambda client: client.get("/").status_code in (200, 401))
            yield server
        finally:
            server.stop()
    assert trap.caught == [], f"the process asked for {trap.caught}"
    assert list((folder / "scratch").iterdir()) == []


def launch(playwright: Playwright) -> Browser:
    """Headless Chromium of the system."""
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "these tests need Chromium: apt-get install chromium-headless-shell"
    return playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))


class Visitor:
    """One person at the page, in a browser context of their own."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.elsewhere: list[str] = []
        self.troubles: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("voxport-viewer .vx-empty")
        # the session is there once the models are, and the controls wake with it
        self.page.wait_for_function("document.querySelector('#vx-model input')?.value")
        self.page.wait_for_selector("#vx-sample:not([disabled])")

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def drop(self, *paths: Path) -> None:
        """Upload volumes, without waiting."""
        self.page.set_input_files("#vx-upload input[type=file]", [str(path) for path in paths])

    def open(self, *paths: Path) -> None:
        """Upload volumes and wait until their slices are there."""
        before = self.token_of_view()
        self.drop(*paths)
        self.page.wait_for_function(
            "before => window.voxport && window.voxport.viewer.scene.volume !== before", arg=before
        )
        self.wait_for_slices()

    def token_of_view(self) -> str:
        """What names the volume that is shown; empty for none."""
        return str(
            self.page.evaluate(
                "window.voxport && window.voxport.viewer.scene ? window.voxport.viewer.scene.volume : ''"
            )
        )

    def wait_for_slices(self) -> None:
        """Wait until each plane shows the slice that it should."""
        self.page.wait_for_function(
            "() => { const v = window.voxport.viewer; return v.panels.every("
            "p => p.shownKey && p.shownKey === v.url(`slice/${p.plane}/${p.index}`)); }"
        )

    def choose(self, model: str) -> None:
        """Choose a model by what its title begins with."""
        self.page.click("#vx-model input")
        self.page.locator("[role=option]").filter(has_text=model).first.click()

    def run(self, button: str = "#vx-run") -> str:
        """Run and wait for the end; what the page says then."""
        self.page.click(button)
        self.page.wait_for_selector("#vx-status .vx-done, #vx-status .vx-error")
        if self.page.locator("#vx-status .vx-done").count():
            self.wait_for_slices()
        return self.page.inner_text("#vx-status")

    def slide(self, plane: str, index: int) -> None:
        """Move a plane's slider, and wait for the slice."""
        self.page.locator(f".vx-{plane} input[type=range]").fill(str(index))
        self.page.wait_for_selector(f".vx-{plane} canvas[data-shown='{index}']")
        self.wait_for_slices()

    def wait_for_readout(self, text: str) -> None:
        """Wait until the line below the planes holds a text."""
        self.page.locator(".vx-readout").filter(has_text=text).wait_for()

    def canvas(self, plane: str) -> Locator:
        """Where a plane is drawn."""
        return self.page.locator(f".vx-{plane} canvas").first

    def pixels(self, plane: str) -> NDArray[np.uint8]:
        """What a plane shows now, ``(rows, columns, 3)``, as the screen has it."""
        return np.asarray(Image.open(io.BytesIO(self.canvas(plane).screenshot())).convert("RGB"))

    def set(self, name: str, value: object) -> None:
        """Set a tool of the viewer: a number, or whether a box is ticked."""
        tool = self.page.locator(f"voxport-viewer .vx-tools [name={name}]").first
        if isinstance(value, bool):
            tool.set_checked(value)
        else:
            tool.fill(str(value))
        self.wait_for_slices()

    def download(self, title: str, folder: Path) -> Path:
        """Follow a link to a file."""
        with self.page.expect_download() as waited:
            self.page.get_by_role("link", name=title, exact=True).click()
        place = folder / waited.value.suggested_filename
        waited.value.save_as(place)
        return place
