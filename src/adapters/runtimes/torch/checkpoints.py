"""Checkpoint files: state dicts, safetensors and TorchScript. Reading runs no code from a file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....domain.errors import ModelError, UsageError
from ....domain.plain import first_line

if TYPE_CHECKING:
    import torch

StateDict = dict[str, "torch.Tensor"]


# Keys of the weights in checkpoints of Lightning, nnU-Net, MONAI and other scripts; the first present counts.
_HOLDERS = (
    "state_dict",
    "network_weights",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "weights",
    "params",
    "ema_state_dict",
    "params_ema",
    "ema",
)
_SCALAR_TYPES = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) | {"b1"}
_MOST_HEADER_BYTES = 100_000_000  # of a safetensors file


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers by name, and their position in the file (empty: top level)."""

    tensors: StateDict
    found: str = ""


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive.

    Raises:
        ModelError: missing or unreadable.
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
    """Load a TorchScript network in eval mode on the CPU. Its program runs in torch's interpreter.

    Raises:
        ModelError: an invalid archive.
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


def read_weights(path: Path) -> Weights:
    """Read the weights of a checkpoint or safetensors file, without running code from it.

    Raises:
        ModelError: not a checkpoint, one that needs code to be read, or one without weights.
        UsageError: the package safetensors is not installed.
    """
    return Weights(_read_safetensors(path)) if is_safetensors(path) else _weights(_read_pickle(path), path)


def read_content(path: Path) -> Mapping[str, Any]:
    """Read everything in a checkpoint file: weights, numbers and names, without running code from it.

    Raises:
        ModelError: not a checkpoint, one that needs code to be read, or one without names.
    """
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        raise _not_a_checkpoint(path, type(content).__name__)
    return content


def _read_pickle(path: Path) -> object:
    try:
        import torch
    except ImportError:
        raise UsageError.not_installed(path.name, "PyTorch", "torch") from None

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_safe_scalars()):
            # other pickle protocols load or raise; the warning only asks for a report to torch
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    # torch raises any of these for bytes that are not a pickle
    except (RuntimeError, OSError) as error:
        raise _not_a_checkpoint(path, first_line(error)) from None
    except (EOFError, LookupError, ValueError, TypeError, AttributeError):
        raise _not_a_checkpoint(path, "a file that is none, or a damaged one") from None


def is_safetensors(path: Path) -> bool:
    """Return whether a file has the header of safetensors: eight bytes with the length of a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _MOST_HEADER_BYTES


def _read_safetensors(path: Path) -> StateDict:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UsageError.not_installed(path.name, "the package safetensors", "torch") from None
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError) as error:
        do = "get the file again"
        raise ModelError(path.name, expected="a safetensors file", got=first_line(error), do=do) from None


class _ScalarType:
    """Replaces ``numpy.dtype`` in a pickle; allows numbers of at most 8 bytes."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in _SCALAR_TYPES:
            raise pickle.UnpicklingError("GLOBAL numpy.dtype of other than plain numbers")
        self.code = str(code)

    def __setstate__(self, state: object) -> None:
        """Ignore the state; a scalar's code defines its type."""


def _scalar(kind: object, content: object) -> object:
    """Replaces ``numpy.core.multiarray.scalar`` in a pickle."""
    if not isinstance(kind, _ScalarType) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.core.multiarray.scalar of other than plain numbers")
    return np.frombuffer(content, np.dtype(kind.code))[0].item()


def _safe_scalars() -> list[Any]:
    """Read NumPy scalars, which nnU-Net and Lightning store beside weights, with functions of this module."""
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [(_ScalarType, "numpy.dtype"), *((_scalar, f"{module}.scalar") for module in modules)]


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
        expected="a torch checkpoint, a safetensors file or a TorchScript file",
        got=got,
        do="where the network was trained, write one with torch.save(network.state_dict(), path)",
    )


def _weights(content: object, path: Path) -> Weights:
    import torch

    place: list[str] = []
    for _ in _HOLDERS:
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return Weights({str(key): value for key, value in content.items()}, ".".join(place))
        holder = next((key for key in _HOLDERS if isinstance(content.get(key), Mapping)), None)
        if holder is None:
            break
        others = [key for key in _HOLDERS if key != holder and isinstance(content.get(key), Mapping)]
        place.append(holder + (f" (not {', '.join(others)})" if others else ""))
        content = content[holder]
    got = f"keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content).__name__
    raise ModelError(
        path.name,
        expected=f"tensors by name, or such a mapping under {', '.join(_HOLDERS)}",
        got=got if got != "keys " else "nothing",
        do="save only the weights: torch.save(network.state_dict(), path)",
    )
