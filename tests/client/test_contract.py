"""Every method against the application in this process.

`tests/rest/test_client.py` runs the same tests against a server over a socket.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.client import Client, RemoteJob
from voxport.domain.errors import CancelledError, InputError, LimitError, ModelError, UnknownJobError, UsageError


def present(folder: Path) -> list[str]:
    """Every file in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_server_tells_of_itself_and_of_its_models(client: Client) -> None:
    assert client.health()["status"] == "ok"
    listed = client.models()
    assert listed["default"] in [model["reference"] for model in listed["models"]]
    one = client.model(listed["default"])
    assert one["reference"] == listed["default"]
    assert one["card"]["name"] == one["name"]
    assert client.model(one["name"])["name"] == one["name"]


def test_a_mask_on_the_volumes_own_voxels(client: Client, scan: Path, tmp_path: Path) -> None:
    report = client.segment(scan, tmp_path / "mask.nii.gz")
    given, mask = nib.load(scan), nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == given.shape
    np.testing.assert_array_equal(mask.header["srow_x"], given.header["srow_x"])
    labels = np.asarray(mask.dataobj)
    assert report["statistics"]["labels"][0]["voxels"] == int((labels == 1).sum())
    assert present(tmp_path) == sorted([scan.name, "mask.nii.gz"])


def test_the_report_names_files_as_they_are_named_here(client: Client, scan: Path, tmp_path: Path) -> None:
    mask, kept = tmp_path / "mask.nii.gz", tmp_path / "r.json"
    report = client.segment([scan], mask, outputs={"report": kept})
    assert report["inputs"] == [{"name": str(scan), "sha256": hashlib.sha256(scan.read_bytes()).hexdigest()}]
    assert report["outputs"] == [{"name": str(mask), "sha256": hashlib.sha256(mask.read_bytes()).hexdigest()}]
    assert json.loads(kept.read_text(encoding="utf-8")) == report
    assert not any("volume_1" in warning for warning in report["warnings"])


