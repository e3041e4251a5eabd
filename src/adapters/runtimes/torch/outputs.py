"""The one output of a network that holds the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ....domain.errors import ModelError

if TYPE_CHECKING:
    import torch

Named = tuple[str, "torch.Tensor"]


def one_output(
    network: torch.nn.Module, choice: str | int | None = None, notes: tuple[str, ...] = ()
) -> torch.nn.Module:
    """A network that gives one tensor.

    Of several tensors it gives the one that ``choice`` names, by its name (``out``, or ``aux.0`` in a list within a
    mapping) or by its index. Without a choice it gives the only one with the image's size, such as the first of a list
    of falling resolutions. Which one that is, is decided at the first call.

    Raises:
        ModelError: at the first call, where none or several have the image's size, or the choice is none of them; lists
            them all.
    """
    import torch

    class OneOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.in_channels = getattr(network, "in_channels", None)
            self.notes = notes
            self.index: int | None = None

        def forward(self, image: torch.Tensor) -> Any:
            output = self.network(image)
            if isinstance(output, torch.Tensor) and choice is None:
                return output
            tensors = list(_tensors("", output))
            if self.index is None:
                self.index = _index(tensors, tuple(image.shape), choice)
            return tensors[self.index][1]

    return OneOutput().eval()


def _tensors(name: str, output: Any) -> Iterator[Named]:
    """The tensors of an output, in order, with their names."""
    import torch

    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping | list | tuple):
        parts = output.items() if isinstance(output, Mapping) else enumerate(output)
        for key, part in parts:
            yield from _tensors(f"{name}.{key}" if name else str(key), part)


def _index(tensors: list[Named], image: tuple[int, ...], choice: str | int | None) -> int:
    listed = ", ".join(f"{i}{_called(name, i)} {tuple(tensor.shape)}" for i, (name, tensor) in enumerate(tensors))
    if choice is not None:
        names = [name for name, _ in tensors]
        found = [i for i, name in enumerate(names) if name == choice or name.startswith(f"{choice}.")]
        if str(choice).isdecimal() and int(choice) < len(tensors):
            found = [int(choice)]
        if len(found) == 1:
            return found[0]
        expected, do = "the name or the index of one output", "choose another `network_output`"
        raise ModelError("network output", expected=expected, got=f"{choice} of {listed or 'no tensors'}", do=do)
    full = [i for i, (_, tensor) in enumerate(tensors) if _is_on_the_grid(tuple(tensor.shape), image)]
    if len(full) == 1:
        return full[0]
    raise ModelError(
        "network output",
        expected="one tensor (N, K, ., ., .) of the image's size",
        got=f"{len(full)} of them in: {listed or 'no tensors'}",
        do="name the one that holds the logits, or its index, as `network_output`"
        if full
        else "use a network for segmentation",
    )


def _called(name: str, index: int) -> str:
    return "" if name == str(index) else f" {name}"


def _is_on_the_grid(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    return len(shape) == 5 and (shape[0], *shape[2:]) == (image[0], *image[2:])
