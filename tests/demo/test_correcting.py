"""Masks are corrected on the page: what is downloaded is what the strokes say, in every voxel."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Request
from starlette.testclient import TestClient
from voxport.application import Application
from voxport.domain.labels.brush import MOST_POINTS
from voxport.entrypoints.demo.app import create_app
from voxport.entrypoints.demo.controller import THRESHOLD, Controller
from voxport.services.viewing.sessions import Session

from tests.rest.serving import Server

from .conftest import Visit, save
from .serving import Visitor, running_demo
from .test_appearance import look
from .test_demo import entered, in_a_loop, run

SPACING = (1.0, 0.5, 2.0)
SHAPE = (24, 40, 12)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """A bright box in noise, so that the threshold preview is known."""
    values = np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.uint8)
    values[4:9, 5:15, 2:6] += 200
    return save(tmp_path / "blob.nii.gz", values, np.diag([*SPACING, 1.0]))


def box() -> np.ndarray:
    """The mask of ``blob``."""
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 5:15, 2:6] = True
    return mask


def ball(voxel: tuple[int, int, int], radius: float) -> np.ndarray:
    """Voxels within a radius of one."""
    offsets = np.indices(SHAPE) - np.reshape(voxel, (3, 1, 1, 1))
    return np.asarray(((offsets * np.reshape(SPACING, (3, 1, 1, 1))) ** 2).sum(axis=0) <= radius**2)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[tuple[TestClient, Controller]]:
    """The demo in this process, which keeps corrected cases in ``training``."""
    application = Application.build(models_dir=tmp_path / "models", scratch_dir=tmp_path)
    folder = tmp_path / "app"
    folder.mkdir()
    made = in_a_loop(lambda: create_app(application, application.segmenter, folder, training=tmp_path / "training"))
    with TestClient(made) as client:
        yield client, made.state.controller
    application.served_models.close()
    assert [path.name for path in folder.iterdir() if path.name != "uploads"] == []


def segmented(client: TestClient, controller: Controller, volume: Path) -> Session:
    session = entered(client, controller)
    controller.open(session.token, [volume])
    run(controller, session, THRESHOLD)
    return session


def voxels(content: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


def stroke(**changes: Any) -> dict[str, Any]:
    return {"value": 1, "radius": 2.0, "points": [[12, 20, 6]]} | changes


def test_the_corrected_mask_and_its_report_are_downloaded(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    base = f"/session/{session.id}"
    surfaces = client.get(f"{base}/surfaces").content
    before = session.revision
    assert client.post(f"{base}/stroke", json=stroke()).json() == {"revision": before + 2}
    client.post(f"{base}/stroke", json=stroke(value=0, radius=1.0, points=[[4, 5, 2]]))
    expected = (box() | ball((12, 20, 6), 2.0)) & ~ball((4, 5, 2), 1.0)
    answer = client.get(f"{base}/corrected/mask")
    assert "blob_mask_corrected.nii.gz" in answer.headers["content-disposition"]
    np.testing.assert_array_equal(voxels(answer.content), expected)
    mask = next(iter(session.result.files.values())).read_bytes()  # type: ignore[union-attr]
    np.testing.assert_array_equal(voxels(mask), box())  # the run's own is as it was
    answer = client.get(f"{base}/corrected/report")
    assert "blob_report_corrected.json" in answer.headers["content-disposition"]
    report = answer.json()
    added, removed = int((expected & ~box()).sum()), int((box() & ~expected).sum())
    assert report["schema"] == "voxport/threshold-preview/1"
    assert report["corrections"]["voxels"] == added + removed
    rows = {row["name"]: (row["added"], row["removed"], row["strokes"]) for row in report["corrections"]["labels"]}
    assert rows == {"background": (removed, added, 1), "above threshold": (added, removed, 1)}
    assert client.get(f"{base}/voxel/12/20/6").json()["label"] == 1
    assert client.get(f"{base}/surfaces").content != surfaces
    for _ in range(3):
        client.post(f"{base}/undo")
    np.testing.assert_array_equal(voxels(client.get(f"{base}/corrected/mask").content), box())
    assert client.get(f"{base}/corrected/report").json()["corrections"] == {"voxels": 0, "labels": []}


def test_the_corrected_mask_has_the_format_of_the_mask(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    client.post(f"/session/{session.id}/stroke", json=stroke())
    controller.save_as(session.token, ".nrrd")
    answer = client.get(f"/session/{session.id}/corrected/mask")
    assert "blob_mask_corrected.nrrd" in answer.headers["content-disposition"]
    assert answer.content.startswith(b"NRRD")
    assert client.get(f"/session/{session.id}/voxel/12/20/6").json()["label"] == 1


def test_a_case_is_kept_for_training(app: tuple[TestClient, Controller], blob: Path, tmp_path: Path) -> None:
    client, controller = app
    content = np.asarray(nib.load(blob).dataobj)
    session = segmented(client, controller, blob)
    base = f"/session/{session.id}"
    client.post(f"{base}/stroke", json=stroke())
    case = client.post(f"{base}/training").json()["case"]
    labels = nib.load(tmp_path / "training" / "labelsTr" / f"{case}.nii.gz")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), box() | ball((12, 20, 6), 2.0))
    image = nib.load(tmp_path / "training" / "imagesTr" / f"{case}_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), content)
    assert client.post(f"{base}/undo").status_code == 200
    assert client.post(f"{base}/training").json()["case"] == case
    labels = nib.load(tmp_path / "training" / "labelsTr" / f"{case}.nii.gz")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), box())


def test_a_training_folder_that_is_no_data_set_is_told_without_its_path(
    app: tuple[TestClient, Controller], blob: Path, tmp_path: Path
) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    (tmp_path / "training" / "dataset.json").write_text("[]", encoding="utf-8")
    answer = client.post(f"/session/{session.id}/training")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("training/dataset.json: expected a data set of nnU-Net")
    assert str(tmp_path) not in answer.text


def test_wrong_strokes_are_refused_in_one_line(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    url = f"/session/{session.id}/stroke"
    strokes: list[Any] = [
        stroke(value=2),
        stroke(radius=-1),
        stroke(radius=1e300),
        stroke(points=[]),
        stroke(points=[[24, 0, 0]]),
        stroke(points=[[0, 0, 0]] * (MOST_POINTS + 1)),
        stroke(points=[[0, 0]]),
        stroke(points=[[2**80, 0, 0]]),
        stroke(points=None),
        [],
    ]
    for wrong in strokes:
        answer = client.post(url, json=wrong)
        assert answer.status_code == 422, wrong
        assert "\n" not in answer.json()["detail"]
    for content, status in ((b'{"value": 1, "radius": NaN, "points": [[0, 0, 0]]}', 422), (b"[" * 70_000, 413)):
        assert client.post(url, content=content).status_code == status
    assert client.get(f"/session/{session.id}/corrected/report").json()["corrections"]["voxels"] == 0


def test_what_has_no_whole_mask_cannot_be_corrected(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = entered(client, controller)
    base = f"/session/{session.id}"
    assert client.post(f"{base}/stroke", json=stroke()).status_code == 422
    controller.open(session.token, [blob])
    run(controller, session, THRESHOLD, (5, 5, 5))
    for answer in (
        client.post(f"{base}/stroke", json=stroke()),
        client.post(f"{base}/undo"),
        client.post(f"{base}/training"),
        client.get(f"{base}/corrected/mask"),
        client.get(f"{base}/corrected/report"),
    ):
        assert answer.status_code == 422
        assert "segment the volume" in answer.json()["detail"].lower()


def test_nobody_changes_the_mask_of_another(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    client.cookies.clear()
    other = entered(client, controller)
    client.cookies.set(f"voxport-{session.id}", other.token)
    base = f"/session/{session.id}"
    for path in ("stroke", "undo", "training"):
        assert client.post(f"{base}/{path}", json=stroke()).status_code == 410
    for path in ("mask", "report"):
        assert client.get(f"{base}/corrected/{path}").status_code == 410
    assert session.result is not None
    assert session.result.correction is None


def test_without_a_folder_nothing_is_kept(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    object.__setattr__(controller, "training", None)
    answer = client.post(f"/session/{session.id}/training")
    assert answer.status_code == 422
    assert "folder for corrected cases" in answer.json()["detail"]


def test_a_new_run_begins_without_corrections(app: tuple[TestClient, Controller], blob: Path) -> None:
    client, controller = app
    session = segmented(client, controller, blob)
    client.post(f"/session/{session.id}/stroke", json=stroke())
    run(controller, session, THRESHOLD)
    np.testing.assert_array_equal(voxels(client.get(f"/session/{session.id}/corrected/mask").content), box())


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("training")
    with running_demo(folder, "--export-training", str(folder / "kept")) as server:
        yield server, folder / "kept"


def sent(visitor: Visitor) -> None:
    """Wait until all strokes are painted and seen."""
    visitor.page.wait_for_function(
        "() => { const b = window.voxport.viewer.brush; return !b.sending && b.parts.length === 0; }"
    )
    visitor.wait_for_slices()


def test_a_mask_is_painted_erased_undone_and_taken_home(
    visit: Visit, training: tuple[Server, Path], blob: Path, tmp_path: Path
) -> None:
    server, kept = training
    visitor = visit(server.url)
    page = visitor.page
    visitor.open(blob)
    visitor.choose("No model")
    visitor.run()
    assert page.locator(".vx-corrected:visible").count() == 0
    posted: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/stroke"):
            posted.append(json.loads(request.post_data or ""))

    page.on("request", note)
    page.wait_for_selector(".vx-surface canvas[data-faces]")
    faces = page.locator(".vx-surface canvas").first.get_attribute("data-faces")
    # with the mouse: a drag across the axial slice
    page.locator(".vx-label button").click()
    assert page.locator("[name=brush]").get_attribute("aria-pressed") == "true"
    visitor.set("radius", 2)
    canvas = visitor.canvas("axial")
    place = canvas.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] * 0.45, place["y"] + place["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.55, place["y"] + place["height"] * 0.6, steps=4)
    page.mouse.up()
    sent(visitor)
    expected = box()
    drag = [tuple(point) for part in posted for point in part["points"]]
    assert [part["continues"] for part in posted] == [False, *[True] * (len(posted) - 1)]
    assert len(drag) > 4
    assert all(math.dist(a, b) < 2 for a, b in pairwise(drag))  # no gap
    for point in drag:
        expected |= ball(point, 2.0)
    # with the keyboard: the eraser at the crosshair, twice, of which one is undone
    canvas.focus()
    page.keyboard.press("e")
    page.evaluate("window.voxport.viewer.moveTo([5, 8, 3])")
    page.keyboard.press("]")
    page.keyboard.press("Enter")
    sent(visitor)
    assert posted[-1] == {"value": 0, "radius": 2.5, "points": [[5, 8, 3]], "continues": False}
    expected &= ~ball((5, 8, 3), 2.5)
    page.keyboard.press("[")
    page.evaluate("window.voxport.viewer.moveTo([20, 30, 9])")
    page.keyboard.press("b")
    page.keyboard.press(" ")
    page.keyboard.press("Control+z")
    sent(visitor)
    mask = visitor.download("Corrected mask", tmp_path)
    assert mask.name == "blob_mask_corrected.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(mask).dataobj), expected)
    report = json.loads(visitor.download("Report of corrections", tmp_path).read_text(encoding="utf-8"))
    assert report["corrections"]["voxels"] == np.count_nonzero(expected != box())
    assert [row["strokes"] for row in report["corrections"]["labels"]] == [1, 1]
    page.wait_for_selector(f".vx-surface canvas[data-faces]:not([data-faces='{faces}'])")
    page.get_by_role("button", name="Keep for training").click()
    page.locator(".vx-kept").filter(has_text="Kept as blob_").wait_for()
    (labels,) = (kept / "labelsTr").iterdir()
    np.testing.assert_array_equal(np.asarray(nib.load(labels).dataobj), expected)
    look(visitor, tmp_path, "corrected")
    # a page that is loaded again shows the corrections
    page.reload()
    page.wait_for_selector(".vx-axial canvas[data-shown]")
    visitor.wait_for_slices()
    assert page.locator(".vx-corrected:visible").count() == 2
    assert page.evaluate("window.voxport.viewer.brush.tool") is None
    # a stroke that is refused says so in one line, and changes nothing
    visitor.set("radius", 1e300)
    canvas.focus()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.locator(".vx-trouble").filter(has_text="stroke: expected a radius of 0 to 1e+09").wait_for()
    np.testing.assert_array_equal(np.asarray(nib.load(visitor.download("Corrected mask", tmp_path)).dataobj), expected)
