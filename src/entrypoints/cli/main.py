"""``voxport``: the application, and how errors become exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from ... import __version__
from ...domain.errors import (
    BusyError,
    CancelledError,
    FormatError,
    InputError,
    LimitError,
    ModelError,
    UnknownJobError,
    UsageError,
    VoxportError,
)
from . import (
    batch,
    calibrating,
    comparing,
    dicom,
    importing,
    jobs,
    measuring,
    models,
    reporting,
    segmenting,
    serving,
    tuning,
    up,
    volumes,
)
from .console import say, with_flags

_EXIT_CODES: dict[type[VoxportError], int] = {
    UsageError: 2,
    UnknownJobError: 2,
    InputError: 3,
    ModelError: 4,
    LimitError: 5,
    FormatError: 2,
    BusyError: 5,
    CancelledError: 130,
}
_INTERRUPTED, _TERMINATED = 130, 143

app = typer.Typer(
    name="voxport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Run trained 3-D segmentation networks: masks on the input's own voxels, from one verified file.",
    epilog="Exit codes: 0 done, 2 usage, 3 bad input, 4 bad model, 5 out of a stated limit, 1 anything else.",
)
app.command("segment")(segmenting.segment_command)
app.command("batch")(batch.batch_command)
app.command("import")(importing.import_command)
app.command("export")(models.export_command)
app.command("verify")(models.verify_command)
app.command("inspect")(models.inspect_command)
app.command("compare")(comparing.compare_command)
app.command("report")(reporting.report_command)
app.command("measure")(measuring.measure_command)
app.command("convert")(volumes.convert_command)
app.command("plan")(segmenting.plan_command)
app.command("tune")(tuning.tune_command)
app.command("calibrate")(calibrating.calibrate_command)
app.command("serve")(serving.serve_command)
app.command("demo")(serving.demo_command)
app.command("dicom")(dicom.dicom_command)
app.command("worker")(serving.worker_command)
app.command("up")(up.up_command)
app.command("sbom")(models.sbom_command)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"voxport {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""


def run() -> NoReturn:
    """Run the command line and end with ``os._exit``: threads in native code must not delay an interrupted run."""
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or 1
    os._exit(code)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments or os.environ.get("VOXPORT_DEBUG") == "1"
    try:
        # --debug may stand anywhere: people append it to the command that failed
        result = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False)
    except KeyboardInterrupt:
        result = _INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except typer.Abort:
        return _say("stopped", 1)
    except Exception as error:
        if debug:
            raise
        return _failed(error)
    if result == _INTERRUPTED:  # typer's answer to Ctrl-C in a command
        return _say("interrupted; every output is whole or absent", _INTERRUPTED)
    return result if isinstance(result, int) else 0


def _failed(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        got = "a longer name"
        error = UsageError(str(error.filename), expected="a name that the file system takes", got=got, do="shorten it")
    if isinstance(error, VoxportError):
        code = next((_EXIT_CODES[kind] for kind in type(error).__mro__ if kind in _EXIT_CODES), 1)
        return _say(with_flags(str(error)), code)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return _say(f"{error.format_message()}{hint}", int(error.exit_code))
    if isinstance(error, MemoryError):
        return _say("out of memory: expected room for the run; give a limit with --memory, or smaller tiles", 5)
    kind = type(error).__name__
    return _say(f"unexpected {kind}: {' '.join(str(error).split())[:300]}; run again with --debug for the place", 1)


def _say(message: str, code: int) -> int:
    say(message)
    return code


def _terminate(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - the signature is the system's
    raise SystemExit(_TERMINATED)
