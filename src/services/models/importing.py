"""Import a network from another framework's files, and compare a whole run with that framework's own."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError, OutputError, UsageError
from ...domain.geometry.grid import Box
from ...domain.parity import PipelineParity, compare_labels
from ...domain.run import RunOptions
from ...domain.volume_names import PACKED
from ...ports.exporter import Checkpoint
from ...ports.importer import Example, ImportChoices, Imported, ModelImporter
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.runtime import RuntimeOptions
from ...ports.volume_store import ArrayStore
from ..segmentation.predict import predict
from ..segmentation.segment import SegmentPorts
from .export import ExportPorts, ExportResult, export_model
from .loading import LoadedModel
from .probing import checked_model
from .verify import certified, verify_against


@dataclass(frozen=True)
class ImportPorts:
    """Ports of `import_model`: ``load`` puts a model in a runtime for the comparison of whole runs."""

    importers: Sequence[ModelImporter]
    export: ExportPorts
    load: Callable[[Model], LoadedModel]
    segment: SegmentPorts
    new_store: Callable[[], ArrayStore]


@dataclass(frozen=True)
class ImportResult:
    """The imported model, what its source does not state, and the comparison of whole runs if there was one."""

    exported: ExportResult
    missing: tuple[str, ...]
    pipeline: PipelineParity | None = None


def importer_of(source: Path, importers: Sequence[ModelImporter]) -> ModelImporter:
    """Return the importer that recognises a source. Raises ModelError if none does, or there is no such path."""
    if not source.exists():
        raise ModelError(source.name, expected="a folder or a file", got="no such path", do="check the path")
    found = next((importer for importer in importers if importer.recognises(source)), None)
    if found is None:
        names = ", ".join(importer.name for importer in importers)
        do = "name the folder or the zip that the framework wrote, or export the checkpoint with a card of your own"
        raise ModelError(source.name, expected=f"a model of one of {names}", got="something else", do=do)
    return found


def import_model(
    source: Path,
    choices: ImportChoices,
    revise: Callable[[ModelCard], ModelCard],
    check: Sequence[Path],
    destination: Path,
    progress: ProgressListener,
    *,
    ports: ImportPorts,
) -> ImportResult:
    """Read a source, export its network with its card, prove both, and write one file.

    Args:
        source: a folder or file of another framework.
        choices: what to take of it.
        revise: returns the card with the user's changes.
        check: volumes of a case that the framework segments too, for the comparison of whole runs; may be empty.
        destination: the ONNX file to write.

    Raises:
        ModelError: the source cannot be imported, or the file differs from it.
        UsageError: a choice that the source does not have; or ``check`` without the framework.
        OutputError: ``destination`` cannot be written.
    """
    if destination.suffix != ".onnx":
        raise OutputError(str(destination), expected="a name that ends in .onnx", got=destination.name, do="rename it")
    ports.export.artifacts.check(str(destination))
    importer = importer_of(source, ports.importers)
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
        unpacked, draft = Path(folder) / "source", Path(folder) / "model.onnx"
        unpacked.mkdir()
        progress.stage("read")
        found = importer.read(source, choices, unpacked)
        card = revise(found.card)
        done = _exported(found, card, draft, progress, ports.export)
        _check_examples(done.model, found.examples, ports.export)
        card, pipeline = done.model.card, None
        if check:
            pipeline = _compared(importer, source, choices, check, done.model, Path(folder), progress, ports)
            assert card.parity is not None  # as exported
            card = card.with_parity(replace(card.parity, pipeline=(pipeline,)))
        model = ports.export.files.write(draft, card, destination)
    missing = tuple(name for name in found.missing if not getattr(card, name, None))
    return ImportResult(replace(done, model=model, notes=(*found.notes, *done.notes)), missing, pipeline)


def _exported(
    found: Imported, card: ModelCard, draft: Path, progress: ProgressListener, ports: ExportPorts
) -> ExportResult:
    """Export a checkpoint; an ONNX file keeps its graph and is compared with itself, as every runtime gives it."""
    if isinstance(found.network, Checkpoint):
        return export_model(found.network, card, draft, progress, ports=ports)
    model = ports.files.write(found.network, replace(card, parity=None), draft)
    with (
        closing(ports.target(model, RuntimeOptions())) as source,
        closing(ports.target(model, RuntimeOptions())) as got,
    ):
        checked_model(model, source)
        proved = verify_against(model, got, source, progress, openers=ports.openers, bounds=ports.bounds)
        dynamic = None in got.input_shape[2:]
    model = ports.files.write(draft, certified(model, proved, ports.bounds), draft)
    return ExportResult(model, proved, dynamic)


def _check_examples(model: Model, examples: Sequence[Example], ports: ExportPorts) -> None:
    """Raise ModelError if the network does not give what its authors state for an input."""
    if not examples:
        return
    with closing(ports.target(model, RuntimeOptions())) as runtime:
        for example in examples:
            found = example.finish(runtime.infer(example.input))
            off = np.abs(found - example.output) if found.shape == example.output.shape else None
            allowed = example.absolute + example.relative * np.abs(example.output)
            if off is None or float((~(off <= allowed)).mean()) > example.beyond:
                got = f"shape {found.shape}" if off is None else f"values off by up to {float(off.max()):.3g}"
                raise ModelError(
                    example.name,
                    expected=f"the output that its authors state, of shape {example.output.shape}",
                    got=got,
                    do="get the source again: its weights or its test tensors are not those that belong together",
                )


def _compared(
    importer: ModelImporter,
    source: Path,
    choices: ImportChoices,
    check: Sequence[Path],
    model: Model,
    folder: Path,
    progress: ProgressListener,
    ports: ImportPorts,
) -> PipelineParity:
    """Segment a case with the framework and with the model, and compare the labels."""
    progress.stage("compare runs")
    work = folder / "framework"
    work.mkdir()
    mask = work / f"mask{PACKED}"
    framework, version = importer.segment(source, choices, check, mask, work)
    loaded = ports.load(model)
    with ExitStack() as stack:
        stack.enter_context(closing(loaded.runtime))
        names = [str(path) for path in check]
        mine = predict(
            names, loaded, RunOptions(), progress, probabilities=False, ports=ports.segment, new_store=ports.new_store
        ).labels
        theirs = stack.enter_context(ports.segment.volumes.open(str(mask)))
        if theirs.grid.shape != mine.grid.shape:
            raise UsageError(
                "check",
                expected=f"a label map of {framework} on the volume's grid, {mine.grid.shape}",
                got=str(theirs.grid.shape),
                do="check with another volume, as the framework stores it",
            )
        reference = np.rint(theirs.read(Box.whole(theirs.grid.shape))[0]).astype(mine.array.dtype)
    agreement = compare_labels(reference, mine.array, model.card.output.table)
    digest = hashlib.sha256()
    for path in check:
        digest.update(path.read_bytes())
    volume = " + ".join(path.name for path in check)
    return PipelineParity(agreement.label_agreement, agreement.dice, framework, version, volume, digest.hexdigest())