def test_everything_beside_the_mask(client: Client, scan: Path, tmp_path: Path) -> None:
    names = {"probabilities": "p.nii.gz", "statistics": "s.csv", "preview": "p.png", "report": "r.json"}
    names["uncertainty"] = "u.nii.gz"
    report = client.segment(scan, tmp_path / "mask.nii.gz", outputs={k: tmp_path / v for k, v in names.items()})
    assert present(tmp_path) == sorted([scan.name, "mask.nii.gz", *names.values()])
    labels = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    logits = np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj)
    np.testing.assert_array_equal(logits.argmax(axis=-1), labels)
    with (tmp_path / "s.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["voxels"]) == report["statistics"]["labels"][0]["voxels"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    written = {"mask.nii.gz", "p.nii.gz", "u.nii.gz", "s.csv", "p.png"}
    assert {Path(entry["name"]).name for entry in report["outputs"]} == written
    assert nib.load(tmp_path / "u.nii.gz").shape == (*labels.shape, 3)
    assert report["statistics"]["uncertainty"]["places"]


def test_names_that_ask_for_plain_volumes_and_json(client: Client, scan: Path, tmp_path: Path) -> None:
    client.segment(scan, tmp_path / "packed.nii.gz")
    places = {"probabilities": tmp_path / "p.nii", "statistics": tmp_path / "s.json"}
    report = client.segment(scan, tmp_path / "plain.nii", outputs=places)
    assert (tmp_path / "plain.nii").read_bytes() == gzip.decompress((tmp_path / "packed.nii.gz").read_bytes())
    assert nib.load(tmp_path / "p.nii").shape[:3] == nib.load(scan).shape
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["labels"] == report["statistics"]["labels"]
    hashes = {entry["name"]: entry["sha256"] for entry in report["outputs"]}
    plain = tmp_path / "plain.nii"
    assert hashes[str(plain)] == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_content_not_the_name_says_how_a_volume_is_stored(client: Client, scan: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / "misnamed.nii.gz"
    misnamed.write_bytes(gzip.decompress(scan.read_bytes()))
    client.segment(misnamed, tmp_path / "a.nii.gz")
    client.segment(scan, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").dataobj, nib.load(tmp_path / "b.nii.gz").dataobj)


def test_a_plan_segments_nothing(client: Client, scan: Path, tmp_path: Path) -> None:
    told = client.plan(scan)
    assert {"tiles", "tile", "seconds", "peak_bytes", "warnings", "model"} <= set(told)
    assert not any("volume_1" in warning for warning in told["warnings"])
    assert present(tmp_path) == [scan.name]


def test_several_models_of_which_one_is_not_there(client: Client, scan: Path, tmp_path: Path) -> None:
    default = client.models()["default"]
    found, missing = client.segment_many(
        scan, tmp_path, models=[default, "no-such-model"], outputs=["statistics", "report"]
    )
    folder = tmp_path / default.replace(":", "-")
    assert (found.model, found.error) == (default, None)
    assert {"mask.nii.gz", "report.json", "statistics.json"} <= set(present(folder)) == set(found.files)
    assert found.files["mask.nii.gz"] == folder / "mask.nii.gz"
    assert found.report is not None
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == found.report
    assert missing.model == "no-such-model"
    assert isinstance(missing.error, ModelError)
    assert (missing.report, missing.files) == (None, {})


def test_where_every_model_fails_the_first_ones_error_is_raised(client: Client, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        client.segment_many(scan, tmp_path, models=["no-such-model", "nor-this"])
    assert present(tmp_path) == [scan.name]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_an_array_comes_back_as_labels(client: Client, dtype: type[np.generic]) -> None:
    array = np.random.default_rng(0).integers(0, 255, (12, 9, 5)).astype(dtype)
    result = client.predict(array, spacing=(0.5, 0.5, 2.0), unit="um", probabilities=True)
    assert result.segmentation.shape == array.shape
    assert result.segmentation.dtype == np.uint8
    assert result.probabilities is not None
    assert result.probabilities.dtype == np.float32
    assert not result.segmentation.flags.writeable
    np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.segmentation)
    (label,) = result.labels
    (measured,) = result.statistics["labels"]
    assert measured["name"] == label.name
    assert measured["voxels"] == int((result.segmentation == label.value).sum())
    assert measured["volume"] == pytest.approx(0.5 * measured["voxels"])
    assert result.timings["score"] >= 0
    assert client.predict(array[None]).probabilities is None


def test_an_array_that_is_too_large_is_sent_to_segment(client: Client) -> None:
    with pytest.raises(LimitError, match="segment"):
        client.predict(np.zeros((256, 256, 65), np.uint8))


@pytest.mark.parametrize("array", [np.zeros((3, 3)), np.zeros((2, 2, 2), complex), np.array([[["a"]]])])
def test_what_is_no_volume_is_not_sent(client: Client, array: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="array"):
        client.predict(array)


def test_the_servers_refusals_are_the_librarys_errors(client: Client, scan: Path, tmp_path: Path) -> None:
    values = np.asarray(nib.load(scan).dataobj).astype(np.float32)
    values[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "holes.nii")
    (tmp_path / "text.nii").write_text("no volume", encoding="utf-8")
    before = present(tmp_path)
    mask = tmp_path / "mask.nii.gz"
    with pytest.raises(ModelError, match=r"^no-such-model: expected .*, got .*; "):
        client.segment(scan, mask, model="no-such-model")
    with pytest.raises(InputError, match=r"holes\.nii") as caught:
        client.segment(tmp_path / "holes.nii", mask)
    assert caught.value.subject == str(tmp_path / "holes.nii")
    with pytest.raises(InputError, match=r"text\.nii"):
        client.segment(tmp_path / "text.nii", mask)
    with pytest.raises(UsageError, match="threshold"):
        client.segment(scan, mask, threshold=2.0)
    with pytest.raises(ModelError, match="no-such-model"):
        client.model("no-such-model")
    assert present(tmp_path) == before
    client.segment(tmp_path / "holes.nii", mask, nan_as=0)
    assert mask.exists()


def test_an_older_mask_stays_until_the_new_one_is_whole(client: Client, scan: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"older")
    with pytest.raises(ModelError):
        client.segment(scan, mask, model="no-such-model")
    assert mask.read_bytes() == b"older"
    client.segment(scan, mask)
    assert nib.load(mask).shape == (21, 18, 13)


def test_stages_are_heard_of_in_bytes(client: Client, scan: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.nii.gz"
    shutil.copy(scan, second)
    calls: list[tuple[str, int, int]] = []
    client.plan(scan, on_progress=lambda *stage: calls.append(stage))
    assert ("upload", scan.stat().st_size, scan.stat().st_size) in calls
    calls.clear()
    client.segment(scan, tmp_path / "mask.nii.gz", on_progress=lambda *stage: calls.append(stage))
    assert list(dict.fromkeys(stage for stage, _, _ in calls)) == ["upload", "score", "download"]
    _, done, total = calls[-1]
    assert done == total > 0


def test_a_job_gives_what_a_request_gives(client: Client, scan: Path, tmp_path: Path) -> None:
    calls: list[RemoteJob] = []
    submitted = client.jobs.submit([scan])
    done = client.jobs.wait(submitted, on_progress=calls.append)
    assert (done.id, done.state, done.model) == (submitted.id, "done", client.models()["default"])
    assert (calls[-1], calls[-1].tiles_done) == (done, done.tiles_total)
    assert done.submitted <= (done.started or done.submitted) <= (done.ended or done.submitted)
    names = {"statistics": "s.csv", "preview": "p.png", "report": "r.json"}
    report = client.jobs.download(
        done, tmp_path / "mask.nii.gz", outputs={output: tmp_path / name for output, name in names.items()}
    )
    assert present(tmp_path) == sorted([scan.name, "mask.nii.gz", *names.values()])
    sha256 = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert report["inputs"] == [{"name": str(scan), "sha256": sha256}]
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == report
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["voxels"]) for row in rows] == [label["voxels"] for label in report["statistics"]["labels"]]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    client.segment(scan, tmp_path / "at_once.nii.gz")
    assert (tmp_path / "mask.nii.gz").read_bytes() == (tmp_path / "at_once.nii.gz").read_bytes()


def test_a_job_is_fetched_by_its_id_with_what_was_asked_for(client: Client, scan: Path, tmp_path: Path) -> None:
    with_scores, without = client.jobs.submit(scan, outputs=["probabilities"]).id, client.jobs.submit(scan).id
    for id in (with_scores, without):
        client.jobs.wait(id)
    logits = {"probabilities": tmp_path / "p.nii", "statistics": tmp_path / "s.json"}
    client.jobs.download(with_scores, tmp_path / "mask.nii", outputs=logits)
    assert nib.load(tmp_path / "p.nii").shape[:3] == nib.load(tmp_path / "mask.nii").shape == nib.load(scan).shape
    with pytest.raises(UsageError, match="one with probabilities"):
        client.jobs.download(without, tmp_path / "other.nii", outputs={"probabilities": tmp_path / "q.nii"})
    assert present(tmp_path) == sorted([scan.name, "mask.nii", "p.nii", "s.json"])
    listed = [job.id for job in client.jobs.list(["done", "failed"], limit=1000)]
    assert listed.index(without) < listed.index(with_scores)


def test_a_key_gives_the_job_that_it_gave_before(client: Client, scan: Path) -> None:
    key = f"{scan.parent} of today"
    first = client.jobs.submit(scan, key=key)
    assert client.jobs.submit(scan, key=key).id == first.id
    with pytest.raises(UsageError, match="another"):
        client.jobs.submit(scan, key=key, overlap=0.25)
    assert client.jobs.submit(scan).id != first.id


def test_a_job_that_can_never_be_done_is_refused_at_once(client: Client, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("no volume", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.nii") as caught:
        client.jobs.submit(tmp_path / "text.nii")
    assert caught.value.subject == str(tmp_path / "text.nii")
    with pytest.raises(ModelError, match="no-such-model"):
        client.jobs.submit(scan, model="no-such-model")
    with pytest.raises(UsageError, match="threshold"):
        client.jobs.submit(scan, threshold=2.0)


def test_a_job_is_stopped_tried_again_and_forgotten(client: Client, scan: Path) -> None:
    job = client.jobs.cancel(client.jobs.submit(scan))
    try:
        done = client.jobs.wait(job)  # where it was quicker
    except CancelledError:
        assert client.jobs.get(job).state == "cancelled"
        again = client.jobs.retry(job)
        assert again.state in ("queued", "running", "done")
        done = client.jobs.wait(again)
    assert done.id == job.id
    assert client.jobs.cancel(job).state == "done"
    with pytest.raises(UsageError, match="one that is done"):
        client.jobs.retry(job)
    client.jobs.delete(job)
    for ask in (client.jobs.get, client.jobs.wait, client.jobs.delete):
        with pytest.raises(UnknownJobError, match=job.id):
            ask(job)
    assert job.id not in [listed.id for listed in client.jobs.list(limit=1000)]
