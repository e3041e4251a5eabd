"""The service, really started: what it answers is what the command line gives."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import voxport

from tests.cli.conftest import environment

from .conftest import named_model
from .serving import Server, running_server


def upload(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("volume", (path.name, path.read_bytes())) for path in paths]


def by_command(server: Server, scan: Path, *options: str) -> bytes:
    """The mask that the command line gives with the server's models."""
    models = {"VOXPORT_MODELS_DIR": str(server.log.parent / "models"), "VOXPORT_MODEL": "edges"}
    command = [sys.executable, "-m", "voxport", "segment", str(scan), "-o", "local.nii.gz", "--quiet", *options]
    folder = scan.parent
    subprocess.run(command, cwd=folder, env=environment(folder) | models, check=True, timeout=120)
    return (folder / "local.nii.gz").read_bytes()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def test_the_mask_is_the_command_lines_byte_for_byte(server: Server, http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.content == by_command(server, scan)


def test_options_count_as_on_the_command_line(server: Server, http: httpx.Client, scan: Path) -> None:
    fields = {"model": "edges:1.0.0", "overlap": "0.25", "patch": "8,8,12", "threshold": "0.4", "blending": "constant"}
    answer = http.post("/segment", files=upload(scan), data=fields)
    options = [word for name, value in fields.items() for word in (f"--{name}", value)]
    assert answer.content == by_command(server, scan, *options)


def test_the_report_in_the_header_tells_the_run_without_local_names(http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan), data={"nan_as": "0"})
    report = json.loads(answer.headers["voxport-report"])
    assert report["model"]["name"] == "edges"
    assert report["inputs"][0]["name"] == "volume_1.nii.gz"
    assert report["outputs"][0]["name"] == "mask.nii.gz"
    assert {"queued", "read", "prepare", "score", "measure", "write"} <= set(report["seconds"])
    assert report["command"].startswith("voxport segment volume_1.nii.gz -m edges:1.0.0 -o mask.nii.gz")
    assert "patient" not in answer.headers["voxport-report"]
    assert "/tmp" not in answer.headers["voxport-report"]


def test_a_report_of_very_many_labels_leaves_the_statistics_out_of_the_header(http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan), data={"model": "many"})
    assert answer.status_code == 200, answer.text
    report = json.loads(answer.headers["voxport-report"])
    assert "statistics" not in report
    assert report["outputs"][0]["name"] == "mask.nii.gz"
    full = http.post("/segment", files=upload(scan), data={"model": "many"}, headers={"Accept": "application/json"})
    assert len(full.json()["results"][0]["report"]["statistics"]["labels"]) == 59


def test_statistics_alone_as_json(http: httpx.Client, scan: Path) -> None:
    mask = http.post("/segment", files=upload(scan))
    answer = http.post("/segment", files=upload(scan), headers={"Accept": "application/json"})
    (result,) = answer.json()["results"]
    assert result["model"] == "edges:1.0.0"
    voxels = result["report"]["statistics"]["labels"][0]["voxels"]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(mask.content))
    assert voxels == int(np.count_nonzero(np.asarray(image.dataobj)))


def test_several_models_answer_for_themselves_and_one_may_fail(http: httpx.Client, scan: Path) -> None:
    answer = http.post(
        "/segment",
        files=upload(scan),
        data={"model": ["edges", "pair", "other"], "outputs": ["mask", "statistics", "preview", "report"]},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    members = zipfile.ZipFile(io.BytesIO(answer.content))
    names = {"mask.nii.gz", "statistics.json", "statistics.csv", "preview.png", "report.json"}
    wanted = {f"{model}-1.0.0/{name}" for model in ("edges", "other") for name in names}
    assert set(members.namelist()) == wanted | {"results.json"}
    first, second, third = json.loads(members.read("results.json"))["results"]
    assert first["report"]["model"]["name"] == "edges"
    assert second["problem"]["detail"].startswith("volume_1.nii.gz: expected 2 channel(s)")
    assert third["report"]["model"]["name"] == "other"
    assert members.read("edges-1.0.0/mask.nii.gz") == http.post("/segment", files=upload(scan)).content


def test_several_uploads_are_the_channels_of_one_case(server: Server, http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan, scan), data={"model": "pair"})
    assert answer.status_code == 200, answer.text
    assert answer.content == by_command(server, scan, str(scan), "-m", "pair")


