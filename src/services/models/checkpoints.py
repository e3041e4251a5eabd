"""Describe the checkpoint to export from the user's arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...domain.errors import UsageError
from ...ports.exporter import Checkpoint


def describe_checkpoint(
    path: Path | None,
    network: str | None,
    network_args: str | None,
    bundle: Path | None,
    read_bundle: Callable[[Path], Checkpoint],
    output: str | None = None,
) -> Checkpoint:
    """Return the checkpoint and its network: from a bundle, ``network`` with JSON arguments, or TorchScript.

    ``output`` names the output with the logits, for a network with several.

    Raises:
        UsageError: conflicting options, or ``network_args`` is not a JSON object.
        ModelError: the bundle cannot be read.
    """
    if bundle is not None:
        if network is not None or network_args is not None:
            raise UsageError("bundle", expected="no `network` beside it", got="both", do="give one of them")
        found = read_bundle(bundle)
        path, described = path or found.path, dict(found.network)
    elif path is None:
        raise UsageError("checkpoint", expected="a file", got="none", do="name one, or a `bundle`")
    elif network is not None:
        described = {"_target_": network, **_arguments(network_args or "{}")}
    elif network_args is not None:
        raise UsageError("network_args", expected="a `network` with it", got="it alone", do="name the network")
    else:
        described = {}
    return Checkpoint(path, described if output is None else {**described, "_output_": output})


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            "network_args",
            expected="a JSON object such as '{\"init_filters\": 8}'",
            got=f"{text} ({error.msg} at character {error.pos})",
            do="quote it for the shell",
        ) from None
    if not isinstance(arguments, dict):
        raise UsageError("network_args", expected="a JSON object", got=text, do='write {"name": value}')
    return arguments
