"""Processes of the command that begin with its modules imported: forked from one that did nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

_PRELOADED = (
    "voxport.entrypoints.cli.main",
    "voxport.application",
    "voxport.adapters.runtimes.onnx",
    "voxport.adapters.models.onnx_files",
    "voxport.adapters.volumes.nifti",
    "voxport.adapters.models.folder",
    "voxport.adapters.artifacts.local",
    "voxport.adapters.pictures.png",
    "voxport.services.segmentation.segment",
    "scipy.ndimage",
    "rich.table",
)


def run_forked(
    arguments: list[str], *, cwd: Path, env: Mapping[str, str], seconds: float = 120
) -> CompletedProcess[str]:
    """Run ``voxport`` in a process of its own, as a shell would; what it printed, and its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_run, args=(arguments, str(cwd), dict(env), folder))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutExpired(arguments, seconds)
        said = {name: (Path(folder) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")}
        return CompletedProcess(["voxport", *arguments], process.exitcode or 0, **said)


def _run(arguments: list[str], cwd: str, env: dict[str, str], folder: str) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        opened = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115 - until the end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["voxport", *arguments]
    from voxport.entrypoints.cli.main import run

    run()
