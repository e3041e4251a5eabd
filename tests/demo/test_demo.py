"""The demo without a browser: its page, its routes, its sentences, its doors."""

from __future__ import annotations

import asyncio
import html
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gradio as gr
import nibabel as nib
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from voxport.application import Application
from voxport.domain.errors import InputError, UsageError
from voxport.entrypoints.demo import texts
from voxport.entrypoints.demo.app import create_app
from voxport.entrypoints.demo.desk import THRESHOLD, Desk, sentence
from voxport.entrypoints.demo.engines import LocalEngine
from voxport.entrypoints.demo.page import build_page
from voxport.entrypoints.demo.scene import scene_of
from voxport.entrypoints.rest.keys import parse_keys
from voxport.services.viewing.sessions import Session, Sessions

from tests.cli.conftest import environment
from tests.rest.serving import free_port

from .conftest import save

T = TypeVar("T")
LOOK = {"low": 0, "high": 255}


def in_a_loop(make: Callable[[], T]) -> T:
    """Make something of Gradio's, whose locks each take an event loop of their own, never closed, where none runs."""

    async def made() -> T:
        return make()

    return asyncio.run(made())


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    application = Application.build(models_dir=tmp_path / "models", scratch_dir=tmp_path)
    yield application
    application.served_models.close()


@pytest.fixture
def desk(application: Application, tmp_path: Path) -> Desk:
    (tmp_path / "sessions").mkdir()
    return Desk(application, LocalEngine(application), Sessions(tmp_path / "sessions", 1000))


@pytest.fixture
def session(desk: Desk) -> Session:
    return desk.sessions.open()


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """12 x 10 x 8, stored LPS, with a value for each voxel."""
    values = np.arange(960, dtype=np.int16).reshape(12, 10, 8)
    return save(tmp_path / "ramp.nii.gz", values, np.diag([-1.0, -1.0, 2.0, 1.0]), "mm")


@pytest.fixture
def app(application: Application, tmp_path: Path) -> Iterator[tuple[TestClient, Desk]]:
    folder = tmp_path / "app"
    folder.mkdir()
    made = in_a_loop(lambda: create_app(application, LocalEngine(application), folder))
    with TestClient(made) as client:
        yield client, made.state.desk
    assert [path.name for path in folder.iterdir() if path.name != "uploads"] == []


def run(desk: Desk, session: Session, model: str, voxel: tuple[int, int, int] | None = None) -> None:
    for _ in desk.run(session.token, model, voxel):
        pass


# The names of these three come from the document that asked for the demo.


def test_gradio_demo_creates_blocks(desk: Desk) -> None:
    page = in_a_loop(lambda: build_page(desk))
    assert isinstance(page, gr.Blocks)
    kinds = {type(block) for block in page.blocks.values()}
    assert {gr.File, gr.Dropdown, gr.Button, gr.HTML, gr.Dataframe} <= kinds


def test_gradio_nifti_loading(app: tuple[TestClient, Desk], ramp: Path) -> None:
    """A NIfTI file becomes slices, each holding the file's values in display order."""
    client, desk = app
    values = np.asarray(nib.load(ramp).dataobj)
    session = desk.sessions.open()
    desk.open(session.token, [ramp])
    assert not ramp.exists()  # it is the session's now, and nowhere else
    answer = client.get(f"/session/{session.token}/slice/axial/3", params=LOOK | {"low": 0, "high": 959})
    assert answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))[..., 0]
    # stored LPS: columns run to the left as on display, rows to posterior
    expected = np.rint(values[:, :, 3].T * (255 / 959))
    np.testing.assert_allclose(shown, expected, atol=1)


def test_gradio_predict_slice_dummy_mode(desk: Desk, session: Session, tmp_path: Path) -> None:
    """Without a model a threshold labels what is about the selected slice, and nothing calls it a segmentation."""
    values = np.zeros((200, 30, 20), np.uint8)
    values[10:20, 5:15, 5:15] = 200
    desk.open(session.token, [save(tmp_path / "blob.nii", values, np.eye(4))])
    run(desk, session, THRESHOLD, (15, 10, 10))
    assert session.result is not None
    assert session.result.box is not None
    assert session.result.box.shape == (128, 30, 20)
    assert session.volume is not None
    assert session.volume.at((15, 10, 10), session.result.mask)[1] == 1
    assert session.volume.at((150, 10, 10), session.result.mask)[1] == 0
    scene = scene_of(session)
    assert scene is not None
    assert scene["mask"]["caution"] == "Threshold preview: no model"
    assert "Quick look" in texts.summary(session.result, "here")
    assert texts.downloads(session, None) == ""


def test_a_whole_run_without_a_model_offers_its_files(app: tuple[TestClient, Desk], ramp: Path) -> None:
    client, desk = app
    session = desk.sessions.open()
    desk.open(session.token, [ramp])
    run(desk, session, THRESHOLD)
    links = texts.downloads(session, None)
    assert session.result is not None
    for name in ("ramp_mask.nii.gz", "ramp_statistics.csv", "ramp_report.json"):
        assert f"session/{session.token}/files/{name}" in links
        answer = client.get(f"/session/{session.token}/files/{name}")
        assert answer.content == session.result.files[name].read_bytes()
        assert name in answer.headers["content-disposition"]
    assert client.get(f"/session/{session.token}/surfaces").content.startswith(b"glTF")
    assert client.get(f"/session/{session.token}/surfaces").status_code == 200
    headers, rows = texts.table(session.result)
    assert len(rows) == 1
    assert len(rows[0]) == len(headers)


