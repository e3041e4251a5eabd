"""The demo without a browser: its page, its routes, its sentences, its doors."""

from __future__ import annotations

import asyncio
import html
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gradio as gr
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as itk  # noqa: N813 - the name that its users give it
from fastapi.testclient import TestClient
from PIL import Image
from voxport.application import Application
from voxport.domain.errors import CancelledError, InputError, LimitError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.run import RunOptions
from voxport.domain.volume_names import DICOM, NIFTI, VolumeNames
from voxport.entrypoints.demo import parts
from voxport.entrypoints.demo.app import create_app
from voxport.entrypoints.demo.controller import THRESHOLD, Controller
from voxport.entrypoints.demo.languages import Languages
from voxport.entrypoints.demo.page import Page, Visit, build_page
from voxport.entrypoints.demo.scene import scene_of
from voxport.entrypoints.demo.uploads import take
from voxport.entrypoints.rest.keys import parse_keys
from voxport.services.viewing.sessions import RunProgress, Session, Sessions

from tests.adapters.test_foreign_files import FOREIGN
from tests.cli.conftest import environment
from tests.real_data.writers import FORMATS
from tests.rest.conftest import named_model
from tests.rest.serving import free_port

from .conftest import save

T = TypeVar("T")
LOOK = {"low": 0, "high": 255}
SAY = Languages.read().of("en")


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
def controller(application: Application, tmp_path: Path) -> Controller:
    (tmp_path / "sessions").mkdir()
    return Controller(application, application.segmenter, Sessions(tmp_path / "sessions", 1000))


@pytest.fixture
def session(controller: Controller) -> Session:
    return controller.sessions.open()


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """12 x 10 x 8, stored LPS, with a value for each voxel."""
    values = np.arange(960, dtype=np.int16).reshape(12, 10, 8)
    return save(tmp_path / "ramp.nii.gz", values, np.diag([-1.0, -1.0, 2.0, 1.0]), "mm")


@pytest.fixture
def app(application: Application, tmp_path: Path) -> Iterator[tuple[TestClient, Controller]]:
    folder = tmp_path / "app"
    folder.mkdir()
    made = in_a_loop(lambda: create_app(application, application.segmenter, folder))
    with TestClient(made) as client:
        yield client, made.state.controller
    assert [path.name for path in folder.iterdir() if path.name != "uploads"] == []


def run(controller: Controller, session: Session, model: str, voxel: tuple[int, int, int] | None = None) -> None:
    for _ in controller.follow(session.token, controller.start(session.token, model, voxel)):
        pass


def entered(client: TestClient, controller: Controller) -> Session:
    """A session that the client has the cookie of."""
    session = controller.sessions.open()
    client.cookies.set(f"voxport-{session.id}", session.token)
    return session


@pytest.mark.parametrize(("start", "what", "helps"), [kind for kind in FOREIGN if "DICOM" not in kind[1]])
def test_a_foreign_file_is_named_for_what_it_is(
    controller: Controller, session: Session, tmp_path: Path, start: bytes, what: str, helps: str
) -> None:
    (tmp_path / "scan.nrrd").write_bytes(start)
    with pytest.raises(InputError) as refused:
        controller.open(session.token, [tmp_path / "scan.nrrd"])
    assert refused.value.subject == "scan.nrrd"
    assert what in refused.value.got
    assert helps in refused.value.do
    assert str(tmp_path) not in str(refused.value)


# The names of these three come from the document that asked for the demo.


def test_gradio_demo_creates_blocks(controller: Controller) -> None:
    page = in_a_loop(lambda: build_page(controller, Languages.read()))
    assert isinstance(page, gr.Blocks)
    kinds = {type(block) for block in page.blocks.values()}
    assert {gr.File, gr.Dropdown, gr.Button, gr.HTML, gr.Dataframe} <= kinds


def test_gradio_nifti_loading(app: tuple[TestClient, Controller], ramp: Path) -> None:
    """A NIfTI file becomes slices, each holding the file's values in display order."""
    client, controller = app
    values = np.asarray(nib.load(ramp).dataobj)
    session = entered(client, controller)
    controller.open(session.token, [ramp])
    assert not ramp.exists()  # it is the session's now, and nowhere else
    answer = client.get(f"/session/{session.id}/slice/axial/3", params=LOOK | {"low": 0, "high": 959})
    assert answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))[..., 0]
    # stored LPS: columns run to the left as on display, rows to posterior
    expected = np.rint(values[:, :, 3].T * (255 / 959))
    np.testing.assert_allclose(shown, expected, atol=1)