def test_where_every_model_fails_the_answer_is_the_first_ones(http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan), data={"model": "pair"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:voxport:problem:input"
    assert answer.json()["expected"].startswith("2 channel(s)")


def test_bento_predict_with_onnx_model(http: httpx.Client, scan: Path) -> None:
    """The same labels as for the file, for nested lists and for .npy."""
    array = np.asarray(nib.load(scan).dataobj)
    mask = http.post("/segment", files=upload(_aligned(scan)))
    wanted = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(mask.content)).dataobj)
    spacing, unit = [1.0, 1.0, 5.0], "um"
    listed = http.post("/predict", json={"volume": array.tolist(), "spacing": spacing, "unit": unit})
    assert listed.status_code == 200, listed.text
    saved = http.post("/predict", files={"volume": ("a.npy", npy(array))}, data={"spacing": "1,1,5", "unit": unit})
    for answer in (listed.json(), saved.json()):
        np.testing.assert_array_equal(np.array(answer["segmentation"]), wanted)
        assert answer["shape"] == [21, 18, 13]
        assert answer["labels"] == [{"value": 1, "name": "label 1", "colour": "#e4572e"}]
        assert answer["statistics"]["labels"][0]["voxels"] == int(wanted.astype(bool).sum())
        assert answer["statistics"]["voxel_volume"] == pytest.approx(5.0)
        assert answer["model"]["name"] == "edges"
        assert answer["runtime"]["name"] == "openvino"
        assert {"queued", "read", "prepare", "score", "measure", "write"} == set(answer["timings"])


def _aligned(scan: Path) -> Path:
    """The scan along the world's axes, as /predict takes arrays."""
    image = nib.Nifti1Image(np.asarray(nib.load(scan).dataobj), np.diag([1.0, 1.0, 5.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, scan.parent / "aligned.nii.gz")
    return scan.parent / "aligned.nii.gz"


def test_probabilities_on_request(http: httpx.Client) -> None:
    array = np.random.default_rng(0).random((6, 5, 4))
    answer = http.post("/predict", json={"volume": array.tolist(), "probabilities": True}).json()
    probabilities = np.array(answer["probabilities"])
    assert probabilities.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), answer["segmentation"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"volume": [[1, 2], [3, 4]]}, "shape (2, 2)"),
        ({"volume": [[[1, 2], [3]]]}, "rows that differ"),
        ({"volume": [[["a"]]]}, "a nested list of numbers"),
        ({"volume": [[[None]]]}, "a nested list of numbers"),
        ({"volume": []}, "shape (0,)"),
        ({"volume": [[[1]]], "spacing": [1, 1]}, "spacing"),
        ({"volume": [[[1]]], "spacing": [1, 1, 0]}, "three positive lengths"),
        ({"volume": [[[1]]], "colour": "red"}, "colour"),
        ({"spacing": [1, 1, 1]}, "no volume"),
        ([1, 2, 3], "no volume"),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(http: httpx.Client, body: object, words: str) -> None:
    answer = http.post("/predict", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]


def test_an_array_too_large_is_sent_elsewhere(http: httpx.Client) -> None:
    answer = http.post("/predict", files={"volume": ("a.npy", npy(np.zeros((200, 200, 200), np.uint8)))})
    assert answer.status_code == 413
    assert "/segment" in answer.json()["do"]


def test_pickled_objects_are_refused(http: httpx.Client) -> None:
    for content in (npy(np.array([{"a": 1}], dtype=object)), b"\x80\x04\x95", b"PK\x03\x04", b""):
        answer = http.post("/predict", files={"volume": ("a.npy", content)})
        assert answer.status_code == 422, content
        assert answer.json()["type"] == "urn:voxport:problem:input"


def test_a_plan_scores_nothing(http: httpx.Client, scan: Path) -> None:
    answer = http.post("/v1/plan", files=upload(scan), data={"overlap": "0"})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["tiles"] == 3 * 3 * 2
    assert plan["tile"] == [8, 8, 8]
    assert plan["grid"]["unit"] == "um"
    assert plan["seconds"] > 0
    assert plan["peak_bytes"] > 0


def test_bento_health_endpoint(http: httpx.Client) -> None:
    answer = http.get("/health")
    assert answer.status_code == 200
    health = answer.json()
    assert health["status"] == "ok"
    assert (health["model"], health["model_version"]) == ("edges", "1.0.0")
    assert (health["runtime"], health["precision"]) == ("openvino", "fp32")
    assert health["reasons"] == []
    assert http.get("/livez").json() == http.get("/readyz").json() == {"status": "ok"}


def test_the_bare_address_names_paths_that_answer(http: httpx.Client) -> None:
    signpost = http.get("/").json()
    assert signpost.pop("service") == "voxport"
    assert signpost.pop("version") == voxport.__version__
    document = http.get(signpost["document"]).json()
    assert {name: path for name, path in signpost.items() if path not in document["paths"]} == {
        "document": "/openapi.json"
    }
    assert all(http.get(signpost[name]).status_code == 200 for name in ("health", "models", "jobs"))


def test_health_has_certificates_without_their_samples(http: httpx.Client) -> None:
    health = http.get("/health").json()
    certificates = [model["certificate"] for model in health["models"] if model["certificate"]]
    assert all(set(certificate) == {"weights_sha256", "date", "runtimes"} for certificate in certificates)
    assert certificates
    assert http.get("/v1/models/two-photon-vessels").json()["certificate"]["probes"]


