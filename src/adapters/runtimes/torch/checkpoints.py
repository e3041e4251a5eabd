"""Checkpoint files: telling TorchScript from weights, and reading weights without running what is in the file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....domain.errors import ModelError

if TYPE_CHECKING:
    import torch

StateDict = dict[str, "torch.Tensor"]

# Where trainers put the weights: Lightning and most scripts, MONAI's CheckpointSaver, nnU-Net.
_NESTINGS = ("state_dict", "model_state_dict", "model", "network", "network_weights")
# Added to every key by DataParallel and by torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive; False for anything else that can be read.

    Raises:
        ModelError: no such file, or it cannot be read.
    """
    if not path.is_file():
        raise ModelError(path.name, expected="a checkpoint", got="no such file", do="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
    except OSError as error:
        raise ModelError(
            path.name, expected="a readable file", got=str(error.strerror or error), do="check its permissions"
        ) from None


def read_torchscript(path: Path) -> torch.jit.ScriptModule:
    """A TorchScript network, in eval mode on the CPU.

    TorchScript brings its own program, which runs inside torch's interpreter and not in Python.

    Raises:
        ModelError: the archive is broken.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated", category=DeprecationWarning)
        try:
            network: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                path.name, expected="a TorchScript file", got=first_line(error), do="save it again"
            ) from None
    network.eval()
    return network


def read_state_dict(path: Path) -> StateDict:
    """Parameters and buffers by name, without the wrappers' prefixes. Nothing in the file is executed.

    Raises:
        ModelError: not a checkpoint, one that would run code when it is read, or one that holds no weights.
    """
    import torch

    try:
        with warnings.catch_warnings():
            # Other pickle protocols either load or raise; the warning asks for an issue to be filed with torch.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    # What torch's reader raises on bytes that are no pickle, whichever byte comes first.
    except (RuntimeError, OSError) as error:
        raise _not_a_checkpoint(path, first_line(error)) from None
    except (EOFError, LookupError, ValueError, TypeError, AttributeError):
        raise _not_a_checkpoint(path, "a file that is none, or a damaged one") from None
    return _without_wrappers(_weights(content, path))


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its type."""
    lines = (line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]


def _refused(path: Path, message: str) -> ModelError:
    named = re.search(r"GLOBAL ([\w.]+)", message)
    if named is None:
        return _not_a_checkpoint(path, "something else")
    return ModelError(
        path.name,
        expected="weights only",
        got=f"a pickle that runs {named[1]} when it is read, which is refused",
        do="where the network was trained, save only its weights: torch.save(network.state_dict(), path)",
    )


def _not_a_checkpoint(path: Path, got: str) -> ModelError:
    return ModelError(
        path.name,
        expected="a torch checkpoint or a TorchScript file",
        got=got,
        do="give the file that torch.save(network.state_dict(), path) wrote",
    )


def _weights(content: object, path: Path) -> StateDict:
    import torch

    for _ in _NESTINGS:
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}
        inner: Any = next((content[key] for key in _NESTINGS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    got = f"keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content).__name__
    raise ModelError(
        path.name,
        expected=f"tensors by name, or such a mapping under {', '.join(_NESTINGS)}",
        got=got if got != "keys " else "nothing",
        do="save only the weights: torch.save(network.state_dict(), path)",
    )


def _without_wrappers(weights: StateDict) -> StateDict:
    while prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