def test_gradio_predict_slice_dummy_mode(controller: Controller, session: Session, tmp_path: Path) -> None:
    """Without a model a threshold labels what is about the selected slice, and nothing calls it a segmentation."""
    values = np.zeros((200, 30, 20), np.uint8)
    values[10:20, 5:15, 5:15] = 200
    controller.open(session.token, [save(tmp_path / "blob.nii", values, np.eye(4))])
    run(controller, session, THRESHOLD, (15, 10, 10))
    assert session.result is not None
    assert session.result.box is not None
    assert session.result.box.shape == (128, 30, 20)
    assert session.volume is not None
    assert session.volume.at((15, 10, 10), session.result.mask)[1] == 1
    assert session.volume.at((150, 10, 10), session.result.mask)[1] == 0
    scene = scene_of(session)
    assert scene is not None
    assert scene["mask"]["caution"] == "viewer.dummy"
    assert "Quick look" in parts.summary(SAY, session.result, "here")
    assert parts.downloads(SAY, session, {}) == ""


def test_a_whole_run_without_a_model_offers_its_files(app: tuple[TestClient, Controller], ramp: Path) -> None:
    client, controller = app
    session = entered(client, controller)
    controller.open(session.token, [ramp])
    run(controller, session, THRESHOLD)
    links = parts.downloads(SAY, session, {})
    assert session.result is not None
    for name in ("ramp_mask.nii.gz", "ramp_statistics.csv", "ramp_report.json"):
        assert f"session/{session.id}/files/{name}" in links
        answer = client.get(f"/session/{session.id}/files/{name}")
        assert answer.content == session.result.files[name].read_bytes()
        assert name in answer.headers["content-disposition"]
    assert client.get(f"/session/{session.id}/surfaces").content.startswith(b"glTF")
    assert client.get(f"/session/{session.id}/surfaces").status_code == 200
    headers, rows = parts.table(SAY, session.result)
    assert len(rows) == 1
    assert len(rows[0]) == len(headers)


def test_routes_answer_what_is_asked_wrongly(app: tuple[TestClient, Controller], ramp: Path) -> None:
    client, controller = app
    session = entered(client, controller)
    base = f"/session/{session.id}"
    assert client.get(f"{base}/slice/axial/0", params=LOOK).status_code == 410
    assert client.get(f"{base}/surfaces").status_code == 410
    controller.open(session.token, [ramp])
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


def test_every_answer_forbids_other_places(app: tuple[TestClient, Controller]) -> None:
    client, _ = app
    for path in ("/", "/viewer/viewer.js", "/session/nobody/voxel/0/0/0", "/theme.css"):
        assert "default-src 'self'" in client.get(path).headers["content-security-policy"]


def test_the_page_names_no_other_place_to_load_from(app: tuple[TestClient, Controller]) -> None:
    client, _ = app
    config = client.get("/config").json()
    assert not config["analytics_enabled"]
    assert config.get("run_history") is not True


def test_controls_sleep_until_the_page_has_its_session(app: tuple[TestClient, Controller]) -> None:
    client, _ = app
    props = [component["props"] for component in client.get("/config").json()["components"]]
    asleep = {p["elem_id"] for p in props if p.get("elem_id") and p.get("interactive") is False}
    assert {"vx-upload", "vx-sample", "vx-model", "vx-run", "vx-quick"} <= asleep


def test_wrong_files_leave_nothing_behind(controller: Controller, session: Session, tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError):
        controller.open(session.token, [tmp_path / "text.nii"])
    with pytest.raises(InputError, match="drop it again"):
        controller.open(session.token, [tmp_path / "gone.nii"])
    zarr = [tmp_path / name for name in (".zattrs", "0")]
    for path in zarr:
        path.touch()
    with pytest.raises(InputError, match="drop the zip"):
        controller.open(session.token, zarr)
    assert list(session.folder.iterdir()) == []
    assert not any(path.exists() for path in zarr)


