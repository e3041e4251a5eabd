"""Options that several commands take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from ...domain.errors import UsageError
from ...domain.run import RunOptions
from .console import parse_bytes, parse_patch

ModelName = Annotated[
    str | None,
    typer.Option("-m", "--model", help="A model file, or the name of a model.", show_default="two-photon-vessels"),
]
CardFile = Annotated[
    Path | None, typer.Option("--card", help="Model card (YAML), for a model without one or instead of its own.")
]
RuntimeName = Annotated[str, typer.Option("--runtime", help="auto, onnx, openvino or torch.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or int8.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processors to use.", show_default="all")]
ModelsFolder = Annotated[
    Path | None, typer.Option("--models", help="Folder of ONNX models.", show_default="VOXPORT_MODELS_DIR")
]
DefaultModel = Annotated[str | None, typer.Option("-m", "--model", help="The default model: a name, or an ONNX file.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen to other machines without a key.")]
StoreName = Annotated[
    str | None, typer.Option("--store", help="Where models are kept: folder or bento.", show_default="folder")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Segment on a voxport server; VOXPORT_API_KEY holds its key.",
        show_default="this machine",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]


def takes_run_options(*omitted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whose parameter is ``options`` a command-line option for each field of `RunOptions`.

    Args:
        omitted: fields that the command does not take.
    """
    hints = get_type_hints(RunOptions)
    taken = [field for field in fields(RunOptions) if field.metadata and field.name not in omitted]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {field.name: _parsed(hints[field.name], field, given.pop(_word(field))) for field in taken}
            command(**given, options=RunOptions(**values))

        signature = inspect.signature(command, eval_str=True)
        parameters = []
        for parameter in signature.parameters.values():
            named = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            is_options = parameter.name == "options"
            parameters += [_parameter(hints[field.name], field) for field in taken] if is_options else [named]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(hint: Any, field: Field[Any]) -> inspect.Parameter:
    metadata, (kind,) = field.metadata, (kind for kind in get_args(hint) if kind is not type(None))
    option = typer.Option(
        f"--{_word(field).replace('_', '-')}",
        metavar=metadata["metavar"],
        help=metadata["description"],
        show_default=metadata["shown"] or False,
        min=metadata["schema"].get("minimum") if kind is int else None,
    )
    is_number = kind in (int, float) and metadata["metavar"] != "SIZE"
    annotation = Annotated[(kind if is_number else str) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(_word(field), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _word(field: Field[Any]) -> str:
    """Return the option's name; a size has no suffix, as its value states the unit."""
    return field.name.removesuffix("_bytes")


def _parsed(hint: Any, field: Field[Any], value: Any) -> Any:
    if field.metadata["metavar"] == "SIZE":
        return parse_bytes(value)
    return parse_patch(value) if any(get_origin(kind) is tuple for kind in get_args(hint)) else value


def check_remote_options(
    model: str | None, here: Mapping[str, object], *, beside: str = "--server", who: str = "the server"
) -> None:
    """Check the options of a run in another process.

    Args:
        model: value of ``-m``.
        here: options of runs in this process, with their values; None or ``auto`` if not given.
        beside: option that moves the run to another process.
        who: name of that process in messages.

    Raises:
        UsageError: an option of ``here`` has a value, or the model is a file.
    """
    from ...client import is_model_reference

    for option, value in here.items():
        if value not in (None, "auto"):
            do = f"leave one of them out; the settings of {who} decide"
            raise UsageError(f"--{option}", expected=f"no such option beside {beside}", got=str(value), do=do)
    if model is not None and not is_model_reference(model):
        do = f"add the file to the models of {who}, and name it"
        raise UsageError("-m", expected=f"NAME or NAME:VERSION of a model that {who} has", got=model, do=do)
