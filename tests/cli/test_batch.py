"""``voxport batch``: a folder in, masks out; what it says, and how it ends."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from .conftest import AFFINE, Command, environment, make_model


def put(path: Path, seed: int = 0) -> None:
    """A uint8 volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (17, 14, 12), np.uint8)
    nib.save(nib.Nifti1Image(values, AFFINE), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound volumes."""
    put(tmp_path / "in" / "a.nii.gz", 1)
    put(tmp_path / "in" / "sub" / "b.nii", 2)
    return tmp_path / "in"


@contextmanager
def on_a_terminal(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``voxport batch`` with a terminal as stderr; the process, and our end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "voxport", "batch", *map(str, arguments)],
        cwd=folder,
        env=environment(folder) | {"TERM": "xterm"} | dict(env or {}),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def read_all(terminal: int) -> str:
    """What was shown until the process ended."""
    seen = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return seen.decode()
        if not more:
            return seen.decode()
        seen += more


def test_masks_are_those_of_segment_and_the_second_run_leaves_them_alone(
    voxport: Command, folder: Path, model: Path, tmp_path: Path
) -> None:
    first = voxport("batch", folder, "-o", "out", "-m", model, "--preview", "--probabilities", "--concurrency", 2)
    assert (first.returncode, first.stdout) == (0, "out: 2 cases segmented, 0 unchanged since they were, 0 failed\n")
    assert [line for line in first.stderr.splitlines() if "certificate" not in line] == []
    own = voxport("segment", folder / "a.nii.gz", "-m", model, "-o", "own.nii.gz", "--probabilities", "own_p.nii.gz")
    assert own.returncode == 0, own.stderr
    out = tmp_path / "out"
    assert (out / "a.nii.gz").read_bytes() == (tmp_path / "own.nii.gz").read_bytes()
    assert (out / "a.probabilities.nii.gz").read_bytes() == (tmp_path / "own_p.nii.gz").read_bytes()
    assert (out / "sub" / "b.preview.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == [
        "a.nii.gz",
        "a.preview.png",
        "a.probabilities.nii.gz",
        "a.report.json",
        "statistics.csv",
        "sub",
    ]
    with (out / "statistics.csv").open(newline="") as table:
        assert [row["case"] for row in csv.DictReader(table)] == ["a", "sub/b"]
    before = (out / "a.nii.gz").stat()
    second = voxport("batch", folder, "-o", out, "-m", model, "--preview", "--probabilities", "--json")
    assert second.returncode == 0, second.stderr
    told = json.loads(second.stdout)
    assert told["counts"] == {"done": 0, "skipped": 2, "failed": 0}
    assert [(case["case"], case["state"]) for case in told["cases"]] == [("a", "skipped"), ("sub/b", "skipped")]
    after = (out / "a.nii.gz").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_command_in_a_report_makes_the_mask_again(
    voxport: Command, folder: Path, model: Path, tmp_path: Path
) -> None:
    assert voxport("batch", folder, "-o", "out", "-m", model, "--overlap", 0.25).returncode == 0
    mask = tmp_path / "out" / "a.nii.gz"
    made = mask.read_bytes()
    mask.unlink()
    command = json.loads((tmp_path / "out" / "a.report.json").read_text(encoding="utf-8"))["command"].split()
    assert voxport(*command[1:]).returncode == 0
    assert mask.read_bytes() == made


def test_failed_cases_are_in_a_table_and_the_others_are_done(voxport: Command, folder: Path, model: Path) -> None:
    (folder / "[broken].nii").write_bytes(b"no volume")
    put(folder / "two_0000.nii")
    put(folder / "two_0001.nii")
    result = voxport("batch", folder, "-o", "out", "-m", model, "--quiet")
    assert (result.returncode, result.stdout) == (1, "")
    lines = [line.split(maxsplit=1) for line in result.stderr.splitlines() if "certificate" not in line]
    assert [line[0] for line in lines] == ["failed", "[broken]", "two"]
    assert "expected" in lines[1][1]
    assert "two_0000.nii, two_0001.nii" in lines[2][1]
    told = voxport("batch", folder, "-o", "out", "-m", model, "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["counts"] == {"done": 0, "skipped": 2, "failed": 2}


def test_a_pattern_names_cases_and_channels(voxport: Command, tmp_path: Path) -> None:
    two = make_model(tmp_path / "two.onnx", channels=2)
    for number, sub in enumerate(("01", "02")):
        for kind in ("FLAIR", "T1w", "T2w"):
            put(
                tmp_path / "in" / f"sub-{sub}" / "anat" / f"sub-{sub}_{kind}.nii.gz",
                number * 10 + len(kind) + ord(kind[1]),
            )
    (tmp_path / "in" / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").unlink()
    pattern = ("--pattern", "sub-{case}/anat/sub-{case}_{channel}.nii.gz", "--channels", "T1w,FLAIR")
    result = voxport("batch", "in", "-o", "out", "-m", two, *pattern)
    assert result.returncode == 1
    assert "02" in result.stderr
    files = [f"in/sub-01/anat/sub-01_{kind}.nii.gz" for kind in ("T1w", "FLAIR")]
    assert voxport("segment", *files, "-m", two, "-o", "own.nii.gz").returncode == 0
    assert (tmp_path / "out" / "01.nii.gz").read_bytes() == (tmp_path / "own.nii.gz").read_bytes()
    assert not (tmp_path / "out" / "02.nii.gz").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("empty", "-o", "out"), 3, ("no volumes",)),
        (("nowhere", "-o", "out"), 3, ("no folder",)),
        (("in", "-o", "in"), 2, ("another folder",)),
        (("in", "-o", "out", "-m", "nowhere.onnx"), 4, ("nowhere.onnx",)),
        (("in", "-o", "out", "--pattern", "{case}/x.nii"), 3, ("{case}/x.nii", "2 volumes that do not")),
        (("in", "-o", "out", "--channels", "a,b"), 2, ("{case}",)),
        (("in", "-o", "out", "--pattern", "{case}_{channel}.nii"), 2, ("--channels",)),
        (("in", "-o", "out", "--runtime", "abacus"), 2, ("abacus",)),
        (("in", "-o", "out", "--shared", "--threads", "2"), 2, ("--threads", "--shared")),
        (("in", "-o", "out", "--shared", "--memory", "1GB"), 2, ("--memory", "--shared")),
        (("in", "-o", "out", "--shared", "--concurrency", "2"), 2, ("--concurrency", "--shared")),
        (("in", "-o", "out", "--shared", "-m", "model.onnx"), 2, ("-m", "every worker")),
        (("in",), 2, ("-o",)),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    voxport: Command, folder: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = voxport("batch", *arguments)
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert sorted(tmp_path.rglob("*")) == before
    assert folder.is_dir()


def test_a_second_batch_into_the_same_folder_is_refused(
    voxport: Command, folder: Path, model: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "out" / ".voxport" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = voxport("batch", folder, "-o", "out", "-m", model)
    assert result.returncode == 2
    assert "another batch writes to" in result.stderr
    assert voxport("batch", folder, "-o", "out", "-m", model).returncode == 0


def test_one_bar_is_shown_for_all_cases(folder: Path, model: Path, tmp_path: Path) -> None:
    with on_a_terminal(tmp_path, folder, "-o", "out", "-m", model) as (process, terminal):
        shown = read_all(terminal)
        assert process.wait(60) == 0
    assert "cases" in shown
    assert "2.0/2" in shown


def test_ctrl_c_stops_within_a_tile_and_the_same_command_goes_on(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (160, 160, 160), np.uint8)
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "in" / "big.nii")
    put(tmp_path / "in" / "small.nii")
    slow = make_model(tmp_path / "slow.onnx", patch=(16, 16, 16), overlap=0.75)
    with on_a_terminal(tmp_path, "in", "-o", "out", "-m", slow) as (process, terminal):
        seen = b""
        while b"0.1/2" not in seen:
            more = os.read(terminal, 4096)
            assert more, "it ended before a tenth of the first case was done"
            seen += more
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        shown = read_all(terminal)
        assert process.wait(30) == 130
    assert time.monotonic() - began < 5
    assert "the same command goes on where this one stopped" in shown
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    assert (tmp_path / "out" / ".voxport").is_dir()


def test_over_a_shared_queue_a_worker_elsewhere_does_it(
    voxport: Command, folder: Path, model: Path, tmp_path: Path
) -> None:
    added = voxport("models", "add", model)
    assert added.returncode == 0, added.stderr
    jobs = {
        "VOXPORT_JOBS__DATABASE": f"sqlite:///{tmp_path}/queue/jobs.sqlite",
        "VOXPORT_JOBS__BLOBS": str(tmp_path / "queue" / "blobs"),
    }
    (tmp_path / "queue").mkdir()
    with (tmp_path / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "voxport", "worker"]
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path) | jobs, stdout=log, stderr=log)
    try:
        result = voxport("batch", folder, "-o", "out", "-m", "affine", "--shared", env=jobs)
        assert result.returncode == 0, result.stderr
        listed = voxport("jobs", "list", "--json", env=jobs)
        assert json.loads(listed.stdout) == {"jobs": []}
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert voxport("segment", folder / "a.nii.gz", "-m", "affine", "-o", "own.nii.gz").returncode == 0
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == (tmp_path / "own.nii.gz").read_bytes()
    assert not (tmp_path / "out" / ".voxport").exists()


def test_a_watched_folder_is_segmented_until_ctrl_c(
    voxport: Command, folder: Path, model: Path, tmp_path: Path
) -> None:
    arguments = (folder, "-o", "out", "-m", model, "--watch", "--settle", "0.2")
    with on_a_terminal(tmp_path, *arguments) as (process, terminal):
        assert process.stdout is not None
        first = {process.stdout.readline(), process.stdout.readline()}
        assert first == {b"a done\n", b"sub/b done\n"}
        shutil.copy(folder / "a.nii.gz", folder / "c.nii.gz")
        assert process.stdout.readline() == b"c done\n"
        (folder / "bad.nii").write_bytes(b"no volume")
        assert process.stdout.readline().startswith(b"bad failed: ")
        process.send_signal(signal.SIGINT)
        shown = read_all(terminal)
        assert process.wait(30) == 130
    assert "the same command goes on where this one stopped" in shown
    done = voxport("segment", folder / "c.nii.gz", "-m", model, "-o", "c.nii.gz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "c.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()
