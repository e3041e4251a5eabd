"""Networks around networks: slice by slice, with other axes, or the mean of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ....domain.errors import ModelError

if TYPE_CHECKING:
    import torch

_AXES = ("x", "y", "z")


def slice_by_slice(network: torch.nn.Module, axis: object) -> torch.nn.Module:
    """Wrap a network for 2-D images so that it takes ``(N, C, ., ., .)`` and gives ``(N, K, ., ., .)``.

    ``axis`` is the spatial axis across the slices: ``x``, ``y`` or ``z`` for the first, second or third of the array.

    Raises:
        ModelError: another axis.
    """
    if axis not in _AXES:
        raise ModelError("network", expected="_slices_ to be x, y or z", got=str(axis), do="correct _slices_")
    place = 2 + _AXES.index(str(axis))

    def forward(image: torch.Tensor) -> torch.Tensor:
        slices = image.movedim(place, 1)
        logits: torch.Tensor = network(slices.flatten(0, 1))
        return logits.reshape(*slices.shape[:2], *logits.shape[1:]).movedim(1, place)

    return _wrapper([network], forward)


def with_axes(network: torch.nn.Module, order: object) -> torch.nn.Module:
    """Wrap a network that takes the spatial axes in another order than the arrays have.

    ``order`` has, for each of the network's axes, its number in the array: ``[1, 0, 2]`` swaps the first two.

    Raises:
        ModelError: not an order of 0, 1 and 2.
    """
    if not isinstance(order, Sequence) or sorted(order) != [0, 1, 2]:
        raise ModelError("network", expected="_transpose_ to order 0, 1, 2", got=str(order), do="correct _transpose_")
    forth = (0, 1, *(2 + axis for axis in order))
    back = (0, 1, *(2 + order.index(axis) for axis in range(3)))

    def forward(image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(image.permute(forth))
        return logits.permute(back)

    return _wrapper([network], forward)


def mean_of(members: Sequence[torch.nn.Module]) -> torch.nn.Module:
    """Wrap networks of one kind so that they give the mean of their logits."""
    first, *others = members

    def forward(image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = first(image)
        for member in others:
            logits = logits + member(image)
        return logits / len(members)

    return _wrapper(members, forward)


def _wrapper(members: Sequence[torch.nn.Module], run: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """Return a network with the weights of its members and their different notes, in eval mode."""
    import torch

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = torch.nn.ModuleList(members)
            self.in_channels = getattr(members[0], "in_channels", None)
            self.notes = tuple(dict.fromkeys(note for each in members for note in getattr(each, "notes", ())))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return run(image)

    return Wrapper().eval()
