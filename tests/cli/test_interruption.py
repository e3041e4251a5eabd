"""A run that is stopped leaves no mask or a whole one, and stops at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from voxport.entrypoints.cli import main

from .conftest import environment, make_model

_SECONDS_TO_STOP = 2.0


def ignore_ctrl_c() -> None:
    """What ``nohup`` and jobs in the background do before they start a program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def running(
    folder: Path, stage: str, *arguments: object, prepare: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``voxport segment`` as a process of its own, once its progress bar shows a stage."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "voxport", "segment", *map(str, arguments)],
        cwd=folder,
        env=environment(folder) | {"TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        preexec_fn=prepare,
    )
    os.close(theirs)
    try:
        seen = b""
        while stage.encode() not in seen:
            more = os.read(ours, 4096)
            assert more, "the process ended before the stage was shown"
            seen += more
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def big_scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 255, (160, 160, 160), np.uint8)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "big.nii.gz")
    return tmp_path / "big.nii.gz"


def _stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> float:
    began = time.monotonic()
    process.send_signal(number)
    process.wait(30)
    return time.monotonic() - began


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_within_two_seconds_and_cleans_up(
    big_scan: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """20 thousand tiles would take far longer than the test waits."""
    model = make_model(tmp_path / "model.onnx", patch=(16, 16, 16), overlap=0.75)
    before = sorted(path.name for path in tmp_path.iterdir())
    with running(tmp_path, "score", big_scan, "-m", model, "-o", "mask.nii.gz") as process:
        seconds = _stopped(process, number)
        assert process.returncode == code
    assert seconds < _SECONDS_TO_STOP
    # what was found out of the model and this machine is kept with the user's data
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "data") == before


def test_ctrl_c_does_not_wait_for_a_tile_that_takes_long(tmp_path: Path) -> None:
    """One tile of 20 million voxels with a kernel of 9 x 9 x 9 takes minutes inside the runtime."""
    values = np.zeros((320, 320, 200), np.uint8)
    values[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "big.nii")
    model = make_model(tmp_path / "model.onnx", radius=4, patch=(None, None, None))
    with running(tmp_path, "score", "big.nii", "-m", model, "-o", "mask.nii.gz") as process:
        seconds = _stopped(process, signal.SIGINT)
        assert process.returncode == 130
    assert seconds < _SECONDS_TO_STOP
    assert not list(tmp_path.glob("*mask*"))


def test_a_run_that_starts_with_ctrl_c_ignored_keeps_ignoring_it(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(64**3).reshape(64, 64, 64).astype(np.int32), np.eye(4)), tmp_path / "scan.nii")
    model = make_model(tmp_path / "model.onnx", patch=(16, 16, 16), overlap=0.5)
    arguments = ("scan.nii", "-m", model, "-o", "mask.nii.gz")
    with running(tmp_path, "score", *arguments, prepare=ignore_ctrl_c) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert (tmp_path / "mask.nii.gz").exists()


STOPPING = """
import signal
from voxport.entrypoints.cli.console import on_stop
on_stop(lambda: print("stop"))
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(("prepare", "stops"), [(None, 2), (ignore_ctrl_c, 1)])
def test_services_and_workers_keep_ignoring_it_too(prepare: Callable[[], None] | None, stops: int) -> None:
    command = [sys.executable, "-c", STOPPING]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True, preexec_fn=prepare)
    assert done.stdout.split() == ["stop"] * stops


@pytest.mark.requirement("R-WHOLE")
@pytest.mark.parametrize("stage", ["read", "prepare", "score", "measure", "write"])
def test_a_kill_leaves_no_mask_or_a_whole_one(big_scan: Path, tmp_path: Path, stage: str) -> None:
    model = make_model(tmp_path / "model.onnx", patch=(80, 80, 80), overlap=0)
    with running(tmp_path, stage, big_scan, "-m", model, "-o", "mask.nii.gz") as process:
        process.kill()
        process.wait()
    mask = tmp_path / "mask.nii.gz"
    if mask.exists():
        assert stage == "write"
        assert np.asarray(nib.load(mask).dataobj).shape == (160, 160, 160)


def test_ctrl_c_is_answered_by_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Typer turns the interruption of a command into a result, before anything around it sees it."""
    interrupted = typer.Typer()

    @interrupted.command()
    def command() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["voxport"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    main.run()
    assert codes == [130]
    assert capsys.readouterr().err == "voxport: interrupted; every output is whole or absent\n"
