"""Networks around networks: one of several outputs, slice by slice, other axes, or the mean of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....domain.errors import ModelError

if TYPE_CHECKING:
    import torch

_AXES = ("x", "y", "z")
_Named = tuple[str, "torch.Tensor"]


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


def one_output(
    network: torch.nn.Module, choice: str | int | None = None, notes: tuple[str, ...] = ()
) -> torch.nn.Module:
    """Wrap a network so that it returns one tensor.

    ``choice`` selects one of several tensors by name (``out``, or ``aux.0`` in a list within a mapping) or by index.
    Without a choice it is the only one of the image's size, e.g. the first of a list of falling resolutions. The first
    call determines it, and raises ModelError, with a list of all, for no or several such tensors, or a wrong choice.
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


def _tensors(name: str, output: Any) -> Iterator[_Named]:
    """Yield the tensors of an output, in order, with their names."""
    import torch

    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping | list | tuple):
        parts = output.items() if isinstance(output, Mapping) else enumerate(output)
        for key, part in parts:
            yield from _tensors(f"{name}.{key}" if name else str(key), part)


def _index(tensors: list[_Named], image: tuple[int, ...], choice: str | int | None) -> int:
    called = ["" if name == str(i) else f" {name}" for i, (name, _) in enumerate(tensors)]
    shapes = [tuple(tensor.shape) for _, tensor in tensors]
    listed = ", ".join(f"{i}{name} {shape}" for i, (name, shape) in enumerate(zip(called, shapes, strict=True)))
    if choice is not None:
        names = [name for name, _ in tensors]
        found = [i for i, name in enumerate(names) if name == choice or name.startswith(f"{choice}.")]
        if str(choice).isdecimal() and int(choice) < len(tensors):
            found = [int(choice)]
        if len(found) == 1:
            return found[0]
        expected, do = "the name or the index of one output", "choose another `network_output`"
        raise ModelError("network output", expected=expected, got=f"{choice} of {listed or 'no tensors'}", do=do)
    grid = (image[0], *image[2:])
    full = [i for i, shape in enumerate(shapes) if len(shape) == len(image) and (shape[0], *shape[2:]) == grid]
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
