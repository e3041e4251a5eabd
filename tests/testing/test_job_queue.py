"""The fake keeps the contract of the port that it stands in for."""

from __future__ import annotations

from voxport.ports.job_queue import JobQueue, QueueLimits
from voxport.testing.job_queue import JobQueueContract
from voxport.testing.job_queue_fake import MemoryJobQueue


class TestMemoryJobQueue(JobQueueContract):
    def make_queue(self, limits: QueueLimits) -> JobQueue:
        return MemoryJobQueue(limits)
