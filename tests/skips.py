"""Fail in CI on a skipped test whose reason ``skips.txt`` does not list."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LISTED = Path(__file__).with_name("skips.txt")


def listed_reasons(text: str) -> list[str]:
    """Return the patterns of a list with a line ``REASON | WHERE THE TEST RUNS`` for each skip that is allowed."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in lines:
        reason, _, place = line.partition(" | ")
        assert reason.strip(), line
        assert place.strip(), f"{line}: say where the test runs"
    return [line.partition(" | ")[0] for line in lines]


def unlisted(skipped: Iterable[tuple[str, str]], patterns: Iterable[str]) -> Iterator[str]:
    """Yield ``NODE: REASON`` for each pair whose reason matches no pattern."""
    patterns = list(patterns)
    for node, reason in skipped:
        if not any(fnmatchcase(reason, pattern) for pattern in patterns):
            yield f"{node}: {reason}"


class Skips:
    """Collects skips; on the process that controls the run, not on its workers."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; an expected failure is none."""
        if not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a skipped module."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped.append((report.nodeid, str(report.longrepr[2]).removeprefix("Skipped: ")))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in CI that has an unlisted skip."""
        found = sorted(unlisted(self.skipped, listed_reasons(LISTED.read_text(encoding="utf-8"))))
        if found and os.environ.get("CI"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print("", "skipped, and not listed in tests/skips.txt:", *found, sep="\n")


def pytest_configure(config: pytest.Config) -> None:
    """Watch a run, unless this process is one of its workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")
