"""Each service of the examples is started as its README says, and asked over HTTP."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import environment
from tests.rest.serving import Server, free_port, started

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The variables of a store that holds the examples' models."""
    folder = tmp_path_factory.mktemp("examples")
    env = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "examples.services.make_models"]
    made = subprocess.run(
        command, cwd=ROOT, env=environment(folder) | env, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert len(made.stdout.split()) == 7
    return env


@contextmanager
def serving(store: Mapping[str, str], tmp_path: Path, target: str, **env: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", f"examples.services.{target}"]
    command += ["--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port)]
    server: Server = started(command, port, tmp_path / "server.log", {**store, **env})
    try:
        server.wait_until(lambda client: client.get("/readyz").status_code == 200)
        with server.client() as client:
            yield client
    finally:
        server.stop()


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_pictures_are_classified_and_a_batch_has_single_failures(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "image_classification:ImageClassifier") as client:
        for name, colour in COLOURS.items():
            answer = client.post("/classify_image", files={"image": ("a.png", picture(colour), "image/png")}).json()
            assert answer["predicted_class_name"] == name
            assert answer["top5_predictions"][0]["confidence"] == answer["confidence"]
            assert len({entry["class_id"] for entry in answer["top5_predictions"]}) == 5
        files = [("images", (f"{n}.png", picture(colour), "image/png")) for n, colour in COLOURS.items()]
        files.insert(1, ("images", ("cut.png", picture((255, 0, 0))[:30], "image/png")))
        answers = client.post("/classify_batch", files=files).json()
        assert [a.get("predicted_class_name") for a in answers] == ["red", None, "green", "blue", "yellow"]
        assert answers[1]["error"]


def test_texts_are_classified(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "text_classification:TextClassifier") as client:
        answer = client.post("/classify_text", json={"text": "Great and CLEAR but noisy"}).json()
        # two words of praise, one of blame: softmax of (1, 2)
        assert answer["predicted_class_name"] == "praise"
        np.testing.assert_allclose(answer["probabilities"], [0.2689414, 0.7310586], atol=1e-6)
        long = client.post("/classify_text", json={"text": "poor " * 100}).json()
        assert long["predicted_class_name"] == "blame"
        assert client.post("/classify_text", json={"text": ""}).json()["confidence"] == 0.5


def test_objects_are_found_in_pixels_of_the_picture_as_it_came(store: Mapping[str, str], tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40] = 255  # bright in the upper left quarter
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with serving(store, tmp_path, "object_detection:ObjectDetector") as client:
        answer = client.post("/detect_objects", files={"image": ("a.png", file.getvalue(), "image/png")}).json()
    assert answer["image_size"] == [80, 40]
    assert answer["num_detections"] == 4  # the fifth box overlaps the first one
    bright = [d for d in answer["detections"] if d["class_name"] == "bright"]
    assert [d["bbox"] for d in bright] == [[0, 0, 40, 20]]
    assert {tuple(d["bbox"]) for d in answer["detections"]} == {
        (0, 0, 40, 20),
        (40, 0, 80, 20),
        (0, 20, 40, 40),
        (40, 20, 80, 40),
    }


def test_rows_of_any_length_are_taken(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "rows:DynamicInput") as client:
        for rows in ([[1.0, 3.0]], [[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]):
            answer = client.post("/process_variable_input", json={"data": rows}).json()
            assert answer["results"] == [[sum(row) / len(row)] for row in rows]
            assert answer["input_shape"] == [len(rows), len(rows[0])]
            assert answer["output_shape"] == [len(rows), 1]
        assert client.post("/process_variable_input", json={"data": [[1.0], [1.0, 2.0]]}).status_code == 400


def test_more_rows_than_a_batch_holds_are_all_answered(store: Mapping[str, str], tmp_path: Path) -> None:
    rows = [[float(i)] * 4 for i in range(75)]
    with serving(store, tmp_path, "rows:Batches") as client:
        answer = client.post("/batch_inference", json={"inputs": rows}).json()
    assert answer == [{"input_index": i, "prediction": [2.0 * i + 1] * 4} for i in range(75)]


def test_input_is_checked_before_anything_runs(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "rows:Validated") as client:
        good = client.post("/predict", json={"input_data": [[1.0, 2.0, 3.0, 4.0]]}).json()
        assert good == {"success": True, "predictions": [[3.0, 5.0, 7.0, 9.0]], "output_shape": [1, 4]}
        bad = client.post("/predict", json={"input_data": [[1.0, 2.0]]}).json()
        assert bad["success"] is False
        assert "x: float32 (n, 4)" in bad["error"]
        assert "(1, 2)" in bad["error"]


def test_provider_options_and_an_optimised_model_are_used(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "rows:Providers") as client:
        answer = client.post("/optimized_inference", json={"input_data": [[0.0, 1.0, 2.0, 3.0]]}).json()
    assert answer["results"] == [[1.0, 3.0, 5.0, 7.0]]
    assert answer["provider"] == "cpu"
    assert answer["metadata"]["optimized"] is True
    assert answer["metadata"]["optimization_level"] == "ORT_ENABLE_EXTENDED"


def test_a_model_that_fails_leaves_the_others_answers(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "operations:SeveralModels") as client:
        files = {"image": ("a.png", picture((0, 0, 255)), "image/png")}
        answer = client.post("/comprehensive_analysis", files=files).json()
    assert answer["classification"]["predicted_class"] == 2
    assert len(answer["detection"]["boxes"]) == 5
    assert "segmentor" in answer["segmentation"]["error"]


@pytest.mark.parametrize("model", ["batch_model:latest", "missing"])
def test_a_service_without_its_model_starts_and_says_why(store: Mapping[str, str], tmp_path: Path, model: str) -> None:
    with serving(store, tmp_path, "operations:Robust", EXAMPLE_MODEL=model) as client:
        status = client.post("/status", json={}).json()
        answer = client.post("/predict", json={"input_data": [[1.0, 1.0, 1.0, 1.0]]}).json()
        wrong = client.post("/predict", json={"input_data": [[1.0]]}).json()
    if model == "missing":
        assert status["status"] == "degraded"
        assert "missing" in status["reason"]
        assert answer == {"error": "the model is not available", "details": status["reason"]}
    else:
        assert status == {"status": "ready", "reason": None}
        assert answer == {"success": True, "predictions": [[3.0, 3.0, 3.0, 3.0]]}
        assert wrong["error"] == "the prediction failed"


def test_times_and_requests_are_counted(store: Mapping[str, str], tmp_path: Path) -> None:
    with serving(store, tmp_path, "operations:Monitored") as client:
        answers = [client.post("/predict_with_timing", json={"input_data": [[1.0] * 4]}).json() for _ in range(3)]
        assert "bentoml" in client.get("/metrics").text
    assert [a["total_requests"] for a in answers] == [1, 2, 3]
    assert all(0 < a["inference_time"] < 60 for a in answers)
    assert answers[-1]["average_time"] == pytest.approx(sum(a["inference_time"] for a in answers) / 3)
    assert answers[0]["providers"] == ["cpu"]
