"""A worker that segments, and is killed by itself: ``python -m tests.jobs.segmenting_worker URL BLOBS TILES``.

At its first attempt of a job it is killed with SIGKILL once so many tiles are done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.blobs.fsspec import FsspecBlobs
from voxport.adapters.jobs.dbos import DbosJobQueue
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.scratch.folders import ScratchFolders
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.inference.patches import Tiling
from voxport.ports.job_queue import Attempt, QueueLimits, Results
from voxport.services.jobs.run import JobSettings, run_job
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.segment import SegmentPorts
from voxport.testing.resources import FixedResources

from tests.services.conftest import brighter_than, load, make_card

PORTS = SegmentPorts(NiftiStore(), LocalFiles(), PngPictures(), FixedResources())


def model() -> LoadedModel:
    """The model that all workers have."""
    return load(brighter_than(0.5), make_card(tiling=Tiling((4, 4, 4), overlap=0.25)), radius=1)


class _Mortal:
    def __init__(self, attempt: Attempt, tiles: int) -> None:
        self.job, self._attempt, self._tiles = attempt.job, attempt, tiles

    def report(self, done: int, total: int) -> None:
        """Report, and die of it."""
        self._attempt.report(done, total)
        if done >= self._tiles and self.job.attempts == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, blobs_url: str, tiles: int) -> None:
    """Work until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    blobs, loaded = FsspecBlobs(blobs_url), model()
    settings = JobSettings("1.0", keep_every_seconds=0.0)

    def handler(attempt: Attempt) -> Results:
        mortal = _Mortal(attempt, tiles)
        folders = ScratchFolders(None, FileLocks())
        results = run_job(mortal, take=lambda _: loaded, ports=PORTS, blobs=blobs, settings=settings, folders=folders)
        inferred = len(loaded.runtime.calls)  # type: ignore[attr-defined]
        print(f"scored {inferred}", flush=True)
        return results

    queue = DbosJobQueue(url, QueueLimits(lease_seconds=2.0))
    queue.work(handler, 1, stop)
    queue.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