def test_models_are_listed_with_their_cards(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert listed["default"] == "edges:1.0.0"
    assert {m["reference"]: m["default"] for m in listed["models"]} == {
        "edges:1.0.0": True,
        "many:1.0.0": False,
        "other:1.0.0": False,
        "pair:1.0.0": False,
        "two-photon-vessels:0.3.0": False,
    }
    details = http.get("/v1/models/pair").json()
    assert len(details["card"]["input"]["channels"]) == 2
    assert details["runtime"]["name"] == "openvino"
    assert http.get("/v1/models/two-photon-vessels").json()["certificate"]["weights_sha256"]
    unknown = http.get("/v1/models/nothing")
    assert unknown.status_code == 404
    assert "edges:1.0.0" in unknown.json()["detail"]


def test_an_unknown_model_is_refused_alone_and_told_of_beside_others(http: httpx.Client, scan: Path) -> None:
    answer = http.post("/segment", files=upload(scan), data={"model": "nothing"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:voxport:problem:unknown-model"
    both = http.post("/segment", files=upload(scan), data={"model": ["nothing", "edges"]})
    assert both.status_code == 200
    unknown, edges = json.loads(zipfile.ZipFile(io.BytesIO(both.content)).read("results.json"))["results"]
    assert unknown["problem"]["status"] == 404
    assert edges["report"]["model"]["name"] == "edges"


def test_what_was_scored_is_measured(http: httpx.Client, scan: Path) -> None:
    http.post("/segment", files=upload(scan))
    http.get("/nothing")
    shown = http.get("/metrics").text
    for name in (
        'voxport_stage_seconds_count{model="edges:1.0.0",runtime="openvino fp32",stage="score"}',
        'voxport_tiles_per_second_count{model="edges:1.0.0",runtime="openvino fp32"}',
        'voxport_tiles_total{model="edges:1.0.0",runtime="openvino fp32"}',
        'voxport_refused_total{kind="not-found"}',
        "voxport_in_flight 0.0",
    ):
        assert name in shown, name


def test_what_was_uploaded_leaves_no_trace(server: Server, http: httpx.Client, scan: Path) -> None:
    torn = scan.parent / "patient-12345-torn.nii.gz"
    torn.write_bytes(scan.read_bytes()[:-20])
    answer = http.post("/segment", files=upload(torn))
    assert answer.status_code == 422
    assert "patient" not in answer.text
    assert "/tmp" not in answer.text
    assert answer.json()["detail"].startswith("volume_1.nii.gz: expected a whole gzip stream")
    assert "patient" not in server.log.read_text(encoding="utf-8")


def test_the_log_is_one_json_object_a_request(server: Server, http: httpx.Client) -> None:
    refused = http.get("/v1/models/edges", params={"secret": "word"})  # there is no such query name
    identifier = refused.headers["voxport-request"]
    server.wait_until(lambda _: identifier in server.log.read_text(encoding="utf-8"))
    line = next(line for line in server.log.read_text(encoding="utf-8").splitlines() if identifier in line)
    record = json.loads(line)
    assert (record["method"], record["route"], record["status"]) == ("GET", "/v1/models/{name}", 422)
    assert "word" not in line


def test_models_come_and_go_without_a_restart(tmp_path: Path, scan: Path) -> None:
    """Also by plain ``bentoml serve``: a model that is added serves, a broken one is told of, a replaced one is new."""
    models = tmp_path / "models"
    named_model(models, "edges")
    env = {"VOXPORT_MODELS_DIR": str(models), "VOXPORT_MODEL": "edges"}
    with running_server(tmp_path, env=env, plain=True) as server, server.client() as http:
        assert http.post("/segment", files=upload(scan), data={"model": "added"}).status_code == 404
        named_model(tmp_path / "aside", "added").rename(models / "added.onnx")
        server.wait_until(lambda c: c.get("/v1/models/added").json().get("status") == "ready")
        assert http.post("/segment", files=upload(scan), data={"model": "added"}).status_code == 200
        (models / "torn.onnx").write_bytes((models / "added.onnx").read_bytes()[:-50])
        server.wait_until(lambda c: c.get("/health").json()["status"] == "degraded")
        (broken,) = http.get("/v1/models").json()["broken"]
        assert broken["name"] == "torn.onnx"
        assert str(tmp_path) not in broken["reason"]
        assert http.get("/readyz").status_code == 200
        before = http.get("/v1/models/edges").json()["sha256"]
        named_model(tmp_path / "aside", "edges", radius=2).rename(models / "edges-1.0.0.onnx")
        server.wait_until(lambda c: c.get("/v1/models/edges").json()["sha256"] != before)
        server.wait_until(lambda c: c.get("/readyz").status_code == 200)  # else it answers as one that is loading
        (models / "edges-1.0.0.onnx").unlink()
        server.wait_until(lambda c: c.get("/health").status_code == 503)
        assert http.get("/readyz").status_code == 503
        assert http.post("/segment", files=upload(scan)).status_code == 422