def test_what_needs_a_volume_says_so(controller: Controller, session: Session) -> None:
    for ask in (lambda: controller.estimate(session.token, "any"), lambda: run(controller, session, THRESHOLD)):
        with pytest.raises(UsageError) as caught:
            ask()
        assert (
            controller.sentence(caught.value)
            == "volume: expected one to segment, got none yet. Drop one, or try the sample."
        )


def test_a_model_that_is_gone_is_told(controller: Controller, session: Session, ramp: Path) -> None:
    controller.open(session.token, [ramp])
    controller.application.served_models.start()
    with pytest.raises(UsageError, match="one that is gone"):
        run(controller, session, "never-was:1.0.0")
    assert [path.name for path in session.folder.iterdir()] == [session.files[0].parent.name]


def test_a_session_that_ends_stops_its_run(controller: Controller, session: Session, ramp: Path) -> None:
    controller.open(session.token, [ramp])
    run = controller.start(session.token, THRESHOLD, None)
    controller.sessions.end(session)
    with pytest.raises((CancelledError, UsageError)):
        list(controller.follow(session.token, run))
    assert run.wait(10)
    assert session.result is None


def test_only_who_follows_a_run_says_that_it_stops(controller: Controller, session: Session) -> None:
    """What the button answered might reach the browser after the end of the run, and stay there."""
    stopped = threading.Event()

    def work(progress: RunProgress) -> None:
        stopped.wait(60)
        progress.advance(1)

    def page_of_blocks() -> Page:
        with gr.Blocks():
            return Page(controller, Languages.read())

    page = in_a_loop(page_of_blocks)
    visit = Visit(session.token, SAY)
    run = session.start(work)
    shown = page.resume(visit)
    next(shown)
    assert "vx-progress" in next(shown)[page.status]
    assert page.stop(visit) == {page.status: gr.skip()}
    assert next(shown)[page.status] == parts.note(SAY("run.stopping"))
    stopped.set()
    assert [update[page.status] for update in shown][-1] == parts.note(SAY("run.cancelled"))
    assert run.wait(0)


