"""Callbacks: the URL of a job is called when it has ended, again and again until it answers."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...domain.errors import InputError, UnknownJobError, UsageError
from ...domain.job import Job
from ...ports.webhooks import WebhookSender
from .submit import JobPorts

_CALLBACKS = "callbacks"
# Seconds between attempts; after the last one the callback is given up.
DELAYS = (5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600)
_log = logging.getLogger("voxport.jobs")


@dataclass(frozen=True)
class Callbacks:
    """Keeps the URL of each job beside its files until it has answered, so that a killed worker loses none.

    Several workers may call a URL twice; the message has the same id then.

    Args:
        describe: a job as plain data.
        now: seconds since 1970.
    """

    ports: JobPorts
    sender: WebhookSender
    describe: Callable[[Job], Mapping[str, Any]]
    now: Callable[[], float] = time.time

    def add(self, job: Job, url: str) -> None:
        """Call this URL when the job has ended. Raises UsageError, OutputError."""
        self.sender.check(url)
        self._put(job.id, {"url": url, "attempts": 0, "at": self.now()})

    def deliver(self) -> int:
        """Call the URLs of jobs that have ended; return how many have answered.

        Raises:
            OSError, OutputError: the queue or the stored files cannot be reached.
        """
        return sum(self._deliver(name.split("/")[1]) for name in self.ports.blobs.names(_CALLBACKS))

    def _deliver(self, id: str) -> bool:
        try:
            with self.ports.blobs.open(f"{_CALLBACKS}/{id}/url") as file:
                kept = json.load(file)
            job = self.ports.queue.get(id)
        except InputError:  # another worker has called it
            return False
        except UnknownJobError:  # deleted meanwhile
            self._forget(id)
            return False
        if not job.has_ended or kept["at"] > self.now():
            return False
        try:
            self.sender.send(kept["url"], id, self._body(job))
        except (ConnectionError, UsageError) as error:
            self._put_off(id, kept, error)
            return False
        self._forget(id)
        return True

    def _body(self, job: Job) -> bytes:
        """The message, as Standard Webhooks has it: a type, a time and data."""
        data = self.describe(job)
        return json.dumps({"type": f"job.{job.state}", "timestamp": data["ended"], "data": data}).encode()

    def _put_off(self, id: str, kept: Mapping[str, Any], error: Exception) -> None:
        attempts = kept["attempts"] + 1
        if attempts > len(DELAYS) or isinstance(error, UsageError):
            _log.error("job %s: its callback is given up after %d attempts: %s", id, attempts, error)
            self._forget(id)
            return
        delay = DELAYS[attempts - 1]
        _log.warning("job %s: its callback failed and is tried again in %d s: %s", id, delay, error)
        self._put(id, {**kept, "attempts": attempts, "at": self.now() + delay})

    def _put(self, id: str, kept: Mapping[str, Any]) -> None:
        self.ports.blobs.put(f"{_CALLBACKS}/{id}/url", io.BytesIO(json.dumps(kept).encode()))

    def _forget(self, id: str) -> None:
        self.ports.blobs.delete_prefix(f"{_CALLBACKS}/{id}")
