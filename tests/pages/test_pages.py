"""Pages are seen, read and used in Chromium, from the disk and without a network."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page
from voxport.adapters.pages.jinja import JinjaPages
from voxport.adapters.pictures.png import PngPictures
from voxport.domain.viewing.pages import CaseFigures, CasePage, Layer, SliceFigure, Toggle
from voxport.entrypoints.cli.main import app
from voxport.testing.pages import HOSTILE, hostile, page_cohort, page_comparison, page_figures, page_report

from tests.cli.conftest import make_model

from .conftest import Open

CASES = ("a", "b", "<img src=x onerror=ran=1>")
KINDS = {"case": "out/a.report.html", "cohort": "out/cohort.html", "comparison": "differ.html"}


def voxport(*arguments: object) -> None:
    """The command line, in this process."""
    app(args=[str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch with its pages, and a comparison of its masks."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "in").mkdir()
    for seed, name in enumerate(CASES):
        values = np.random.default_rng(seed).integers(0, 256, (21, 18, 13), np.uint8)
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 2, 1])), folder / "in" / f"{name}.nii.gz")
    model = make_model(folder / "model.onnx", classes=3)
    voxport("batch", folder / "in", "-o", folder / "out", "-m", model, "--html", "--quiet")
    voxport("compare", folder / "out", folder / "in", "--foreground", "--html", folder / "differ.html", "--quiet")
    return folder


@pytest.fixture
def batch(made: Path, tmp_path: Path) -> Path:
    """A copy of the batch."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 860, "light"), (1920, 1080, "dark")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_seen_and_read(
    made: Path, open_page: Open, tmp_path: Path, kind: str, width: int, height: int, scheme: str
) -> None:
    page = open_page(made / KINDS[kind], width, height, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    violations = Axe().run(page).response["violations"]
    assert [(rule["id"], node["html"][:200]) for rule in violations for node in rule["nodes"]] == []
    page.screenshot(path=tmp_path / "page.png")
    corner = np.asarray(Image.open(tmp_path / "page.png").convert("L"))[-1, -1]
    assert (corner > 128) == (scheme == "light")
    broken = page.evaluate("[...document.images].filter((i) => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    assert (made / KINDS[kind]).stat().st_size < 5_000_000


def test_no_name_runs(open_page: Open, tmp_path: Path, made: Path) -> None:
    writer = JinjaPages()
    case = CasePage(hostile("case"), page_report(hostile), hostile("key"), page_figures(hostile), (hostile("note"),))
    pages = {
        "case.html": writer.case(case),
        "cohort.html": writer.cohort(page_cohort(hostile)),
        "comparison.html": writer.comparison(page_comparison(hostile)),
    }
    for name, content in pages.items():
        page = open_page(written(tmp_path, name, content))
        page.wait_for_function("document.readyState === 'complete'")
        assert page.evaluate("window.ran") is None
        assert HOSTILE in (page.text_content("main") or "")
    page = open_page(made / "out" / f"{CASES[2]}.report.html")
    assert page.evaluate("window.ran") is None
    assert page.text_content("h1") == CASES[2]


def bands(folder: Path) -> Path:
    """A page with a slice of five grey bands, the middle one under a red layer."""
    pictures = PngPictures()
    grey = np.repeat(np.array([0, 64, 128, 192, 255], np.uint8), 20)[np.newaxis].repeat(100, 0)
    layers = (
        Layer(0, pictures.encode_layer((grey == 128), (255, 0, 0))),
        Layer(1, pictures.encode_layer((grey == 192), (0, 255, 0))),
    )
    figure = SliceFigure("axial", 0, 1, (512.0, 256.0), ("", "", "", ""), pictures.encode_grey(grey), layers)
    toggles = Toggle("red", "#ff0000"), Toggle("green", "#00ff00")
    figures = CaseFigures((figure,), toggles, (-100.0, 155.0), (-36.0, 92.0), (), b"")
    return written(folder, "bands.html", JinjaPages().case(CasePage("bands", page_report(), "key", figures)))


def colours(page: Page, folder: Path) -> list[tuple[int, ...]]:
    """The colours in the middle of the five bands."""
    page.locator(".slice").screenshot(path=folder / "slice.png")
    shown = np.asarray(Image.open(folder / "slice.png").convert("RGB"))
    rows, columns, _ = shown.shape
    assert columns / rows == pytest.approx(2, rel=0.02)
    return [tuple(map(int, shown[rows // 3, int(columns * (i + 0.5) / 5)])) for i in range(5)]


def test_the_window_is_exact(open_page: Open, tmp_path: Path) -> None:
    page = open_page(bands(tmp_path))
    for box in page.locator("[data-toggle]").all():
        box.uncheck()

    def expected(black: float, white: float) -> list[float]:
        return [float(np.clip((g / 255 - black) / (white - black), 0, 1)) * 255 for g in (0, 64, 128, 192, 255)]

    def compare(black: float, white: float) -> None:
        for found, wanted in zip(colours(page, tmp_path), expected(black, white), strict=True):
            assert len(set(found)) == 1
            assert found[0] == pytest.approx(wanted, abs=3)

    # at first the window that the page states, of levels from -100 to 155
    compare(64 / 255, 192 / 255)
    for black, white in ((0, 1), (0, 0.5), (0.5, 1), (0.2, 0.9), (0.4, 0.6)):
        page.evaluate(
            """([black, white]) => {
              for (const [name, value] of [['black', 0], ['white', 1], ['black', black], ['white', white]]) {
                const input = document.querySelector(`[name=${name}]`);
                input.value = value;
                input.dispatchEvent(new Event('input'));
              }
            }""",
            [black, white],
        )
        compare(black, white)
        stated = [float(text) for text in page.locator("output").all_text_contents()]
        assert stated == pytest.approx([-100 + 255 * black, -100 + 255 * white], rel=1e-3, abs=0.01)
    page.click("[name=reset]")
    compare(64 / 255, 192 / 255)


def test_labels_are_shown_and_hidden_one_by_one(open_page: Open, tmp_path: Path) -> None:
    page = open_page(bands(tmp_path))
    red, green = page.locator("[data-toggle]").all()

    def shown() -> tuple[bool, bool]:
        found = colours(page, tmp_path)
        return found[2] == (255, 0, 0), found[3] == (0, 255, 0)

    assert shown() == (True, True)
    red.uncheck()
    assert shown() == (False, True)
    page.click("[data-all=hide]")
    assert shown() == (False, False)
    page.click("[data-all=show]")
    assert shown() == (True, True)
    before = page.locator(".slice").bounding_box()
    page.locator("[name=size]").fill("800")
    after = page.locator(".slice").bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] > before["width"]
    assert green.is_checked()


def test_the_table_is_sorted_by_any_column(open_page: Open, tmp_path: Path) -> None:
    page = open_page(written(tmp_path, "cohort.html", JinjaPages().cohort(page_cohort())))

    def order() -> list[str]:
        return [text.strip() for text in page.locator("tbody th[scope=row]").all_text_contents()]

    volume = page.get_by_role("button", name="label: volume")
    volume.click()
    assert order() == ["case 0", "case 1", "case 2"]
    volume.click()
    assert order() == ["case 2", "case 1", "case 0"]
    assert page.locator("th[aria-sort=descending]").count() == 1
    # what is undefined comes last, either way
    rare = page.get_by_role("button", name="rare: mean")
    for _ in range(2):
        rare.click()
        assert order()[0] == "case 1"
    page.locator("tr", has_text="case 2").locator("select").select_option("accept")
    page.get_by_role("button", name="Rating", exact=True).click()
    assert order()[0] == "case 2"


def rate(page: Page, case: str, rating: str, comment: str = "") -> None:
    """Rate a case of the open page."""
    rater = page.locator(f"[data-case={json.dumps(case)}]")
    rater.locator("select").select_option(rating)
    rater.locator("[name=comment]").fill(comment)


def export(page: Page, folder: Path) -> list[dict[str, Any]]:
    """The rows of the file that the page gives, which is ``ratings.csv``."""
    with page.expect_download() as download:
        page.click("[name=export]")
    download.value.save_as(folder / "ratings.csv")
    with (folder / "ratings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_ratings_stay_and_are_acted_on(batch: Path, open_page: Open, capsys: pytest.CaptureFixture[str]) -> None:
    page = open_page(batch / "out" / "cohort.html")
    rate(page, "a", "accept")
    comment = 'too "thick", über\tall'
    rate(page, CASES[2], "reject", comment)
    assert page.locator("[data-count=reject]").text_content() == "1"
    page.reload()
    assert page.locator("[data-count=accept]").text_content() == "1"
    rows = export(page, batch)
    assert sorted((row["case"], row["rating"], row["comment"]) for row in rows) == [
        (CASES[2], "reject", comment),
        ("a", "accept", ""),
        ("b", "", ""),
    ]
    # the page of the case has the same rating
    other = open_page(batch / "out" / f"{CASES[2]}.report.html")
    assert other.locator("[name=rating]").input_value() == "reject"
    before = {path.name: path.stat().st_mtime_ns for path in (batch / "out").glob("*.nii.gz")}
    command = ["batch", batch / "in", "-o", batch / "out", "-m", batch / "model.onnx"]
    voxport(*command, "--rated", batch / "ratings.csv", "--overlap", "0.25", "--html", "--json")
    ended = json.loads(capsys.readouterr().out)["cases"]
    assert [(case["case"], case["state"]) for case in ended] == [(CASES[2], "done")]
    after = {path.name: path.stat().st_mtime_ns for path in (batch / "out").glob("*.nii.gz")}
    assert [name for name in before if before[name] != after[name]] == [f"{CASES[2]}.nii.gz"]
    table = (batch / "out" / "statistics.csv").read_text(encoding="utf-8")
    assert len({row["case"] for row in csv.DictReader(table.splitlines())}) == 3
    # another mask is not rated yet; those that were kept still are
    again = open_page(batch / "out" / "cohort.html")
    assert again.locator("[data-count=accept]").text_content() == "1"
    assert again.locator("[data-count=reject]").text_content() == "0"


def test_a_browser_that_keeps_nothing_says_so(open_page: Open, made: Path, tmp_path: Path, context: Any) -> None:
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    page = open_page(made / "out" / "cohort.html")
    assert page.locator("[data-forgetful]").is_visible()
    rate(page, "b", "reject")
    assert {row["case"]: row["rating"] for row in export(page, tmp_path)}["b"] == "reject"


def test_kept_nonsense_is_no_rating(open_page: Open, made: Path) -> None:
    page = open_page(made / "out" / "cohort.html")
    for nonsense in ("{", "null", '{"rating": "great", "comment": 7}'):
        page.evaluate(
            "(text) => { for (const e of document.querySelectorAll('[data-key]'))"
            " localStorage.setItem(`voxport-rating:${e.dataset.key}`, text); }",
            nonsense,
        )
        page.reload()
        assert page.locator("[data-count='']").text_content() == "3"
        assert page.locator("[data-forgetful]").is_hidden()


def test_everything_can_be_reached_by_name_and_keyboard(open_page: Open, made: Path) -> None:
    page = open_page(made / "out" / "a.report.html")
    page.keyboard.press("Tab")
    reached = []
    for _ in range(12):
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.dataset.toggle || ''"))
        page.keyboard.press("Tab")
    assert reached[:6] == ["rating", "comment", "export", "black", "white", "reset"]
    assert {"0", "1", "size"} <= set(reached)
