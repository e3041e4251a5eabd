"""MONAI Label's routes, asked with the client that 3D Slicer has, and with what no client should send."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import nrrd
import numpy as np
import pytest

from tests.adapters.test_dicom_store import slices_of, volume_of, write_series
from tests.cli.conftest import environment
from tests.cli.forking import run_forked

from .conftest import named_model
from .serving import Server, running_server

ADA, BOB = "the-key-of-ada-1234", "the-key-of-bob-1234"
MODEL = "other:1.0.0"
# the client leaves its sockets to the collector of garbage
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def slicer_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for Slicer, with two keys and models of one and of two labels."""
    folder = tmp_path_factory.mktemp("monailabel")
    named_model(folder / "models", "edges")
    named_model(folder / "models", "other", classes=3)
    env = {"VOXPORT_API_KEYS": f"{ADA},{BOB}"}
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges", "--monailabel", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def module() -> Any:
    """The client's module, whose import of `cgi` warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monailabel.client.client", reason="monailabel is not installed")


@pytest.fixture
def slicer(slicer_server: Server, module: Any, tmp_path: Path) -> Any:
    """MONAI Label's own client, logged in as ada."""
    client = module.MONAILabelClient(slicer_server.url, tmpdir=str(tmp_path / "answers"))
    client.update_auth(client.auth_token("ada", ADA))
    return client


@pytest.fixture
def http(slicer_server: Server) -> Iterator[httpx.Client]:
    """A plain client with ada's key."""
    with slicer_server.client(headers={"X-API-Key": ADA}) as client:
        yield client


def labels_of(path: str | Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def expected(slicer_server: Server, scan: Path, tmp_path: Path) -> Any:
    """The label map of the command line."""
    model = slicer_server.log.parent / "models" / "other-1.0.0.onnx"
    command = ["segment", str(scan), "-m", str(model), "-o", "expected.nii.gz"]
    done = run_forked(command, cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    found = labels_of(tmp_path / "expected.nii.gz")
    assert len(np.unique(found)) == 3
    return found


def test_what_slicer_asks_in_its_order_gives_the_mask_of_the_command_line(
    slicer_server: Server, module: Any, scan: Path, expected: Any, tmp_path: Path
) -> None:
    client = module.MONAILabelClient(slicer_server.url, tmpdir=str(tmp_path / "answers"), client_id="user-xyz")
    assert client.auth_enabled()
    assert not client.auth_valid_token()
    client.update_auth(client.auth_token("anybody", ADA))
    assert client.auth_valid_token()
    info = client.info()
    assert info["models"][MODEL]["type"] == "segmentation"
    assert list(info["models"][MODEL]["labels"].values()) == [1, 2]
    assert set(info["models"][MODEL]["labels"]) <= set(info["labels"])
    assert not client.train_status(check_if_running=True)
    session = client.create_session(str(scan))["session_id"]
    assert 0 < client.get_session(session)["expiry"] <= 3600
    answer, told = client.infer(MODEL, "", {"device": "cuda"}, session_id=session)
    np.testing.assert_array_equal(labels_of(answer), expected)
    np.testing.assert_array_equal(nib.load(answer).affine, nib.load(scan).affine)
    assert told["label_names"] == info["models"][MODEL]["labels"]
    assert set(told["label_colors"]) == set(told["label_names"])
    assert told["report"]["model"]["name"] == "other"
    again, _ = client.infer(MODEL, "", {}, session_id=session)
    assert again != answer
    client.remove_session(session)
    with pytest.raises(module.MONAILabelClientException) as gone:
        client.infer(MODEL, "", {}, session_id=session)
    assert "404" in gone.value.msg
    assert "upload it again" in gone.value.msg


def test_a_volume_is_uploaded_under_an_id_or_sent_with_the_question(slicer: Any, scan: Path, expected: Any) -> None:
    assert slicer.upload_image(str(scan), "patient 7/left")["image"] == "patient 7/left"
    for asked in ({"image_id": "patient 7/left"}, {"image_id": "", "file": str(scan)}):
        answer, _ = slicer.infer(MODEL, params={}, **asked)
        np.testing.assert_array_equal(labels_of(answer), expected)


def test_the_answer_has_the_words_that_mitk_looks_for(http: httpx.Client, scan: Path, expected: Any) -> None:
    """MITK cuts the form at its boundary, and each part behind the very words of its type."""
    form = {"params": (None, '{"restore_label_idx": true}')}
    file = {"file": ("post_from_mitk.nii.gz", scan.read_bytes(), "application/octet-stream")}
    answer = http.post(f"/infer/{MODEL}", files={**form, **file})
    boundary = f"--{answer.headers['content-type'].partition('boundary=')[2]}".encode()
    params, image = (part for part in answer.content.split(boundary)[:3] if part)
    names = json.loads(params.partition(b"Content-Type: application/json")[2])["label_names"]
    assert set(names.values()) == {1, 2}
    mask = image.partition(b"Content-Type: application/octet-stream")[2].lstrip(b" \r\n")
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(mask[:-2])).dataobj), expected)


