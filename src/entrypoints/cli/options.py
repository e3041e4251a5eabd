"""Options that several commands take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ...domain.errors import UsageError
from ...domain.reading import Reading, parse_spacing
from ...domain.run import RunOptions
from .console import parse_bytes, parse_patch


def absolute(folder: str) -> Path:
    """Return the absolute path of a folder; ``~`` is the user's."""
    return Path(folder).expanduser().absolute()


def _absolute_if_file(model: str) -> str:
    path = absolute(model)
    return str(path) if path.is_file() else model


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
    Path | None,
    typer.Option(
        "--models", metavar="PATH", parser=absolute, help="Folder of ONNX models.", show_default="VOXPORT_MODELS_DIR"
    ),
]
DefaultModel = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", metavar="TEXT", parser=_absolute_if_file, help="The default model: a name, or an ONNX file."
    ),
]
Scratch = Annotated[
    Path | None,
    typer.Option("--scratch", help="Folder for temporary files.", show_default="the temporary folder"),
]
Configuration = Annotated[
    str | None, typer.Option("--configuration", help="Of an nnU-Net with several, e.g. 3d_fullres.")
]
NetworkOutput = Annotated[
    str | None, typer.Option("--network-output", metavar="NAME|INDEX", help="The output with the logits, of several.")
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen to other machines without a key.")]
StoreName = Annotated[
    str | None, typer.Option("--store", help="Where models are kept: folder or bento.", show_default="folder")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Segment in blocks on a Dask cluster: tcp://HOST:PORT, local:N for N processes here, or local.",
        show_default="no blocks",
    ),
]
BlockEdge = Annotated[
    int | None,
    typer.Option("--block", metavar="VOXELS", min=1, help="Edge of the blocks.", show_default="what memory holds"),
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
    """Give a command an option for each field of its parameter ``options``, a `RunOptions`, but ``omitted`` ones."""
    return _takes("options", RunOptions, [field.name for field in fields(RunOptions) if field.name not in omitted])


def takes_reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of its parameter ``reading``, a `Reading`."""
    return _takes("reading", Reading, [field.name for field in fields(Reading)])(command)


def takes_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of its parameter ``options``, a `RunOptions`, on how volumes are read."""
    return _takes("options", RunOptions, [*(field.name for field in fields(Reading)), "nan_as"])(command)


def _takes(
    name: str, made: type[RunOptions | Reading], names: Sequence[str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter by an option for each of these fields of `RunOptions`."""
    hints = get_type_hints(RunOptions)
    # a size has no suffix, as its value states the unit
    taken = {field.name.removesuffix("_bytes"): field for field in fields(RunOptions) if field.name in names}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {field.name: given.pop(word) for word, field in taken.items()}
            command(**given, **{name: made(**values)})

        signature = inspect.signature(command, eval_str=True)
        parameters = []
        for parameter in signature.parameters.values():
            if parameter.name == name:
                parameters += [_parameter(word, hints[field.name], field) for word, field in taken.items()]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(word: str, hint: Any, field: Field[Any]) -> inspect.Parameter:
    metadata, (kind,) = field.metadata, (kind for kind in get_args(hint) if kind is not type(None))
    option = typer.Option(
        f"--{word.replace('_', '-')}",
        metavar=metadata["metavar"],
        parser={"SIZE": parse_bytes, "X,Y,Z": parse_patch, "SX,SY,SZ": parse_spacing}.get(metadata["metavar"]),
        help=metadata["description"],
        show_default=metadata["shown"] or False,
        min=metadata["schema"].get("minimum") if kind is int else None,
    )
    annotation = Annotated[(kind if kind in (int, float) else str) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def names(text: str) -> tuple[str, ...]:
    """Return the names of ``A,B``."""
    return tuple(name.strip() for name in text.split(","))


def as_environment(**settings: object) -> dict[str, str]:
    """Return the environment variables of settings, with ``__`` between levels; those that are None are left out."""
    return {f"VOXPORT_{name.upper()}": str(value) for name, value in settings.items() if value is not None}


def cluster_settings(address: str | None, block: int | None, server: str | None = None) -> dict[str, Any]:
    """Return the settings that the options of a cluster make. Raises UsageError."""
    if server is not None and (address, block) != (None, None):
        do = "leave one of them out; the settings of the server decide"
        raise UsageError("--server", expected="no cluster beside it", got="both", do=do)
    return {name: value for name, value in (("address", address), ("block", block)) if value is not None}


def check_remote_options(
    model: str | None, here: Mapping[str, object], *, beside: str = "--server", who: str = "the server"
) -> None:
    """Check the options of a run in another process, which the option ``beside`` asks for.

    Raises:
        UsageError: an option of runs in this process, ``here``, is neither None nor ``auto``; or the model is a file.
    """
    from ...client import is_model_reference

    for option, value in here.items():
        if value not in (None, "auto"):
            do = f"leave one of them out; the settings of {who} decide"
            raise UsageError(f"--{option}", expected=f"no such option beside {beside}", got=str(value), do=do)
    if model is not None and not is_model_reference(model):
        do = f"add the file to the models of {who}, and name it"
        raise UsageError("-m", expected=f"NAME or NAME:VERSION of a model that {who} has", got=model, do=do)
