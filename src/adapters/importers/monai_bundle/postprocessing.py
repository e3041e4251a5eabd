"""A bundle's postprocessing as the output of a card."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ....domain.labels.label_map import PALETTE, Activation, Label, LabelTable, Output
from ....domain.labels.postprocessing import KeepLargest, Postprocessing
from .configuration import Component, Configuration
from .preprocessing import apply_word

_WITHOUT_EFFECT = frozenset({"SaveImage", "EnsureType", "CastToType", "ToTensor", "ToDevice", "Identity"})


@dataclass
class Postprocessed:
    """The words of a postprocessing read so far."""

    channels: int
    activation: Activation | None = None
    discrete: bool = False
    threshold: float = 0.5
    resample: Literal["logits", "probabilities", "labels"] = "labels"
    order: Literal[0, 1, 3] = 0
    postprocessing: list[Postprocessing] = field(default_factory=list)
    # Value and channel of each label, the last has priority; None: in the order of the channels.
    merged: tuple[tuple[int, int], ...] | None = None
    notes: list[str] = field(default_factory=list)

    def output(self, names: Mapping[int, str], *, resampled: bool) -> Output:
        """Return the card's output; ``names`` are those of the channels."""
        activation = self.activation or "softmax"
        first = 0 if activation == "sigmoid" else 1
        given = self.merged or tuple((c + 1 - first, c) for c in range(first, self.channels))
        usual = self.merged is None
        labels = tuple(
            Label(value, names.get(c) or f"label {value}", PALETTE[i % len(PALETTE)], None if usual else c)
            for i, (value, c) in enumerate(given)
        )
        output = Output(activation, LabelTable(labels), postprocessing=tuple(self.postprocessing))
        if resampled:
            output = replace(output, resample=self.resample, order=self.order)
        return output if self.threshold == output.threshold else output.with_threshold(self.threshold)


def read_postprocessing(configuration: Configuration, channels: int) -> Postprocessed:
    """Read the section ``postprocessing``. Raises ModelError for a word or an argument that a card cannot say."""
    found = Postprocessed(channels)
    components = configuration.components("postprocessing")
    for component in components:
        word = component.word_of(_WORDS.keys() | _WITHOUT_EFFECT)
        if word in _WITHOUT_EFFECT:
            continue
        if word not in _WORDS:
            expected = f"one of {', '.join(sorted({*_WORDS, *_WITHOUT_EFFECT}))}"
            raise component.refused(expected, component.target)
        apply_word(_WORDS[word], found, component)
    if not found.discrete:
        got = "none"
        do = "write a card by hand and give it to `export` with `bundle`"
        raise configuration.refused("postprocessing", "AsDiscrete with argmax or a threshold", got, do)
    if found.activation == "sigmoid" and channels > 1 and found.merged is None:
        found.notes.append("the bundle writes a mask a channel: where several labels hold, the last in the list wins")
    return found


def _activations(found: Postprocessed, component: Component) -> None:
    component.only("sigmoid", "softmax", "other", "dim", "kwargs")
    sigmoid, softmax = bool(component.get("sigmoid", False)), bool(component.get("softmax", False))
    if component.arguments.get("other") is not None or sigmoid == softmax or component.has("dim"):
        raise component.refused("either sigmoid or softmax", "another activation")
    found.activation = "sigmoid" if sigmoid else "softmax"


def _as_discrete(found: Postprocessed, component: Component) -> None:
    component.only("argmax", "to_onehot", "threshold", "dim", "keepdim")
    argmax, threshold = bool(component.get("argmax", False)), component.get("threshold")
    if found.discrete or argmax == (threshold is not None):
        raise component.refused("argmax or a threshold, once", "both, neither or twice")
    if argmax != (found.activation != "sigmoid"):
        raise component.refused("argmax after softmax, a threshold after sigmoid", f"{found.activation} before it")
    found.discrete = True
    found.threshold = 0.5 if argmax else float(threshold)


def _invert(found: Postprocessed, component: Component) -> None:
    known = ("transform", "orig_keys", "nearest_interp", "to_tensor", "device", "post_func", "meta_key_postfix")
    component.only(*known, "orig_meta_keys")
    nearest = component.get("nearest_interp", True)
    if component.arguments.get("post_func") is not None:
        raise component.refused("no post_func", repr(component.arguments["post_func"]))
    if found.discrete:
        if not nearest:
            found.notes.append("Invert interpolates label values: voxport takes the label of the nearest voxel instead")
        return
    found.order = 0 if nearest else 1
    found.resample = "labels" if nearest else "logits" if found.activation is None else "probabilities"


def _keep_largest(found: Postprocessed, component: Component) -> None:
    component.only("applied_labels", "is_onehot", "independent", "connectivity", "num_components")
    if not found.discrete:
        raise component.refused("KeepLargestConnectedComponent after AsDiscrete", "it before")
    if component.get("connectivity") not in (None, 3) or component.get("num_components", 1) != 1:
        raise component.refused("connectivity 3 and one component", "others")
    given = component.get("applied_labels")
    labels = [given] if isinstance(given, int) else given
    if labels is None:
        first = 0 if found.activation == "sigmoid" else 1
        labels = list(range(1, found.channels + 1 - first))
    groups = [[label] for label in labels] if component.get("independent", True) else [labels]
    found.postprocessing += [KeepLargest(tuple(int(label) for label in group)) for group in groups]


def _lambda(found: Postprocessed, component: Component) -> None:
    component.only("func", "overwrite", "inv_func", "track_meta")
    function = component.arguments.get("func")
    merged = _merged(str(function).removeprefix("$").strip()) if found.activation == "sigmoid" else None
    if not found.discrete or found.merged is not None or merged is None:
        expected = "a Lambda that merges channels, lambda x: torch.where(x[[0]] > 0, 1, torch.where(...)),"
        raise component.refused(expected, f"{function!r}, which is code and is not run")
    if any(channel >= found.channels for _, channel in merged) or len({value for value, _ in merged}) != len(merged):
        raise component.refused("each value once, of channels that the network has", repr(merged))
    found.merged = merged


def _merged(function: str) -> tuple[tuple[int, int], ...] | None:
    """Return value and channel of each label of ``lambda x: torch.where(x[[2]] > 0, 4, ...)``, the outermost last."""
    try:
        tree = ast.parse(function, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(tree, ast.Lambda) or len(tree.args.args) != 1:
        return None
    name, part = tree.args.args[0].arg, tree.body
    found: list[tuple[int, int]] = []
    while not (isinstance(part, ast.Constant) and part.value == 0):
        match part:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
                args=[
                    ast.Compare(
                        left=ast.Subscript(value=ast.Name(id=used), slice=index),
                        ops=[ast.Gt()],
                        comparators=[ast.Constant(value=0)],
                    ),
                    ast.Constant(value=int() as value),
                    part,
                ],
            ) if used == name and ast.unparse(index).strip("[]").isdecimal():
                found.append((value, int(ast.unparse(index).strip("[]"))))
            case _:
                return None
    return tuple(reversed(found)) or None


_WORDS: Mapping[str, Callable[[Postprocessed, Component], None]] = {
    "Activations": _activations,
    "AsDiscrete": _as_discrete,
    "Invert": _invert,
    "KeepLargestConnectedComponent": _keep_largest,
    "Lambda": _lambda,
}
