"""``voxport segment --server``: the same files and the same words as a run here."""

from __future__ import annotations

import functools
import hashlib
import json
import resource
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from voxport.entrypoints.cli.segmenting import show_outcome

from tests.client.conftest import raw_problem, rude
from tests.rest.conftest import named_model
from tests.rest.serving import running_server

from .conftest import Command, environment
from .test_interruption import running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with one model that takes a volume of one channel."""
    folder = tmp_path_factory.mktemp("server")
    named_model(folder / "models", "edges")
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges") as server:
        yield server.url


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_same_files_and_the_same_table(voxport: Command, scan: Path, server: str, tmp_path: Path) -> None:
    result = voxport(
        *("segment", scan, "--server", server, "-o", "mask.nii.gz", "--probabilities", "p.nii.gz"),
        *("--statistics", "s.json", "--preview", "p.png", "--report", "r.json"),
    )
    assert result.returncode == 0, result.stderr
    assert visible(tmp_path) == ["mask.nii.gz", "p.nii.gz", "p.png", "r.json", "s.json", "scan.nii.gz"]
    labels = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    (label,) = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["labels"]
    assert label["voxels"] == int((labels == 1).sum())
    lines = result.stdout.splitlines()
    for word in ("label", "voxels", "of all", "volume (um^3)", "pieces"):
        assert word in lines[0]
    assert " ".join(lines[1].split()).startswith(f"{label['name']} {label['voxels']} ")
    assert lines[-1].startswith("mask.nii.gz: ")
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())


def test_the_report_is_of_the_files_here(voxport: Command, scan: Path, server: str, tmp_path: Path) -> None:
    voxport("segment", scan, "--server", server, "-o", "mask.nii.gz", "--report", "r.json", "--overlap", "0.25")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in report["inputs"]] == [str(scan)]
    assert [entry["name"] for entry in report["outputs"]] == ["mask.nii.gz"]
    command = shlex.split(report["command"])
    assert command[:2] == ["voxport", "segment"]
    assert command[command.index("--server") + 1] == server
    first = (tmp_path / "mask.nii.gz").read_bytes()
    (tmp_path / "mask.nii.gz").unlink()
    assert voxport(*command[1:]).returncode == 0
    assert (tmp_path / "mask.nii.gz").read_bytes() == first


def test_the_page_is_made_here(voxport: Command, scan: Path, server: str, tmp_path: Path) -> None:
    result = voxport("segment", scan, "--server", server, "-o", "mask.nii.gz", "--html", "page.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"--server {server}" in page
    assert page.count("data:image/png;base64,") > 10
    assert visible(tmp_path) == ["mask.nii.gz", "page.html", "scan.nii.gz"]


def test_the_label_table_is_that_of_a_run_here(
    voxport: Command, scan: Path, model: Path, server: str, tmp_path: Path
) -> None:
    for name, chosen in (("here", ("-m", model)), ("there", ("--server", server))):
        files = ("-o", f"{name}.nii.gz", "--label-table", f"{name}.tsv", "--report", f"{name}.json")
        result = voxport("segment", scan, *chosen, *files)
        assert result.returncode == 0, result.stderr
    there = (tmp_path / "there.tsv").read_bytes()
    assert (tmp_path / "here.tsv").read_bytes() == there
    written = {
        entry["name"]: entry["sha256"]
        for entry in json.loads((tmp_path / "there.json").read_text(encoding="utf-8"))["outputs"]
    }
    assert written["there.tsv"] == hashlib.sha256(there).hexdigest()


def test_json_has_the_fields_of_a_run_here(voxport: Command, scan: Path, model: Path, server: str) -> None:
    here = json.loads(voxport("segment", scan, "-m", model, "-o", "a.nii", "--json").stdout)
    there = json.loads(voxport("segment", scan, "--server", server, "-o", "b.nii", "--json").stdout)
    assert set(there) == set(here)
    assert set(there["labels"][0]) == set(here["labels"][0])
    assert there["mask"] == "b.nii"


def test_quiet_says_nothing(voxport: Command, scan: Path, server: str) -> None:
    result = voxport("segment", scan, "--server", server, "-o", "mask.nii", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_sample_is_sent(voxport: Command, server: str, tmp_path: Path) -> None:
    result = voxport("segment", "--sample", "--server", server)
    assert result.returncode == 0, result.stderr
    assert visible(tmp_path) == ["sample_mask.nii.gz", "sample_preview.png", "sample_statistics.json"]
    assert f"--server {server}" in result.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--card", "card.yaml"),
        ("--runtime", "onnx"),
        ("--precision", "fp32"),
        ("--threads", "2"),
        ("--memory", "4GB"),
        ("-m", "model.onnx"),
        ("-m", "./two-photon-vessels"),
    ],
)
def test_options_that_speak_of_this_machine(
    voxport: Command, scan: Path, server: str, tmp_path: Path, option: str, value: str
) -> None:
    result = voxport("segment", scan, "--server", server, "-o", "mask.nii", option, value)
    assert result.returncode == 2
    assert result.stderr.startswith(f"voxport: {option}: expected")
    assert "the server" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "mask.nii").exists()


def test_auto_is_no_choice(voxport: Command, scan: Path, server: str) -> None:
    auto = ("--runtime", "auto", "--precision", "auto")
    assert voxport("segment", scan, "--server", server, "-o", "mask.nii", *auto).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "no-such-model"), 4, "no-such-model"),
        (("--overlap", "0.5", "--blending", "fog"), 2, "--blending"),
        (("--statistics", "s.txt"), 2, "--statistics"),
        (("--preview", "nowhere/p.png"), 1, "nowhere"),
        (("--report", "nowhere/r.json"), 1, "nowhere"),
        (("--preview", "mask.nii"), 2, "a name of its own"),
    ],
)
def test_what_fails_says_so_in_one_line(
    voxport: Command, scan: Path, server: str, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = voxport("segment", scan, "--server", server, "-o", "mask.nii", *arguments)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert visible(tmp_path) == ["scan.nii.gz"]


def test_volumes_that_cannot_be_used(voxport: Command, server: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "pair.hdr")
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), tmp_path / "holes.nii")
    for name, said in (("missing.nii", "no such file"), ("pair.hdr", "one of a pair"), ("holes.nii", "NaN")):
        result = voxport("segment", name, "--server", server, "-o", "mask.nii")
        assert result.returncode == 3, result.stderr
        assert result.stderr.startswith(f"voxport: {name}: expected")
        assert said in result.stderr
    assert not (tmp_path / "mask.nii").exists()


def test_without_a_key_the_refusal_names_the_variable(voxport: Command, scan: Path) -> None:
    with rude(raw_problem(401, "unauthorised"), read=b"--\r\n") as url:
        result = voxport("segment", scan, "--server", url, "-o", "mask.nii")
    assert result.returncode == 2
    assert "VOXPORT_API_KEY" in result.stderr


def test_a_key_comes_from_the_environment(voxport: Command, scan: Path) -> None:
    """The server answers once it has received the key."""
    with rude(raw_problem(422, "usage"), read=b"Authorization: Bearer s3cret\r\n") as url:
        result = voxport("segment", scan, "--server", url, "-o", "mask.nii", env={"VOXPORT_API_KEY": "s3cret"})
    assert "a detail" in result.stderr


def test_a_busy_server_is_a_limit(voxport: Command, scan: Path) -> None:
    with rude(raw_problem(503, "busy", **{"Retry-After": "7"}), read=b"--\r\n") as url:
        result = voxport("segment", scan, "--server", url, "-o", "mask.nii")
    assert result.returncode == 5
    assert "try again in 7 s" in result.stderr


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://lab.example", "http://me:hush@lab.example"])
def test_what_is_no_address(voxport: Command, scan: Path, url: str) -> None:
    result = voxport("segment", scan, "--server", url, "-o", "mask.nii")
    assert result.returncode == 2
    assert "hush" not in result.stderr


def test_no_server_is_one_line(voxport: Command, scan: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        result = voxport("segment", scan, "--server", url, "-o", "mask.nii")
    assert result.returncode == 1
    assert result.stderr == (
        f"voxport: {url}: expected a connection, got connection refused; check the address, and that the server runs\n"
    )


@pytest.mark.parametrize(("name", "largest_bytes"), [("mask.nii.gz", 0), ("mask.nii.gz", 3000), ("mask.nii", 5000)])
def test_no_room_for_results_is_one_line(
    scan: Path, server: str, tmp_path: Path, name: str, largest_bytes: int
) -> None:
    """The server's answer has more than 3000 bytes; its mask has 5266 when inflated."""
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))
    result = subprocess.run(
        [sys.executable, "-m", "voxport", "segment", str(scan), "--server", server, "-o", name],
        cwd=tmp_path,
        env=environment(tmp_path),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("voxport: ")
    assert "file too large" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert visible(tmp_path) == ["scan.nii.gz"]


def test_names_of_labels_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    label = {"name": "[/red] vessel", "voxels": 1, "volume": 0.5, "components": 1}
    report = {
        "warnings": [],
        "statistics": {"labels": [label]},
        "grid": {"unit": "mm", "shape": [2, 1, 1]},
        "tiles": {"count": 1},
        "runtime": {"name": "onnx", "precision": "fp32"},
        "seconds": {"score": 1.0},
    }
    show_outcome(report, "mask.nii", as_json=False)
    assert "[/red] vessel" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_waiting_for_a_server_can_be_stopped(scan: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The bar shows the stages; a signal ends the wait, and nothing is left."""
    before = visible(tmp_path)
    with (
        rude(b"", read=b"--\r\n") as url,
        running(tmp_path, "score", scan, "--server", url, "-o", "mask.nii.gz") as process,
    ):
        process.send_signal(number)
        assert process.wait(10) == code
    assert visible(tmp_path) == before
