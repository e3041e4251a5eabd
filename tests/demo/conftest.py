"""One demo and one browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from voxport.application import Application

from tests.rest.conftest import named_model
from tests.rest.serving import Server

from .serving import Visitor, launch, running_demo

Visit = Callable[..., Visitor]
LIMIT_BYTES = 8 * 2**20


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``voxport demo`` with the bundled model, edges, pair (of two channels), many (labels) and slow (tiny tiles)."""
    folder = tmp_path_factory.mktemp("demo")
    models = folder / "models"
    named_model(models, "edges", blending="constant")
    named_model(models, "pair", channels=2)
    named_model(models, "many", classes=12)
    named_model(models, "slow", patch=(8, 8, 8), overlap=0.75)
    env = {"VOXPORT_DEMO__MAX_UPLOAD_BYTES": str(LIMIT_BYTES), "VOXPORT_DEMO__KEEP_SECONDS": "10"}
    with running_demo(folder, "--models", str(models), env=env) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; for a module, as its driver keeps an event loop running that other tests would stumble over."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, demo: Server) -> Iterator[Visit]:
    """Opens the page as a new person would. Nobody's page may have asked another place, or stumbled."""
    visitors: list[Visitor] = []

    def come(
        url: str = demo.url, *, width: int = 1280, height: int = 860, scheme: str = "light", locale: str = "en-US"
    ) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            accept_downloads=True,
            locale=locale,
        )
        visitors.append(Visitor(context, url))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.context.close()
    assert [url for visitor in visitors for url in visitor.elsewhere] == []
    assert [trouble for visitor in visitors for trouble in visitor.troubles] == []


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """One person at the page."""
    return visit()


@pytest.fixture(scope="session")
def sample() -> Path:
    """The bundled sample."""
    return Path(Application.build().sample)


def save(path: Path, values: np.ndarray, affine: np.ndarray, unit: str = "micron") -> Path:
    """Write a volume."""
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path
