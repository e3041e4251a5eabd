"""The page as it is seen: pictures of it to look at, and what can be said of them without looking."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from .conftest import Visit, save
from .serving import Visitor


def look(visitor: Visitor, folder: Path, name: str) -> np.ndarray:
    """Take a picture of the page; nothing may stick out sideways, or be hard to see, read or reach."""
    page = visitor.page
    page.wait_for_timeout(700)
    page.screenshot(path=folder / f"{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], node["html"][:200]) for rule in found for node in rule["nodes"]] == []
    return np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))


def colours(visitor: Visitor) -> int:
    """How many pixels of the 3-D panel are clearly not grey."""
    visitor.page.wait_for_selector(".vx-surface canvas[data-faces]")
    pixels = visitor.pixels("surface").astype(int)
    return int(np.count_nonzero(pixels.max(axis=-1) - pixels.min(axis=-1) > 60))


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 860, "light"), (1920, 1080, "dark")])
def test_every_state_of_the_page(visit: Visit, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    visitor = visit(width=width, height=height, scheme=scheme)
    empty = look(visitor, tmp_path, "empty")
    assert (empty[-1, -1].mean() > 128) == (scheme == "light")
    (tmp_path / "broken.nii.gz").write_bytes(b"no volume")
    visitor.drop(tmp_path / "broken.nii.gz")
    visitor.page.wait_for_selector("#vx-facts [role=alert]")
    look(visitor, tmp_path, "error")
    visitor.page.click("#vx-sample")
    visitor.page.wait_for_selector(".vx-axial canvas[data-shown]")
    visitor.wait_for_slices()
    look(visitor, tmp_path, "loaded")
    default = visitor.page.input_value("#vx-model input")
    visitor.choose("slow")  # goes on while it is looked at
    visitor.page.click("#vx-run")
    visitor.page.wait_for_selector("#vx-status :text-matches('tile [0-9]+ of [0-9]+')")
    look(visitor, tmp_path, "running")
    visitor.page.click("#vx-cancel")
    visitor.page.wait_for_selector("#vx-status :text('Cancelled')")
    visitor.choose(default)
    visitor.page.click("#vx-run")
    visitor.page.wait_for_selector("#vx-status .vx-done")
    visitor.wait_for_slices()
    assert colours(visitor) > 1000
    look(visitor, tmp_path, "result")
    # the whole viewer is seen without scrolling
    box = visitor.page.locator("voxport-viewer").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= height
    visitor.page.mouse.wheel(0, 2000)
    look(visitor, tmp_path, "statistics")
    visitor.page.mouse.wheel(0, -2000)
    visitor.page.locator(".vx-surface canvas").first.dblclick()
    look(visitor, tmp_path, "surface")


def test_labels_are_shown_and_coloured_one_by_one(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    part = np.asarray(nib.load(sample).dataobj)[:64, :64]
    visitor.open(save(tmp_path / "part.nii.gz", part, np.diag([1.0, 1.0, 4.0, 1.0])))
    visitor.choose("many")
    visitor.run()
    visitor.set("crosshair", False)
    chips = visitor.page.locator(".vx-label")
    assert chips.count() == 11
    before = visitor.pixels("axial")
    chips.first.locator("input[type=checkbox]").uncheck()
    visitor.wait_for_slices()
    hidden = visitor.pixels("axial")
    for chip in chips.all():
        chip.locator("input[type=checkbox]").uncheck()
    visitor.wait_for_slices()
    none = visitor.pixels("axial")
    last = chips.last.locator("input[type=color]")
    last.fill("#00ff00")
    for chip in chips.all():
        chip.locator("input[type=checkbox]").check()
    visitor.wait_for_slices()
    green = visitor.pixels("axial")
    assert len({before.tobytes(), hidden.tobytes(), none.tobytes(), green.tobytes()}) >= 3
    visitor.page.locator("input[name=outline][value=outline]").check()
    visitor.wait_for_slices()
    assert (visitor.pixels("axial") != green).any()
    visitor.set("opacity", 0)
    np.testing.assert_array_equal(visitor.pixels("axial"), none)


def test_everything_can_be_reached_by_name_and_by_keyboard(visitor: Visitor, sample: Path) -> None:
    visitor.open(sample)
    visitor.choose("No model")
    visitor.run()
    nameless = visitor.page.evaluate(
        """() => {
          const roots = [document, document.querySelector('voxport-viewer').shadowRoot];
          const all = roots.flatMap(r => [...r.querySelectorAll('input, select, button, a[href], canvas[tabindex]')]);
          const seen = all.filter(e => e.checkVisibility());
          const named = e => (e.getAttribute('aria-label') || e.title || e.textContent.trim()
            || [...(e.labels || [])].map(l => l.textContent.trim()).join('')
            || (e.getAttribute('aria-labelledby') || ''));
          return seen.filter(e => !named(e)).map(e => e.outerHTML.slice(0, 160));
        }"""
    )
    assert nameless == []
    canvas = visitor.canvas("coronal")
    canvas.focus()
    for key, index in (("ArrowUp", 129), ("ArrowDown", 128), ("PageUp", 138), ("Home", 0), ("End", 255)):
        visitor.page.keyboard.press(key)
        visitor.page.wait_for_selector(f".vx-coronal canvas[data-shown='{index}']")
    visitor.page.locator(".vx-surface canvas").first.focus()
    visitor.page.wait_for_selector(".vx-surface canvas[data-faces]")
    before = visitor.pixels("surface")
    visitor.page.keyboard.press("ArrowLeft")
    visitor.page.wait_for_timeout(200)
    assert (visitor.pixels("surface") != before).any()


def test_counters_are_whole_on_a_phone(visit: Visit, sample: Path) -> None:
    visitor = visit(width=390, height=844)
    visitor.open(sample)
    cut_off = visitor.page.evaluate(
        """() => [...document.querySelector('voxport-viewer').shadowRoot.querySelectorAll('.vx-index')].filter((e) => {
          const inner = e.getBoundingClientRect(), outer = e.closest('.vx-panel').getBoundingClientRect();
          return e.scrollWidth > e.clientWidth || inner.left < outer.left || inner.right > outer.right;
        }).map((e) => e.textContent)"""
    )
    assert cut_off == []
    assert visitor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert visitor.page.inner_text(".vx-coronal .vx-index") == "129 / 256"


def test_the_name_of_the_upload_leaves_its_icon_free(visitor: Visitor) -> None:
    name = visitor.page.locator("#vx-upload [data-testid=block-label]").bounding_box()
    icon = visitor.page.locator("#vx-upload .icon-wrap").bounding_box()
    assert name is not None
    assert icon is not None
    assert name["y"] + name["height"] <= icon["y"] or name["x"] + name["width"] <= icon["x"]


def test_every_canvas_has_a_name(visitor: Visitor, sample: Path) -> None:
    visitor.open(sample)
    names = visitor.page.evaluate(
        """() => [...document.querySelector('voxport-viewer').shadowRoot.querySelectorAll('canvas')]
          .map((e) => e.getAttribute('role') + ' ' + e.getAttribute('aria-label'))"""
    )
    assert len(names) == 5
    assert all(name.startswith("img ") and not name.endswith(" null") for name in names)


def test_a_volume_is_opened_segmented_and_its_mask_fetched_with_the_keyboard_alone(
    visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.page

    def reach(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(
                """selector => {
                  let active = document.activeElement;
                  while (active.shadowRoot?.activeElement) active = active.shadowRoot.activeElement;
                  return !!active.closest(selector);
                }""",
                selector,
            ):
                return
        pytest.fail(f"Tab never reaches {selector}")

    reach("#vx-sample")
    page.keyboard.press("Enter")
    page.wait_for_selector(".vx-axial canvas[data-shown]")
    reach("#vx-model")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#vx-run:not([disabled])")
    reach("#vx-run")
    page.keyboard.press("Enter")
    page.wait_for_selector("#vx-status .vx-done")
    reach(".vx-axial input[type=range]")
    before = page.locator(".vx-axial input[type=range]").input_value()
    page.keyboard.press("ArrowRight")
    assert int(page.locator(".vx-axial input[type=range]").input_value()) == int(before) + 1
    visitor.wait_for_slices()
    with page.expect_download() as waited:
        reach("a.vx-file")
        page.keyboard.press("Enter")
    waited.value.save_as(tmp_path / waited.value.suggested_filename)
    assert np.asarray(nib.load(tmp_path / waited.value.suggested_filename).dataobj).any()
