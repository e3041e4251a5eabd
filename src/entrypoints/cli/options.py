"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ...domain.errors import UsageError

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="NIfTI volume; several are the channels of one case.", show_default=False),
]
ModelName = Annotated[
    str | None,
    typer.Option("-m", "--model", help="A model file, or the name of a model.", show_default="two-photon-vessels"),
]
CardFile = Annotated[
    Path | None, typer.Option("--card", help="Model card (YAML) for a model that has none, or in its place.")
]
RuntimeName = Annotated[str, typer.Option("--runtime", help="auto, onnx, openvino or torch.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or int8.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processors to use.", show_default="all")]
Overlap = Annotated[
    float | None, typer.Option("--overlap", help="Overlap of tiles, 0 to 0.75.", show_default="the card's")
]
Patch = Annotated[
    str | None, typer.Option("--patch", metavar="X,Y,Z", help="Tile edges in voxels.", show_default="the card's")
]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Tiles a call of the network.", show_default="1")]
BlendingName = Annotated[
    str | None,
    typer.Option("--blending", help="gaussian, constant, or halo (least memory).", show_default="the card's"),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="Memory limit, e.g. 4GB.", show_default="half of what is free"),
]
NanAs = Annotated[
    float | None,
    typer.Option("--nan-as", metavar="VALUE", help="Take this for NaN and Inf, which are refused otherwise."),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Probability from which a voxel has a label.", show_default="the card's"),
]
ModelsFolder = Annotated[
    Path | None, typer.Option("--models", help="Folder of ONNX models.", show_default="VOXPORT_MODELS_DIR")
]
StoreName = Annotated[
    str | None, typer.Option("--store", help="Where models are kept: folder or bento.", show_default="folder")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Have a voxport server do it; its key, if it wants one, is VOXPORT_API_KEY.",
        show_default="this machine",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]


def check_remote_options(
    model: str | None, here: Mapping[str, object], *, beside: str = "--server", who: str = "the server"
) -> None:
    """Check the options of a run that another process does.

    Args:
        model: value of ``-m``.
        here: options that only a run in this process takes, with their values; None or ``auto`` for one left open.
        beside: option that has the run done elsewhere.
        who: runs it there.

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