def test_routes_answer_what_is_asked_wrongly(app: tuple[TestClient, Desk], ramp: Path) -> None:
    client, desk = app
    session = desk.sessions.open()
    base = f"/session/{session.token}"
    assert client.get(f"{base}/slice/axial/0", params=LOOK).status_code == 410
    assert client.get(f"{base}/surfaces").status_code == 410
    desk.open(session.token, [ramp])
    assert client.get(f"{base}/slice/axial/0", params=LOOK).status_code == 200
    for path, status in {
        "slice/axial/99": 404,
        "slice/axial/-1": 404,
        "slice/diagonal/0": 422,
        "voxel/12/0/0": 404,
        "files/ramp.nii.gz": 404,
        "files/..%2f..%2fetc%2fpasswd": 404,
    }.items():
        assert client.get(f"{base}/{path}", params=LOOK).status_code == status, path
    assert client.get(f"{base}/slice/axial/0").status_code == 422
    assert client.get("/session/nobody/voxel/0/0/0").status_code == 410
    values = client.get(f"{base}/voxel/1/2/3").json()
    assert values == {"values": [1 * 80 + 2 * 8 + 3], "label": None}
    picture = client.get(f"{base}/picture", params=LOOK | {"axial": 0, "coronal": 1, "sagittal": 2})
    assert picture.headers["content-disposition"] == 'attachment; filename="view.png"'
    session.volume.close()  # type: ignore[union-attr]
    assert client.get(f"{base}/slice/axial/0", params=LOOK).status_code == 410


def test_every_answer_forbids_other_places(app: tuple[TestClient, Desk]) -> None:
    client, _ = app
    for path in ("/", "/viewer/viewer.js", "/session/nobody/voxel/0/0/0", "/theme.css"):
        assert "default-src 'self'" in client.get(path).headers["content-security-policy"]


def test_the_page_names_no_other_place_to_load_from(app: tuple[TestClient, Desk]) -> None:
    client, _ = app
    config = client.get("/config").json()
    assert not config["analytics_enabled"]
    assert config.get("run_history") is not True


def test_wrong_files_leave_nothing_behind(desk: Desk, session: Session, tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(InputError):
        desk.open(session.token, [tmp_path / "text.nii"])
    with pytest.raises(InputError, match="drop it again"):
        desk.open(session.token, [tmp_path / "gone.nii"])
    assert list(session.folder.iterdir()) == []


def test_what_needs_a_volume_says_so(desk: Desk, session: Session) -> None:
    for ask in (lambda: desk.estimate(session.token, "any"), lambda: run(desk, session, THRESHOLD)):
        with pytest.raises(UsageError) as caught:
            ask()
        assert sentence(caught.value) == "volume: expected one to segment, got none yet. Drop one, or try the sample."


def test_a_model_that_is_gone_is_told(desk: Desk, session: Session, ramp: Path) -> None:
    desk.open(session.token, [ramp])
    desk.application.served_models.start()
    with pytest.raises(UsageError, match="one that is gone"):
        run(desk, session, "never-was:1.0.0")
    assert [path.name for path in session.folder.iterdir()] == [session.files[0].parent.name]


def test_a_page_that_goes_away_stops_its_run(desk: Desk, session: Session, ramp: Path) -> None:
    desk.open(session.token, [ramp])
    running = desk.run(session.token, THRESHOLD, None)
    for progress in running:
        running.close()  # type: ignore[attr-defined]
        assert progress.cancelled


def test_files_of_one_name_are_channels(desk: Desk, session: Session, tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(save(tmp_path / folder / "scan.nii", np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    desk.open(session.token, paths)
    assert [path.name for path in session.files] == ["scan.nii", "next_scan.nii"]
    scene = scene_of(session)
    assert scene is not None
    assert [channel["name"] for channel in scene["channels"]] == ["scan.nii", "next_scan.nii"]


@pytest.mark.parametrize("text", ["<script>", "${x}", "{{x}}", "`", "a & b", 'O\'Hara "x"'])
def test_text_stays_text(text: str) -> None:
    shown = texts.plain(text)
    assert not set("<>{}$`\"'") & set(shown.replace("&#x27;", "").replace("&quot;", ""))
    assert html.unescape(shown) == text


def test_a_key_opens_the_page(application: Application, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    keys = parse_keys(["0123456789abcdef"])
    made = in_a_loop(lambda: create_app(application, LocalEngine(application), tmp_path / "app", keys))
    with TestClient(made) as client:
        assert client.get("/config").status_code == 401
        wrong = client.post("/login", data={"username": "x", "password": "0123456789abcdeX"})
        assert wrong.status_code == 400
        assert client.post("/login", data={"username": "x", "password": "0123456789abcdef"}).status_code == 200
        assert client.get("/config").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "VOXPORT_API_KEYS"),
        (["--host", "nowhere"], "an IP address"),
        (["--server", "ftp://x"], "http"),
    ],
)
def test_the_command_refuses_plainly(tmp_path: Path, arguments: list[str], told: str) -> None:
    command = [sys.executable, "-m", "voxport", "demo", "--port", str(free_port()), *arguments]
    result = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_gradio_is_not_imported_for_help() -> None:
    code = (
        "import sys, contextlib, io\nfrom voxport.entrypoints.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    app(args=['demo', '--help'], standalone_mode=False)\n"
        "print([name for name in ('gradio', 'fastapi', 'numpy', 'uvicorn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
