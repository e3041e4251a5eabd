"""The page in the languages of browsers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from voxport.entrypoints.demo.languages import Languages

from tests.rest.serving import Server

from .conftest import Visit
from .serving import Visitor, running_demo
from .test_appearance import look

# English, with each text in brackets
BRACKETS = """
from voxport.entrypoints.demo.languages import Languages, Texts
read = Languages.read()
bracketed = Texts({key: f"[{text}]" for key, text in read.texts["en"].by_key.items()})
Languages.read = lambda: Languages({"en": bracketed})
"""
# What the page and the viewer show, and whether a text is in it, or a run is over.
_SHOWN = """() => [
  document.body.innerText,
  ...[...document.querySelector('voxport-viewer').shadowRoot.children].map((e) => e.innerText ?? ''),
].join(' ')"""
_SHOWS = f"([text, state]) => ({_SHOWN})().includes(text)"
_SHOWS += " || (state === 'running' && document.querySelector('#vx-status .vx-done') !== null)"
# Texts and attributes that are seen or read aloud, without what is in brackets, and without what voxport's core says.
OUTSIDE_BRACKETS = """() => {
  const found = [];
  const keep = (text) => {
    let left = text;
    for (let before = ''; before !== left; ) [before, left] = [left, left.replace(/\\[[^\\[\\]]*\\]/g, '')];
    if (/\\p{L}/u.test(left)) found.push(left.trim());
  };
  for (const root of [document.body, document.querySelector('voxport-viewer').shadowRoot])
    for (const element of root.querySelectorAll(':not(script, style, pre, .vx-card dd, .vx-card p)')) {
      if (element.closest('body [lang=en]') || !element.checkVisibility()) continue;
      for (const name of ['aria-label', 'title', 'placeholder', 'alt']) keep(element.getAttribute(name) || '');
      for (const node of element.childNodes) if (node.nodeType === Node.TEXT_NODE) keep(node.textContent);
      if (element.matches('input:not([type]), input[type=text]')) keep(element.value);
    }
  return found.filter((text) => !/^([0-9./]+s|processing \\||queue: [0-9/]+ \\|)$/.test(text));  // Gradio's clock
}"""
DATA = {"voxport", "sample.nii.gz", "NIfTI", ".nii.gz", "two-photon-vessels 0.3.0", "vessel", "above threshold", "µm"}
# Gradio has the first three in the languages of its own, the others in English alone.
GRADIOS = {
    *("Drop File Here", "- or -", "Click to Upload"),
    *("Click to upload or drop files", "Table actions", "Copy table data", "Fullscreen"),
}
POSITION = re.compile(r"[0-9.]+ [RL] +[0-9.]+ [AP] +[0-9.]+ [SI] µm|[·\s]")


@pytest.fixture(scope="module")
def bracketed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_demo(tmp_path_factory.mktemp("bracketed"), changed=BRACKETS) as server:
        yield server


def walk(visitor: Visitor, folder: Path) -> Iterator[str]:
    """Go through the states of the page, and name them."""
    page = visitor.page
    yield "empty"
    (folder / "broken.nii.gz").write_bytes(b"no volume")
    visitor.drop(folder / "broken.nii.gz")
    page.wait_for_selector("#vx-facts [role=alert]")
    yield "error"
    page.click("#vx-sample")
    page.wait_for_selector(".vx-axial canvas[data-shown]")
    page.wait_for_selector("#vx-preflight .vx-note")
    visitor.wait_for_slices()
    for accordion in page.locator(".vx-side .label-wrap").all():
        accordion.click()
    page.wait_for_selector("#vx-series")
    yield "loaded"
    page.click("#vx-run")
    page.wait_for_selector("#vx-status .vx-progress, #vx-status .vx-done")
    if page.locator("#vx-status .vx-progress").count():  # a fast machine may be done before the browser has seen it
        yield "running"
    page.wait_for_selector("#vx-status .vx-done")
    page.wait_for_selector(".vx-surface canvas[data-faces]")
    page.click("#vx-downloads summary")
    page.locator(".vx-copy").first.click()
    yield "result"
    page.click("#vx-model input")
    page.wait_for_selector("[role=option]")
    yield "choosing"
    page.locator("[role=option]").last.click()
    visitor.run("#vx-quick")
    yield "threshold"


def test_every_text_of_the_page_is_in_the_files(visit: Visit, bracketed: Server, tmp_path: Path) -> None:
    visitor = visit(bracketed.url)
    for state in walk(visitor, tmp_path):
        found = {text for text in visitor.page.evaluate(OUTSIDE_BRACKETS) if POSITION.sub("", text)}
        assert found - DATA - GRADIOS == set(), state


@pytest.mark.parametrize(("locale", "scheme"), [("de-DE", "light"), ("es-ES", "dark")])
def test_the_page_is_in_the_language_of_the_browser(visit: Visit, tmp_path: Path, locale: str, scheme: str) -> None:
    tag = locale[:2]
    say = Languages.read().texts[tag]
    visitor = visit(locale=locale, scheme=scheme)
    expected = {
        "empty": ["page.step_volume", "page.sample", "page.about", "page.segment", "model", "viewer.empty"],
        "error": ["page.step_model"],
        "loaded": ["page.axes_info", "viewer.smooth", "viewer.surfaces_later", "viewer.help", "card.proof"],
        "running": ["page.cancel", "viewer.black"],
        "result": ["result.step", "result.again", "viewer.copied", "table.mean", "viewer.fill", "viewer.background"],
        "choosing": ["no_model"],
        "threshold": ["viewer.dummy", "card.dummy", "card.dummy_note"],
    }
    for state in walk(visitor, tmp_path):
        if state != "running":  # which may be over sooner
            look(visitor, tmp_path, state)
        page = visitor.page
        assert page.get_attribute("html", "lang") == tag
        for key in expected[state]:  # the viewer may write a moment later than the page; a run may be over meanwhile
            page.wait_for_function(_SHOWS, arg=[say(key), state])
        if state == "result":
            assert say.count("tiles", 1) in visitor.page.inner_text("#vx-status")
            assert visitor.download(say("result.mask"), tmp_path).name == "sample_mask.nii.gz"


@pytest.mark.parametrize("locale", ["de-AT", "es-MX"])
def test_the_viewer_is_seen_whole_in_every_language(visit: Visit, sample: Path, locale: str) -> None:
    visitor = visit(locale=locale)
    visitor.open(sample)
    box = visitor.page.locator("voxport-viewer").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 860


def test_a_language_without_a_file_is_english(visit: Visit) -> None:
    visitor = visit(locale="fr-FR")
    assert visitor.page.get_attribute("html", "lang") == "en"
    assert visitor.page.inner_text("#vx-sample") == "Try the sample"
    assert "Nothing is open yet." in visitor.page.inner_text("voxport-viewer .vx-empty")
