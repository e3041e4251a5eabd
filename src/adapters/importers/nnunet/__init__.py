"""Import of nnU-Net v2 results. No code of a source is run: JSON is parsed, and checkpoints are read as weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....domain.cards.model_card import ModelCard
from ....domain.labels.postprocessing import KeepLargest
from ....ports.exporter import Checkpoint
from ....ports.importer import ImportChoices, Imported, ModelImporter
from ...archives import file_inside
from ...disk import sha256
from .network import describe_network, divisor
from .pipeline import describe_input, describe_output, describe_postprocessing, describe_tiling, region_values
from .plans import Plans
from .prediction import predict
from .results import Results, holds_results, open_results, read_json

__all__ = ["NnunetImporter"]

_VERSION = "1.0.0"
_CITATION = (
    "Isensee, F., Jaeger, P. F., Kohl, S. A., Petersen, J., Maier-Hein, K. H. nnU-Net: a self-configuring method for "
    "deep learning-based biomedical image segmentation. Nature Methods 18, 203-211 (2021)."
)


class NnunetImporter(ModelImporter):
    """Imports a trainer's folder, a folder of several, or the zip that nnU-Net's export command writes.

    Args:
        read_checkpoint: reads a checkpoint without running code from it. Raises ModelError for one that needs to.
    """

    name = "nnunet"

    def __init__(self, read_checkpoint: Callable[[Path], Mapping[str, Any]]) -> None:
        self._read_checkpoint = read_checkpoint

    def recognises(self, source: Path) -> bool:
        return holds_results(source)

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        return self._imported(open_results(source, choices, folder), choices)

    def segment(
        self, source: Path, choices: ImportChoices, inputs: Sequence[Path], mask: Path, folder: Path
    ) -> tuple[str, str]:
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        results = open_results(source, choices, unpacked)
        steps = self._imported(results, choices).card.output.postprocessing
        for path in results.checkpoints[1:]:  # nnU-Net itself would run code of a pickle
            self._read_checkpoint(path)
        labels = [step.labels for step in steps if isinstance(step, KeepLargest)]
        return predict(results, inputs, mask, labels, mirroring=choices.mirroring)

    def _imported(self, results: Results, choices: ImportChoices) -> Imported:
        trained = self._read_checkpoint(results.checkpoints[0])
        started = trained.get("init_args")
        configuration = started.get("configuration") if isinstance(started, Mapping) else None
        plans = Plans.of(results, str(configuration or results.configuration))
        trainer = str(trained.get("trainer_name", "nnUNetTrainer"))
        postprocessing, notes = _postprocessing(results)
        output = describe_output(plans, postprocessing)
        network = describe_network(plans, trainer, output.channels)
        mirrored = trained.get("inference_allowed_mirroring_axes") or () if choices.mirroring else ()
        card = ModelCard(
            choices.name or _name(plans),
            choices.version or _VERSION,
            _description(plans),
            _text(plans.dataset, "licence", "license"),
            "",
            describe_input(plans),
            describe_tiling(plans, divisor(plans, network), mirrored),
            output,
            {
                "framework": "nnunetv2",
                "dataset": str(plans.whole.get("dataset_name", "")),
                "configuration": plans.configuration,
                "trainer": trainer,
                "folds": list(results.folds),
                "files": {name: sha256(results.folder / name) for name in ("plans.json", "dataset.json")},
            },
            citation=_CITATION,
        )
        first, *others = results.checkpoints
        if others:
            network["_members_"] = [f"../{path.parent.name}/{path.name}" for path in others]
        missing = ("intended_use",) if card.licence else ("licence", "intended_use")
        notes = (*notes, *_notes(plans, card))
        return Imported(card, Checkpoint(first, network), missing=missing, notes=notes)


def _postprocessing(results: Results) -> tuple[tuple[KeepLargest, ...], tuple[str, ...]]:
    """Return the postprocessing that nnU-Net determined for the folds, and notes on what was not read."""
    inner = f"crossval_results_folds_{'_'.join(results.folds)}"
    for parts in ((inner,), ()):
        if file_inside(results.folder, *parts, "postprocessing.json").is_file():
            return describe_postprocessing(read_json(results.folder, *parts, "postprocessing.json")), ()
    if any(results.folder.joinpath(*parts, "postprocessing.pkl").is_file() for parts in ((inner,), ())):
        note = "postprocessing.pkl is a pickle and is not read; postprocessing.json, which nnU-Net writes beside it, is"
        return (), (f"{note} absent: the model has no postprocessing",)
    return (), ()


def _notes(plans: Plans, card: ModelCard) -> tuple[str, ...]:
    notes = []
    if card.input.orientation is None:
        notes.append(
            "nnU-Net takes volumes in the axis order of their files, so labels depend on it: "
            "give volumes stored as the training data were"
        )
    if "ignore" in plans.dataset.get("labels", {}):
        notes.append("the label ignore is for training only and left out")
    if region_values(plans) is not None:
        notes.append("labels are regions: where several hold, the last in the list wins")
    return tuple(notes)


def _name(plans: Plans) -> str:
    parts = f"{plans.whole.get('dataset_name', 'nnunet')}-{plans.configuration}".lower()
    return re.sub("[^a-z0-9]+", "-", parts).strip("-") or "nnunet"


def _description(plans: Plans) -> str:
    found = _text(plans.dataset, "description")
    return found or f"nnU-Net {plans.configuration} of {plans.whole.get('dataset_name', 'an unnamed dataset')}"


def _text(values: Mapping[str, Any], *keys: str) -> str:
    return next((" ".join(values[key].split()) for key in keys if isinstance(values.get(key), str)), "")
