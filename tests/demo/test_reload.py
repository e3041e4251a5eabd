"""Leaving the page: it asks first, and finds its session again."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Dialog

from .serving import Visitor
from .test_page import part_of


def test_a_page_that_is_loaded_again_finds_its_volume_and_mask(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    visitor.choose("edges")
    visitor.open(part_of(sample, tmp_path / "part.nii.gz"))
    visitor.run()
    mask = visitor.download("Mask", tmp_path).read_bytes()
    visitor.page.reload()
    visitor.page.wait_for_selector("#vx-status .vx-done")
    visitor.wait_for_slices()
    assert "part" in visitor.page.inner_text("#vx-facts")
    assert "edges" in visitor.page.inner_text("#vx-status")
    assert visitor.download("Mask", tmp_path).read_bytes() == mask


def test_a_page_that_is_loaded_again_follows_its_run(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    visitor.choose("slow")
    visitor.open(part_of(sample, tmp_path / "part.nii.gz"))
    visitor.page.click("#vx-run")
    tiles = "#vx-status :text-matches('tile [0-9]+ of [0-9]+')"
    visitor.page.wait_for_selector(tiles)
    visitor.page.reload()
    visitor.page.wait_for_selector(tiles)
    visitor.page.click("#vx-cancel")
    visitor.page.wait_for_selector("#vx-status :text('Cancelled')")


def test_leaving_asks_first_once_there_is_something_to_lose(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    visitor.page.on("dialog", stay)
    visitor.open(part_of(sample, tmp_path / "part.nii.gz"))
    visitor.canvas("axial").click()  # browsers ask only where the page was used
    visitor.page.close(run_before_unload=True)
    visitor.page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    visitor.slide("axial", 3)