def test_files_of_one_name_are_channels(controller: Controller, session: Session, tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(save(tmp_path / folder / "scan.nii", np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    controller.open(session.token, paths)
    assert [path.name for path in session.files] == ["scan.nii", "next_scan.nii"]
    scene = scene_of(session)
    assert scene is not None
    assert [channel["name"] for channel in scene["channels"]] == ["scan.nii", "next_scan.nii"]


def test_two_identical_copies_of_one_file_are_two_channels(
    controller: Controller, session: Session, ramp: Path
) -> None:
    """Uploads are stored by content: both copies are one path."""
    controller.open(session.token, [ramp, ramp])
    assert [path.name for path in session.files] == ["ramp.nii.gz", "next_ramp.nii.gz"]
    assert not ramp.exists()


def test_channels_have_the_names_of_the_models_card(controller: Controller, session: Session, tmp_path: Path) -> None:
    named_model(tmp_path / "models", "pair", channels=2)
    controller.application.served_models.start()
    paths = [save(tmp_path / name, np.zeros((4, 4, 4), np.uint8), np.eye(4)) for name in ("a.nii", "b.nii")]
    controller.open(session.token, paths)

    def names() -> list[str]:
        scene = scene_of(session, controller.channel_names(session))
        assert scene is not None
        return [channel["name"] for channel in scene["channels"]]

    expected = [channel.name for channel in controller.segmenter.card("pair:1.0.0").input.channels]
    assert names() == ["a.nii", "b.nii"]
    session.model = "pair:1.0.0"
    assert names() == expected
    session.model = "two-photon-vessels:1.0.0"  # of one channel
    assert names() == ["a.nii", "b.nii"]


def test_dropped_dicom_files_are_one_folder_without_what_lies_beside_them(tmp_path: Path) -> None:
    names = VolumeNames((DICOM, NIFTI))
    uploads = [tmp_path / str(number) / "IM0" for number in range(3)] + [tmp_path / "0" / "notes.txt"]
    for number, path in enumerate(uploads):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM%d" % number if path.name == "IM0" else b"hello")
    (tmp_path / "one").mkdir()
    with pytest.raises(LimitError, match="399 in 3 files"):
        take(uploads, tmp_path / "one", names, 398)
    (tmp_path / "two").mkdir()
    (series,) = take(uploads, tmp_path / "two", names, 399)
    assert sorted(path.read_bytes()[128:] for path in series.iterdir()) == [b"DICM0", b"DICM1", b"DICM2"]


def test_two_files_of_one_volume_stay_together(controller: Controller, session: Session, tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    itk.WriteImage(itk.GetImageFromArray(values), str(tmp_path / "scan.mhd"))
    nib.save(nib.Nifti1Pair(values, np.eye(4)), tmp_path / "pair.hdr")
    for uploads in (["scan.raw", "scan.mhd"], ["pair.hdr", "pair.img"]):
        controller.open(session.token, [tmp_path / name for name in uploads])
        assert len(session.files) == 1
        assert session.volume is not None
        assert session.volume.at((2, 1, 0), None)[0] in ([7], [45])


def test_a_series_is_shown_with_its_format_and_its_mask_offered_as_dicom(
    app: tuple[TestClient, Controller], tmp_path: Path
) -> None:
    client, controller = app
    session = entered(client, controller)
    values = np.random.default_rng(0).integers(0, 100, (1, 12, 10, 8)).astype(np.int16)
    affine = np.diag([0.75, 0.75, 2.0, 1.0])
    folder, _ = FORMATS["DICOM"].write(tmp_path, values, affine, "mm")
    controller.open(session.token, list(folder.iterdir()))
    shown = parts.facts(SAY, session, controller.formats(session))
    for said in ("DICOM", "12 \N{MULTIPLICATION SIGN} 10", "0.75", "x, y: PixelSpacing; z: "):
        assert said in shown
    run(controller, session, THRESHOLD)
    endings = controller.mask_endings(session)
    assert {".nii.gz", ".dcm", ".seg.nrrd", ".nrrd", ".mha"} <= set(endings)
    assert session.result is not None
    mask = np.asarray(nib.as_closest_canonical(nib.load(session.result.files["series_mask.nii.gz"])).dataobj)
    for ending in endings:
        _, notes = controller.save_as(session.token, ending)
        name = f"series_mask{ending}"
        assert next(iter(session.result.files)) == name
        assert f"files/{name}" in parts.downloads(SAY, session, {}, notes)
        (tmp_path / name).write_bytes(client.get(f"/session/{session.id}/files/{name}").content)
        if ending != ".dcm":
            with controller.application.volumes.open(str(tmp_path / name)) as source:
                found = nib.Nifti1Image(source.read(Box.whole(source.grid.shape))[0], source.grid.affine)
                np.testing.assert_array_equal(np.asarray(nib.as_closest_canonical(found).dataobj), mask)
    assert (tmp_path / "series_mask.dcm").read_bytes()[128:132] == b"DICM"
    with pytest.raises(UsageError, match="choose another"):
        controller.save_as(session.token, ".png")


def test_the_files_of_a_zarr_folder_are_asked_for_as_a_zip(tmp_path: Path) -> None:
    for name in (".zattrs", "0"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="drop the zip"):
        take([tmp_path / ".zattrs", tmp_path / "0"], tmp_path, VolumeNames((NIFTI,)), 1)


def test_a_volume_is_read_again_as_it_is_stated(controller: Controller, session: Session, tmp_path: Path) -> None:
    values = np.stack([np.full((5, 4, 3), channel, np.uint8) for channel in (10, 20)], axis=-1)
    controller.open(session.token, [save(tmp_path / "pair.nii", values, np.eye(4))])
    (folder,) = {path.parent for path in session.files}
    first = scene_of(session)
    controller.reopen(session.token, RunOptions(channel="1", spacing=(2.0, 2.0, 3.0), unit="um"))
    second = scene_of(session)
    assert session.volume is not None
    assert session.volume.at((0, 0, 0), None)[0] == [20]
    assert session.volume.case.grid.spacing == (2.0, 2.0, 3.0)
    assert first is not None
    assert second is not None
    assert first["volume"] != second["volume"]
    run(controller, session, THRESHOLD)
    assert session.result is not None
    assert session.result.mask.source.grid == session.volume.case.grid
    with pytest.raises(UsageError, match="channel"):
        controller.reopen(session.token, RunOptions(channel="7"))
    assert session.volume.at((0, 0, 0), None)[0] == [20]
    assert folder.exists()


def test_nothing_is_read_again_before_a_volume_is_dropped(controller: Controller, session: Session) -> None:
    with pytest.raises(UsageError, match="none yet"):
        controller.reopen(session.token, RunOptions())


def test_errors_name_the_file_alone(controller: Controller, session: Session, tmp_path: Path) -> None:
    four = save(tmp_path / "four.nii", np.zeros((4, 4, 4, 2), np.uint8), np.eye(4))
    controller.application.served_models.start()
    controller.open(session.token, [four])
    (offer,) = controller.segmenter.offers()
    with pytest.raises(InputError) as caught:
        controller.estimate(session.token, offer.card.reference)
    assert str(session.folder) in str(caught.value)
    assert session.token not in str(caught.value)
    assert controller.sentence(caught.value).startswith("four.nii: ")


def test_a_session_opens_to_its_own_cookie_alone(app: tuple[TestClient, Controller], ramp: Path) -> None:
    client, controller = app
    session, other = entered(client, controller), controller.sessions.open()
    controller.open(session.token, [ramp])
    assert client.get(f"/session/{session.id}/voxel/0/0/0").status_code == 200
    for token in (other.token, session.id, ""):
        client.cookies.set(f"voxport-{session.id}", token)
        assert client.get(f"/session/{session.id}/voxel/0/0/0").status_code == 410
    client.cookies.clear()
    assert client.get(f"/session/{session.id}/voxel/0/0/0").status_code == 410
    assert client.get(f"/session/{session.token}/voxel/0/0/0").status_code == 410


def test_what_is_asked_of_a_session_that_ended_meanwhile_is_gone(
    app: tuple[TestClient, Controller], ramp: Path
) -> None:
    """The session ends between being found and its files being read."""
    client, controller = app
    session = entered(client, controller)
    controller.open(session.token, [ramp])
    run(controller, session, THRESHOLD)
    result = session.result
    assert result is not None
    volume = session.volume
    session.close()
    session.volume, session.result = volume, result
    for path in ("surfaces", f"files/{next(iter(result.files))}", "voxel/0/0/0", "slice/axial/0?low=0&high=1"):
        assert client.get(f"/session/{session.id}/{path}").status_code == 410, path


@pytest.mark.parametrize("text", ["<script>", "${x}", "{{x}}", "`", "a & b", 'O\'Hara "x"'])
def test_text_stays_text(text: str) -> None:
    shown = parts.plain(text)
    assert not set("<>{}$`\"'") & set(shown.replace("&#x27;", "").replace("&quot;", ""))
    assert html.unescape(shown) == text


def test_a_key_opens_the_page(application: Application, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    keys = parse_keys(["0123456789abcdef"])
    made = in_a_loop(lambda: create_app(application, application.segmenter, tmp_path / "app", keys))
    with TestClient(made) as client:
        assert client.get("/config").status_code == 401
        assert all(word in client.get("/").text for word in ("password", "Passwort", "contrase"))
        wrong = client.post("/login", data={"username": "x", "password": "0123456789abcdeX"})
        assert wrong.status_code == 400
        assert client.post("/login", data={"username": "x", "password": "0123456789abcdef"}).status_code == 200
        assert client.get("/config").status_code == 200


def test_the_sessions_routes_ask_for_the_login_too(application: Application, tmp_path: Path, ramp: Path) -> None:
    (tmp_path / "app").mkdir()
    keys = parse_keys(["0123456789abcdef"])
    made = in_a_loop(lambda: create_app(application, application.segmenter, tmp_path / "app", keys))
    with TestClient(made, base_url="https://testserver") as client:
        session = entered(client, made.state.controller)
        made.state.controller.open(session.token, [ramp])
        assert client.get(f"/session/{session.id}/voxel/0/0/0").status_code == 401
        assert client.post("/login", data={"username": "x", "password": "0123456789abcdef"}).status_code == 200
        assert client.get(f"/session/{session.id}/voxel/0/0/0").status_code == 200


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
    result = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )
    assert result.returncode == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_gradio_is_not_imported_for_help() -> None:
    code = (
        "import sys, contextlib, io\nfrom voxport.entrypoints.cli.main import app\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    app(args=['demo', '--help'], standalone_mode=False)\n"
        "print([name for name in ('gradio', 'fastapi', 'numpy', 'uvicorn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert result.stdout.strip() == "[]"
