"""The command line's listeners keep the ProgressListener contract; sizes and patches are parsed."""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from dataclasses import fields

import pytest
import typer
from rich.console import Console
from rich.progress import Progress
from voxport.domain.errors import UsageError
from voxport.domain.run import RunOptions
from voxport.entrypoints.cli.console import FIELDS, Bar, bar_display, logged_from, parse_bytes, parse_patch, with_flags
from voxport.entrypoints.cli.main import app
from voxport.ports.progress import ProgressListener
from voxport.testing.progress import ProgressListenerContract


class TestBar(ProgressListenerContract):
    def make_listener(self) -> ProgressListener:
        self.progress = Progress(console=Console(file=io.StringIO()))
        return Bar(self.progress)

    def seen(self, listener: ProgressListener) -> tuple[str, int, int] | None:  # noqa: ARG002 - read off the bar
        (task,) = self.progress.tasks
        return task.description, int(task.completed), int(task.total or 0)


def test_a_quiet_bar_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar_display(quiet=True, anywhere=True) as progress:
        listener = Bar(progress)
        listener.stage("score", 2)
        listener.advance(2)
    assert capsys.readouterr() == ("", "")


def test_what_is_logged_is_said_from_a_level_on_until_the_block_ends(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("voxport.example")
    before = logger.level, logger.handlers[:]
    with suppress(KeyError), logged_from(logging.INFO, logger.name, said=True):
        logger.info("said")
        logger.debug("unsaid")
        raise KeyError
    logger.info("unsaid")
    assert capsys.readouterr() == ("", "voxport: said\n")
    assert (logger.level, logger.handlers) == before


def test_what_is_not_said_is_still_logged_from_its_level_on(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("voxport.example")
    with logged_from(logging.ERROR, logger.name):
        logger.warning("less than an error")
        logger.error("an error")
    logger.warning("after")
    assert [record.getMessage() for record in caplog.records] == ["an error", "after"]


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
    ],
)
def test_sizes_are_read_with_decimal_and_binary_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 apples", "0", "1e400"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_bytes(text)


def test_patches_are_three_whole_numbers() -> None:
    assert parse_patch("96, 96,16") == (96, 96, 16)
    for text in ("96", "1,2,3,4", "a,b,c", "1.5,2,3", "-8,8,8"):
        with pytest.raises(UsageError, match="--patch"):
            parse_patch(text)


def test_an_error_about_a_field_names_the_flag_here() -> None:
    assert with_flags("overlap: expected a fraction, got 2; 0.5 is usual").startswith("--overlap: expected")
    assert with_flags("precision int8: expected a file, got none; make one").startswith("--precision int8: expected")
    assert with_flags("a.nii: expected finite values, got NaN; set `nan_as`").endswith("set --nan-as")
    assert with_flags("free memory: expected 2 GB, got 1 GB; set a smaller `patch`").endswith("smaller --patch")


def test_every_run_option_has_its_flag() -> None:
    assert {option.name.removesuffix("_bytes") for option in fields(RunOptions)} <= set(FIELDS)
    assert with_flags("axis: expected x, y or z, got w; choose another").startswith("--axis: expected")


def test_an_error_about_something_else_stays_as_it_is() -> None:
    for message in (
        "overlapping.nii: expected a volume, got text; export it again",
        "scan.nii: expected overlap: none, got `something`; leave it",
        "mask.nii.gz: expected room, got none; free some",
        "patch and batch are words",
    ):
        assert with_flags(message) == message


def test_every_field_that_becomes_a_flag_is_an_option_of_some_command() -> None:
    def arguments(command: object) -> set[str]:
        own = {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
        return own.union(*map(arguments, getattr(command, "commands", {}).values()))

    known = arguments(typer.main.get_command(app))
    assert {flag if flag.startswith("--") else flag.lower() for flag in FIELDS.values()} <= known
