"""DbosJobQueue keeps the JobQueue contract on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.adapters.dbos_jobs import DbosJobQueue
from voxport.ports.job_queue import JobQueue, QueueLimits
from voxport.testing.job_queue import JobQueueContract


class TestSqlite(JobQueueContract):
    @pytest.fixture
    def surroundings(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.count = 0

    def make_queue(self, limits: QueueLimits) -> JobQueue:
        self.count += 1
        return DbosJobQueue(f"sqlite:///{self.folder}/jobs-{self.count}.sqlite", limits)