def test_a_volume_of_another_user_is_not_found(slicer_server: Server, slicer: Any, module: Any, scan: Path) -> None:
    session = slicer.create_session(str(scan))["session_id"]
    slicer.upload_image(str(scan), "mine")
    other = module.MONAILabelClient(slicer_server.url)
    other.update_auth(other.auth_token("bob", BOB))
    for asked in ({"session_id": session, "image_id": ""}, {"image_id": "mine"}):
        with pytest.raises(module.MONAILabelClientException, match="404"):
            other.infer(MODEL, params={}, **asked)
    for ask in (other.get_session, other.remove_session):
        with pytest.raises(module.MONAILabelClientException) as refused:
            ask(session)
        assert refused.value.status_code == 404
    assert slicer.get_session(session)["name"] == session


def test_a_wrong_password_gives_no_token(slicer_server: Server, module: Any) -> None:
    client = module.MONAILabelClient(slicer_server.url)
    for password in ("wrong", "", "pässword" * 3):
        with pytest.raises(module.MONAILabelClientException):
            client.auth_token("ada", password)
    with pytest.raises(module.MONAILabelClientException) as refused:
        client.info()
    assert refused.value.status_code == 401


@pytest.mark.parametrize("extension", [".nrrd", ".seg.nrrd"])
def test_the_label_map_has_the_format_that_is_asked_for(slicer: Any, scan: Path, expected: Any, extension: str) -> None:
    answer, _ = slicer.infer(MODEL, "", {"result_extension": extension}, file=str(scan))
    assert answer.endswith(extension)
    values, header = nrrd.read(answer)
    np.testing.assert_array_equal(values, expected)
    assert (extension == ".seg.nrrd") == ("Segment0_Name" in header)


def test_options_of_a_run_are_taken_from_the_params(slicer: Any, scan: Path) -> None:
    _, told = slicer.infer(MODEL, "", {"patch": "16,16,8", "roi_size": [96, 96, 96]}, file=str(scan))
    assert told["report"]["tiles"]["tile"][0] == 16


def test_the_mask_or_the_report_can_be_asked_for_alone(http: httpx.Client, scan: Path, expected: Any) -> None:
    files = {"file": ("scan.nii.gz", scan.read_bytes())}
    told = http.post(f"/infer/{MODEL}", params={"output": "json"}, files=files)
    assert told.json()["label_names"]
    mask = http.post(f"/infer/{MODEL}", params={"output": "image"}, files=files)
    assert mask.headers["content-type"] == "application/gzip"
    image = nib.Nifti1Image.from_bytes(gzip.decompress(mask.content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


def test_the_files_of_a_series_are_one_session(http: httpx.Client, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", slices_of(volume_of()))
    files = [("files", (path.name, path.read_bytes())) for path in sorted(series.iterdir())]
    session = http.put("/session/", files=files).json()["session_id"]
    asked = {"session_id": session, "output": "dicom_seg"}
    answer = http.post(f"/infer/{MODEL}", params=asked, files={"params": (None, "{}")})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.content[128:132] == b"DICM"


NOTHING = {"params": (None, "{}")}


@pytest.mark.parametrize(
    ("query", "form", "status", "told"),
    [
        ({}, NOTHING, 422, "upload the volume as a session"),
        ({"session_id": "../../../etc/passwd"}, NOTHING, 404, "upload it again"),
        ({"session_id": "x" * 300}, NOTHING, 422, "session_id"),
        ({"image": "none"}, {"params": (None, "{")}, 422, "params"),
        ({"image": "none"}, {"params": (None, "[1]")}, 422, "params"),
        ({"image": "none"}, {"params": (None, "x" * 70000)}, 422, "params"),
        ({"image": "none"}, {"params": (None, '{"result_extension": ".exe"}')}, 422, ".nii.gz"),
        ({"image": "none"}, {"params": (None, '{"overlap": "much"}')}, 422, "overlap"),
        ({"output": "everything"}, NOTHING, 422, "output"),
        ({"image": "none"}, {"label": ("a.nii", b"x")}, 422, "label"),
        ({}, {"file": ("a.nii", b"")}, 422, "empty"),
        ({}, {"file": ("a.nii", b"not a volume")}, 422, "volume_1.nii"),
    ],
)
def test_a_request_that_makes_no_sense_gets_one_line(
    http: httpx.Client, query: dict[str, str], form: dict[str, Any], status: int, told: str
) -> None:
    answer = http.post(f"/infer/{MODEL}", params=query, files=form)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_an_unknown_model_and_unknown_routes_are_not_found(http: httpx.Client, scan: Path) -> None:
    files = {"file": ("scan.nii.gz", scan.read_bytes())}
    assert http.post("/infer/nothing", files=files).status_code == 404
    for path in ("/train/", "/activelearning/random", "/datastore/label"):
        assert http.get(path).status_code in (404, 405)


def test_sessions_stay_few_and_their_files_are_gone_with_them(
    slicer_server: Server, http: httpx.Client, scan: Path
) -> None:
    content = scan.read_bytes()
    sessions = [http.put("/session/", files={"files": ("a.nii.gz", content)}).json()["session_id"] for _ in range(18)]
    assert [http.get(f"/session/{id}").status_code for id in sessions[-16:]] == [200] * 16
    assert http.get(f"/session/{sessions[0]}").status_code == 404
    for id in sessions[-16:]:
        assert http.delete(f"/session/{id}").status_code == 200
    left = [path for path in slicer_server.log.parent.rglob("*/kept/*") if path.is_file()]
    assert not left


def test_the_routes_are_there_only_if_asked_for(server: Server) -> None:
    with server.client() as client:
        for path in ("/info/", "/auth/", "/session/x"):
            assert client.get(path).status_code == 404
        assert json.loads(client.get("/openapi.json").text)["paths"]
