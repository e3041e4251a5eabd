"""BentoML: its import without usage tracking, its model store, and its description of a model."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx

from ....domain.cards.model_card import ModelCard
from ....domain.cards.writing import write_card
from ....domain.errors import ModelError, UsageError
from ....ports.model import Model
from ...disk import output_errors

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore

_TAG_PART = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")
_TAG_LENGTH = 63


def untracked_bentoml() -> ModuleType:
    """Import BentoML without usage tracking. Raises UsageError if it is not installed."""
    # BentoML accepts only "true", and would send the size of every stored model
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    try:
        import bentoml
        import bentoml.models
        from bentoml._internal.utils.analytics.usage_stats import do_not_track
    except ImportError:
        raise UsageError.not_installed("the bento store", "BentoML", "serving") from None
    # the answer may be cached from before the variable was set
    do_not_track.cache_clear()
    return bentoml


def open_store(home: Path | None) -> ModelStore:
    """Open BentoML's model store below a home folder; None is BentoML's default.

    Raises:
        UsageError: BentoML is not installed.
        OutputError: the home folder cannot be created.
    """
    untracked_bentoml()
    # bentoml.models takes a store, but has no public name for its type, nor for the default
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    if home is not None:
        return ModelStore(home / "models")
    with output_errors("BENTOML_HOME"):
        return BentoMLContainer.model_store.get()


def tag_of(card: ModelCard) -> str:
    """Return the BentoML tag of a card. A plus in the version becomes an underscore, which no card contains.

    Raises:
        ModelError: BentoML does not accept the name.
    """
    name, version = card.name, card.version.replace("+", "_")
    fits = all(_TAG_PART.fullmatch(part) and len(part) <= _TAG_LENGTH for part in (name, version))
    # BentoML stores the newest version's name in a file ``latest``
    if not fits or version == "latest":
        raise ModelError(
            card.reference,
            expected=f"a name and a version that BentoML takes: up to {_TAG_LENGTH} lower-case letters, digits, dots "
            "and hyphens, with no dot or hyphen at the ends, and no version called latest",
            got="another",
            do="change the card, or keep the model in the folder store",
        )
    return f"{name}:{version}"


def describe(model: Model) -> dict[str, Any]:
    """Return the arguments of ``bentoml.models.create`` except the tag, as plain data."""
    card = json.loads(json.dumps(write_card(model.card)))
    names = list(model.card.output.channel_names)
    certified = [] if model.card.parity is None else model.card.parity.runtimes
    return {
        "labels": {"made_by": "voxport", "task": "segmentation", "format": model.format},
        "metadata": {
            "file": model.path.name,
            "reference": model.card.reference,
            "description": model.card.description,
            "licence": model.card.licence,
            "intended_use": model.card.intended_use,
            "sha256": model.sha256,
            "weights_sha256": model.weights_sha256,
            "certified": [f"{runtime.runtime} {runtime.precision}" for runtime in certified],
        },
        "custom_objects": {"card": card, "class_names": names, "preprocessing": card["input"]},
        "signatures": {"run": {"batchable": takes_any_batch(model.path), "batch_dim": 0}},
    }


def takes_any_batch(path: Path) -> bool:
    """Return whether the first axis of an ONNX network's input is dynamic."""
    graph = onnx.load_model(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [given for given in graph.input if given.name not in weights]
    if len(inputs) != 1 or not inputs[0].type.tensor_type.shape.dim:
        return False
    return not inputs[0].type.tensor_type.shape.dim[0].HasField("dim_value")


def is_bare(path: Path) -> bool:
    """Return whether a file is an ONNX network without a model card."""
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - protobuf has many errors for what it cannot parse
        return False
    return bool(model.graph.node) and all(entry.key != "voxport.card" for entry in model.metadata_props)
