"""The command line's listeners keep the ProgressListener contract; sizes and patches are parsed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress
from voxport.domain.errors import UsageError
from voxport.entrypoints.cli.console import Bar, Silent, parse_bytes, parse_patch
from voxport.ports.progress import ProgressListener
from voxport.testing.progress import ProgressListenerContract


class TestBar(ProgressListenerContract):
    def make_listener(self) -> ProgressListener:
        self.progress = Progress(console=Console(file=io.StringIO()))
        return Bar(self.progress)

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:  # noqa: ARG002 - read off the bar
        (task,) = self.progress.tasks
        return task.description, int(task.completed), int(task.total or 0)


class TestSilent(ProgressListenerContract):
    def make_listener(self) -> ProgressListener:
        return Silent()

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:  # noqa: ARG002 - shows nothing
        return None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GB", 4_000_000_000),
        ("1.5 gb", 1_500_000_000),
        ("800MB", 800_000_000),
        ("2GiB", 2**31),
        ("512 KiB", 2**19),
        ("123", 123),
        ("2e9", 2_000_000_000),
        ("1TB", 10**12),
        (None, None),
    ],
)
def test_sizes_are_read_with_decimal_and_binary_units(text: str | None, count: int | None) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 apples", "0", "1e400"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_bytes(text)


def test_patches_are_three_whole_numbers() -> None:
    assert parse_patch("96, 96,16") == (96, 96, 16)
    assert parse_patch(None) is None
    for text in ("96", "1,2,3,4", "a,b,c", "1.5,2,3", "-8,8,8"):
        with pytest.raises(UsageError, match="--patch"):
            parse_patch(text)
