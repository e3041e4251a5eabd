"""The page in a real browser: drop, look, run, cancel, take home."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from voxport.client.folders import zip_folder

from tests.cli.conftest import environment
from tests.real_data.writers import FORMATS
from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server

from .conftest import LIMIT_BYTES, Visit, save
from .serving import Visitor, running_demo


def command_line_mask(folder: Path, volume: Path, *options: str) -> bytes:
    """The mask that ``voxport segment`` writes."""
    mask = folder / "by_command.nii.gz"
    command = [sys.executable, "-m", "voxport", "segment", str(volume), "-o", str(mask), "--quiet", *options]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, timeout=600)
    return mask.read_bytes()


def check_a_run(visitor: Visitor, volume: Path, folder: Path) -> None:
    """Drop, run, see progress, look at every plane, toggle the overlay, take the mask home."""
    visitor.open(volume)
    grey = {plane: visitor.pixels(plane) for plane in ("axial", "coronal", "sagittal")}
    visitor.page.click("#vx-run")
    visitor.page.wait_for_selector("#vx-status .vx-done")
    visitor.wait_for_slices()
    for plane, before in grey.items():
        overlaid = visitor.pixels(plane)
        assert is_coloured(overlaid)
        assert not is_coloured(before[40:-40, 40:-40])
    visitor.set("mask", False)
    np.testing.assert_array_equal(visitor.pixels("axial"), grey["axial"])
    mask = visitor.download("Mask", folder)
    assert mask.name == f"{volume.name.removesuffix('.nii.gz')}_mask.nii.gz"
    assert mask.read_bytes() == command_line_mask(folder, volume)


def part_of(sample: Path, path: Path) -> Path:
    """Write a part of the sample."""
    nib.save(nib.load(sample).slicer[64:192, 64:192, :16], path)
    return path


def is_coloured(pixels: np.ndarray) -> bool:
    """Whether more than a thin line is not grey."""
    spread = pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)
    return bool(np.count_nonzero(spread > 30) > 2000)


def test_the_sample_is_segmented_as_on_the_command_line(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    visitor.open(sample)
    visitor.set("crosshair", False)
    check_a_run(visitor, sample, tmp_path)
    visitor.page.wait_for_selector(".vx-surface canvas[data-faces]")
    report = visitor.download("Report", tmp_path)
    assert b"two-photon-vessels" in report.read_bytes()
    table = visitor.download("Statistics", tmp_path).read_text(encoding="utf-8")
    assert "vessel" in table
    visitor.page.wait_for_function("document.querySelector('#vx-results').innerText.includes('vessel')")
    spot = visitor.page.locator(".vx-spot").first
    spot.click()
    assert visitor.page.evaluate("window.voxport.crosshair()") == spot.get_attribute("data-voxel")
    assert visitor.download("Uncertainty", tmp_path).name.endswith("_uncertainty.nii.gz")
    picture = visitor.download("Save picture", tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.real_data
def test_a_real_volume_is_segmented_as_on_the_command_line(visitor: Visitor, real_data: Path, tmp_path: Path) -> None:
    whole = nib.load(real_data / "two_photon" / "burgess2014_bbbDisruption_image.nii.gz")
    volume = tmp_path / "a_part.nii.gz"  # as it is stored, but for its size
    nib.save(whole.slicer[:448, :448], volume)
    visitor.open(volume)
    visitor.set("crosshair", False)
    check_a_run(visitor, volume, tmp_path)


def test_the_command_and_the_request_that_are_shown_give_the_same_mask(
    visitor: Visitor, sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    volume = part_of(sample, tmp_path / "scans" / "part.nii.gz")
    visitor.open(volume)
    visitor.run()
    mask = visitor.download("Mask", tmp_path).read_bytes()
    visitor.page.click("#vx-downloads summary")
    command, request = visitor.page.locator(".vx-command pre").all_inner_texts()
    (tmp_path / "part.nii.gz").write_bytes(volume.read_bytes())
    line = command.replace("voxport ", f"{sys.executable} -m voxport ", 1)
    subprocess.run(f"{line} --quiet", shell=True, cwd=tmp_path, env=environment(tmp_path), check=True)
    assert (tmp_path / "mask.nii.gz").read_bytes() == mask
    with running_server(tmp_path) as server:
        line = request.replace("http://127.0.0.1:3000", server.url)
        subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "mask.nii.gz").read_bytes() == mask


def test_sliders_show_what_the_file_holds(visitor: Visitor, tmp_path: Path) -> None:
    """Every slice of this volume is one grey, another one for each index."""
    steps = (np.arange(12) * 20).astype(np.uint8)
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        shape = [1, 1, 1]
        shape[axis] = 12
        values = np.broadcast_to(steps.reshape(shape), (12, 12, 12)).copy()
        visitor.open(save(tmp_path / f"{plane}.nii.gz", values, np.eye(4)))
        visitor.set("crosshair", False)
        visitor.set("low", 0)
        visitor.set("high", 255)
        for index in (0, 7, 11):
            visitor.slide(plane, index)
            pixels = visitor.pixels(plane)
            rows, columns, _ = pixels.shape
            middle = pixels[rows // 2 - 20 : rows // 2 + 20, columns // 2 - 20 : columns // 2 + 20]
            assert abs(middle.astype(int) - int(steps[index])).max() <= 1


def test_the_value_and_the_label_under_the_mouse_are_told(visitor: Visitor, tmp_path: Path) -> None:
    values = np.arange(20 * 20 * 20, dtype=np.int16).reshape(20, 20, 20)
    visitor.open(save(tmp_path / "ramp.nii.gz", values, np.diag([2.0, 2.0, 2.0, 1.0]), "mm"))
    visitor.choose("No model")
    visitor.run()
    box = visitor.canvas("axial").bounding_box()
    assert box is not None
    visitor.page.mouse.click(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2 + 1)
    # radiological: columns run from right to left, rows from anterior to posterior
    visitor.wait_for_readout("9, 9, 10")
    told = visitor.page.inner_text(".vx-readout")
    assert f"value {values[9, 9, 10]}" in told
    assert "18 R" in told
    assert "20 S mm" in told
    assert "label background" in told


def test_a_click_moves_the_crosshair_of_all_planes(visitor: Visitor, sample: Path) -> None:
    visitor.open(sample)
    box = visitor.canvas("sagittal").bounding_box()
    assert box is not None
    visitor.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.4)
    visitor.wait_for_slices()
    x, y, z = (int(v) for v in str(visitor.page.evaluate("window.voxport.crosshair()")).split(","))
    assert x == 128
    assert y > 180
    assert z > 12
    assert visitor.page.locator(".vx-coronal canvas").get_attribute("data-shown") == str(y)
    assert visitor.page.locator(".vx-axial canvas").get_attribute("data-shown") == str(z)


def test_a_volume_of_one_slice_is_shown(visitor: Visitor, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 30, 1), np.uint8)
    visitor.open(save(tmp_path / "flat.nii.gz", values, np.eye(4)))
    assert visitor.page.locator(".vx-axial input[type=range]").is_disabled()
    assert "1 / 1" in visitor.page.inner_text(".vx-axial .vx-index")


def test_two_files_are_the_channels_of_one_volume(visitor: Visitor, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    paths = [
        save(tmp_path / name, random.integers(0, 256, (24, 20, 16), np.uint8), np.eye(4))
        for name in ("a.nii.gz", "b.nii")
    ]
    visitor.choose("pair")
    visitor.open(*paths)
    assert "2 channels" in visitor.page.inner_text("#vx-facts")
    assert "pair" in visitor.run()
    one = visitor.pixels("axial")
    visitor.page.locator("voxport-viewer select[name=channel]").select_option("1")
    visitor.wait_for_slices()
    assert (visitor.pixels("axial") != one).any()


def test_a_tiff_without_voxel_sizes_is_segmented_once_they_are_stated(
    visitor: Visitor, demo: Server, tmp_path: Path
) -> None:
    stack = tmp_path / "stack.tif"
    values = np.random.default_rng(4).integers(0, 256, (12, 30, 40), np.uint8)
    tifffile.imwrite(stack, values, metadata=None, photometric="minisblack")
    visitor.choose("edges")
    visitor.drop(stack)
    visitor.page.wait_for_selector("#vx-facts [role=alert]")
    said = visitor.page.inner_text("#vx-facts")
    assert said.startswith("stack.tif: expected ")
    assert "axes" in said
    visitor.page.fill("#vx-axes textarea, #vx-axes input", "ZYX")
    visitor.page.click("#vx-reopen")
    visitor.page.wait_for_selector("#vx-facts [role=alert]:has-text('spacing')")
    visitor.page.fill("#vx-spacing textarea, #vx-spacing input", "0.5, 0.25, 2")
    visitor.page.click("#vx-unit input")
    visitor.page.locator("[role=option]").filter(has_text="um").first.click()
    visitor.page.click("#vx-reopen")
    visitor.page.wait_for_selector("#vx-facts .vx-facts")
    visitor.wait_for_slices()
    facts = visitor.page.inner_text("#vx-facts")
    times = "\N{MULTIPLICATION SIGN}"
    for said in ("stack.tif TIFF", f"40 {times} 30 {times} 12", f"0.5 {times} 0.25 {times} 2 \N{MICRO SIGN}m", "given"):
        assert said in facts
    assert "edges" in visitor.run()
    stated = (
        "--axes",
        "ZYX",
        "--spacing",
        "0.5,0.25,2",
        "--unit",
        "um",
        "-m",
        str(demo.log.parent / "models" / "edges-1.0.0.onnx"),
    )
    expected = command_line_mask(tmp_path, stack, *stated)
    assert visitor.download("Mask", tmp_path).read_bytes() == expected
    visitor.page.click("#vx-format input")
    visitor.page.locator("[role=option]").filter(has_text=".ome.tif").first.click()
    visitor.page.wait_for_selector(".vx-file[href$='stack_mask.ome.tif']")
    with tifffile.TiffFile(visitor.download("Mask", tmp_path)) as file:
        labels = np.asarray(nib.load(tmp_path / "by_command.nii.gz").dataobj)
        np.testing.assert_array_equal(file.asarray(), labels.T)


@pytest.mark.parametrize(
    ("kind", "name", "said"), [("DICOM", "series.zip", "DICOM"), ("zarr", "scan.ome.zarr.zip", "OME-Zarr")]
)
def test_a_zip_of_a_folder_is_segmented(visitor: Visitor, tmp_path: Path, kind: str, name: str, said: str) -> None:
    values = np.random.default_rng(5).integers(0, 256, (1, 20, 18, 12), np.uint8)
    folder, _ = FORMATS[kind].write(tmp_path, values, np.diag([0.5, 0.5, 2.0, 1.0]), "mm")
    with (tmp_path / name).open("wb") as file:
        zip_folder(folder, file)
    visitor.choose("edges")
    visitor.open(tmp_path / name)
    facts = visitor.page.inner_text("#vx-facts")
    times = "\N{MULTIPLICATION SIGN}"
    assert f"{name} {said}" in facts
    assert f"0.5 {times} 0.5 {times} 2 mm" in facts
    assert "edges" in visitor.run()
    mask = nib.load(visitor.download("Mask", tmp_path))
    assert sorted(mask.shape) == [12, 18, 20]


def test_a_corrupt_file_gives_its_sentence_and_leaves_what_is_open(
    visitor: Visitor, sample: Path, tmp_path: Path
) -> None:
    visitor.open(sample)
    (tmp_path / "broken.nii.gz").write_bytes(sample.read_bytes()[:5000])
    visitor.drop(tmp_path / "broken.nii.gz")
    visitor.page.wait_for_selector("#vx-facts [role=alert]")
    told = visitor.page.inner_text("#vx-facts")
    assert told.startswith("broken.nii.gz: expected ")
    visitor.slide("axial", 3)


def test_a_name_that_is_code_stays_a_name(visitor: Visitor, tmp_path: Path) -> None:
    name = "${alert(1)}{{this}}<img src=x onerror=alert(2)>.nii.gz"
    volume = save(tmp_path / "plain.nii.gz", np.zeros((9, 9, 9), np.uint8), np.eye(4))
    visitor.drop(volume.rename(tmp_path / name))
    visitor.page.wait_for_selector("#vx-facts .vx-facts")
    assert visitor.page.locator("#vx-facts img").count() == 0
    assert "9 \N{MULTIPLICATION SIGN} 9" in visitor.page.inner_text("#vx-facts")


def test_a_file_beyond_the_limit_is_refused(visitor: Visitor, tmp_path: Path) -> None:
    large = tmp_path / "large.nii"
    large.write_bytes(bytes(LIMIT_BYTES + 2**20))
    visitor.drop(large)
    visitor.page.wait_for_selector("text=/exceeds the maximum|maximum allowed size/i")


def test_with_no_model_a_threshold_labels_and_says_so(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    visitor.open(sample)
    visitor.choose("No model")
    visitor.page.wait_for_selector("#vx-preflight:not(:has(.vx-note))", state="attached")
    told = visitor.run()
    assert "dummy mode" in told
    assert "no model" in visitor.page.inner_text(".vx-caution").lower()
    mask = nib.load(visitor.download("Mask", tmp_path))
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1}


def test_a_quick_look_shows_a_part_in_its_place_and_offers_no_files(visitor: Visitor, tmp_path: Path) -> None:
    values = np.zeros((160, 150, 20), np.uint8)
    values[100:110, 20:30, 5:15] = 250
    visitor.open(save(tmp_path / "blob.nii.gz", values, np.eye(4)))
    visitor.choose("No model")
    for plane, index in (("sagittal", 104), ("coronal", 24), ("axial", 9)):
        visitor.slide(plane, index)
    told = visitor.run("#vx-quick")
    assert "Quick look: 128 \N{MULTIPLICATION SIGN} 128 \N{MULTIPLICATION SIGN} 20" in told
    assert visitor.page.locator(".vx-file").count() == 0
    visitor.wait_for_readout("above")
    visitor.slide("sagittal", 90)
    visitor.wait_for_readout("background")


def test_a_run_can_be_cancelled_and_begun_again(visitor: Visitor, sample: Path, tmp_path: Path) -> None:
    visitor.choose("slow")
    visitor.open(part_of(sample, tmp_path / "part.nii.gz"))
    visitor.page.click("#vx-run")
    visitor.page.wait_for_selector("#vx-status [role=progressbar]")
    visitor.page.wait_for_selector("#vx-status :text-matches('tile [0-9]+ of [0-9]+')")
    began = time.monotonic()
    visitor.page.click("#vx-cancel")
    visitor.page.wait_for_selector("#vx-status :text('Cancelled')")
    assert time.monotonic() - began < 5
    assert visitor.page.locator(".vx-file").count() == 0
    visitor.choose("edges")
    assert "edges" in visitor.run()


def test_two_people_never_see_each_others_volumes(visit: Visit, demo: Server, sample: Path, tmp_path: Path) -> None:
    one, other = visit(), visit()
    flat = save(tmp_path / "mine.nii.gz", np.full((20, 20, 20), 7, np.uint8), np.eye(4))
    one.open(sample)
    other.open(flat)
    one.run()
    assert "mine" in other.page.inner_text("#vx-facts")
    assert "sample" in one.page.inner_text("#vx-facts")
    assert other.page.locator(".vx-file").count() == 0
    (mine, my_token), (theirs, their_token) = [
        v.page.evaluate("[window.voxport.viewer.scene.id, window.voxport.viewer.scene.token]") for v in (one, other)
    ]
    mask = "/session/{}/files/sample_mask.nii.gz"
    cookies = {f"voxport-{mine}": my_token, f"voxport-{theirs}": their_token}
    with demo.client(cookies=cookies) as http:
        assert http.get(mask.format(mine)).status_code == 200
        assert http.get(mask.format(theirs)).status_code == 404
        assert http.get(mask.format("A" * 16)).status_code == 410
        one.context.close()
        demo.wait_until(lambda _: http.get(mask.format(mine)).status_code == 410)
        demo.wait_until(lambda _: not list(demo.log.parent.glob(f"scratch/*/{mine}")))
    with demo.client(cookies={f"voxport-{theirs}": my_token}) as http:
        assert http.get(mask.format(theirs)).status_code == 410
    assert list(demo.log.parent.glob("scratch/*/uploads/**/*.nii*")) == []
    other.slide("axial", 3)


def test_a_server_gives_the_same_mask(visit: Visit, tmp_path: Path) -> None:
    volume = save(
        tmp_path / "scan.nii.gz", np.random.default_rng(3).integers(0, 256, (48, 40, 30), np.uint8), np.eye(4)
    )
    named_model(tmp_path / "models", "edges")
    named_model(tmp_path / "models", "slow", patch=(4, 4, 4), overlap=0.75)
    with (
        running_server(tmp_path, "--models", str(tmp_path / "models"), "-m", "edges") as server,
        running_demo(tmp_path, "--server", server.url) as demo,
    ):
        visitor = visit(demo.url)
        assert server.url in visitor.page.inner_text(".vx-head")
        visitor.open(volume)
        told = visitor.run()
        assert "edges 1.0.0" in told
        mask = visitor.download("Mask", tmp_path).read_bytes()
        options = ("-m", str(tmp_path / "models" / "edges-1.0.0.onnx"))
        assert mask == command_line_mask(tmp_path, volume, *options)
        visitor.choose("slow")
        visitor.page.click("#vx-run")
        visitor.page.wait_for_selector("#vx-status :text('Segmenting: tile')")
        visitor.page.click("#vx-cancel")
        visitor.page.wait_for_selector("#vx-status :text('Cancelled')")
        server.wait_until(lambda client: client.get("/v1/jobs").json() == {"jobs": []})
        assert not list((tmp_path / "data" / "voxport" / "jobs" / "blobs").glob("cases/*"))
        visitor.context.close()
