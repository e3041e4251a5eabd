"""`Application`: a typed method for each use case."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Generic, TypeVar

from . import __version__
from .container import BUNDLED, Container
from .contract.card import revise_card
from .contract.job import job_mapping
from .contract.report import check_report
from .domain.calibration import Calibration
from .domain.cards.model_card import ModelCard
from .domain.dicom_series import SeriesRule
from .domain.errors import OutputError, VoxportError
from .domain.job import Job
from .domain.labels.label_file import check_label_file_name, label_file_bytes
from .domain.labels.label_map import LabelTable
from .domain.reading import Reading
from .domain.run import Outputs, RunOptions
from .domain.tuning import Tradeoff, Tuning
from .domain.viewing.pages import ComparedCase, ComparisonPage
from .domain.viewing.slicing import Plane
from .domain.volume import Volume
from .domain.volume_names import USUAL_FORMAT, MaskFormat
from .ports.exporter import Checkpoint
from .ports.importer import ImportChoices, Imported
from .ports.job_queue import Attempt, Handler, Results
from .ports.model import Model
from .ports.model_repository import Listing
from .ports.progress import ProgressListener
from .ports.segmenter import Segmenter
from .ports.signatures import SigningKey
from .services.assurance.signing import check_signature, sign_model
from .services.cluster.plan import BlockPlan, plan_blocks
from .services.cluster.tasks import WorkerPorts
from .services.comparison.calibrate import calibrate
from .services.comparison.compare import Comparison, compare, paired
from .services.comparison.ranking import RankedModel, rank_models
from .services.dicom.node import DicomNode, NodeTimes
from .services.jobs.callbacks import Callbacks
from .services.jobs.run import run_job
from .services.jobs.slice_preview import job_slice
from .services.jobs.submit import forget_job, submit_case
from .services.jobs.worker import work_on_jobs
from .services.measurement.tubular import TubeReport, check_tube_folder, measure_tubes, write_tubes
from .services.models.export import ExportResult, export_model
from .services.models.frontier import labelled_cases, measure_tradeoffs
from .services.models.importing import ImportResult, import_model, importer_of
from .services.models.loading import AUTO, LoadedModel, ModelOpener
from .services.models.segmenter import LoadedSegmenter
from .services.models.tune import tune
from .services.models.verify import Verification, verify
from .services.pages.cases import case_page, stored_figures
from .services.pages.differences import DIFFERENCES, draw_differences
from .services.pages.folder import PagesMade, write_pages
from .services.segmentation.convert import Conversion, convert
from .services.segmentation.estimate import Estimate, estimate
from .services.segmentation.outputs import check_outputs
from .services.segmentation.predict import Prediction, predict
from .services.segmentation.segment import Segmentation, segment
from .services.viewing.surfaces import label_surfaces
from .services.viewing.threshold_preview import threshold_preview
from .services.viewing.training import DATASET, TrainingFolder
from .services.viewing.volume_viewer import LabelSource
from .settings import Settings, load_settings

T = TypeVar("T")


class _Part(Generic[T]):
    """An attribute of an application: a part that its container makes on first use."""

    def __init__(self, part: Callable[[Container], T]) -> None:
        self._part = part

    def __get__(self, application: Application, _: type[Application]) -> T:
        return self._part(application.container)


class Application:
    """The use cases of voxport. Safe for several threads.

    A program that brings its own adapters overrides providers of ``container`` before the first use.

    Args:
        settings: complete settings; see ``build``.

    Attributes:
        settings: as given.
        container: the providers of the adapters behind the ports.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.container = Container()
        self.container.config.from_pydantic(settings)
        self.container.config.from_dict({"version": __version__, "open_worker": open_worker})

    @classmethod
    def build(cls, **settings: Any) -> Application:
        """Build an application from the settings given, and from the environment for those not given or None.

        Raises:
            UsageError: names every setting that is unknown or wrong.
        """
        return cls(load_settings(**{name: value for name, value in settings.items() if value is not None}))

    # Parts

    volumes = _Part(lambda container: container.volumes())
    """The store of volumes."""
    artifacts = _Part(lambda container: container.artifacts())
    """The writer of statistics, reports and pictures."""
    pictures = _Part(lambda container: container.pictures())
    """The encoder of pictures."""
    resources = _Part(lambda container: container.resources())
    """The processors and the memory of this machine."""
    locks = _Part(lambda container: container.locks())
    """Locks between processes."""
    work_folders = _Part(lambda container: container.work_folders())
    """Folders for the files of a run."""
    sample = _Part(lambda container: container.sample())
    """The bundled sample volume."""
    bounds = _Part(lambda container: container.bounds())
    """The bounds that labels below fp32 must keep to."""

    # Models

    def find_model(self, reference: str | None = None, card: Path | None = None) -> Model:
        """Find a model by file or name; the model of the settings for None.

        Raises:
            ModelError, UsageError
        """
        return self._opener.find(reference, card)

    def load_model(
        self, model: Model, *, runtime: str = AUTO, precision: str = AUTO, threads: int | None = None
    ) -> LoadedModel:
        """Load a model into a runtime.

        Raises:
            ModelError: the runtime cannot load the file.
            UsageError: no such runtime or precision on this machine.
        """
        return self._opener.load(model, runtime, precision, threads)

    def tuning_hint(self) -> str | None:
        """Return a line that recommends tuning if the default model has no tuning for this machine, else None."""
        try:
            model = self.find_model()
        except VoxportError:
            return None  # whoever loads it says more
        if model.format != "onnx" or self.container.tunings().find(model).tuning is not None:
            return None
        return (
            f"{model.card.reference} is not tuned for this machine; voxport tune {model.card.name} may make it faster"
        )

    def list_models(self) -> Listing:
        """List the models that can be named."""
        return self.container.models().list()

    def add_model(self, file: Path, card: Path | None = None) -> Model:
        """Keep a copy of a model file, with its card embedded.

        Raises:
            ModelError: the network does not take the card's input or does not give its output.
        """
        model = self.container.model_files().read(file, card)
        self._opener.check(model)
        return self.container.models().put(model)

    def remove_model(self, name: str) -> None:
        """Delete a model from the store of models."""
        self.container.models().remove(name)

    def read_card(self, file: Path) -> ModelCard:
        """Read a model card from a YAML file."""
        return self.container.model_files().read_card(file)

    def read_bundle(self, folder: Path) -> Checkpoint:
        """Find the checkpoint and the network of a MONAI bundle."""
        return self.container.read_bundle(folder)

    def export(
        self, checkpoint: Checkpoint, card: ModelCard, destination: Path, progress: ProgressListener
    ) -> ExportResult:
        """Export a checkpoint to a certified ONNX file; see ``export_model``."""
        return export_model(checkpoint, card, destination, progress, ports=self.container.export_ports())

    def inspect_source(self, source: Path, choices: ImportChoices) -> tuple[str, Imported]:
        """Read a network of another framework without importing it; return the framework and what its files say.

        Raises:
            ModelError, UsageError
        """
        importer = importer_of(source, self.container.importers())
        with TemporaryDirectory(prefix="voxport-") as folder:
            return importer.name, importer.read(source, choices, Path(folder))

    def revise_card(self, card: ModelCard, changes: Mapping[str, Any]) -> ModelCard:
        """Return a card with other values of some fields, by dotted name. Raises ModelError for wrong ones."""
        return revise_card(card, changes)

    def recognises(self, source: Path) -> bool:
        """Return whether a path holds a network of another framework."""
        return any(importer.recognises(source) for importer in self.container.importers())

    def import_model(
        self,
        source: Path,
        destination: Path,
        progress: ProgressListener,
        *,
        choices: ImportChoices | None = None,
        card: ModelCard | None = None,
        changes: Mapping[str, Any] | None = None,
        check: Sequence[Path] = (),
    ) -> ImportResult:
        """Import a network of another framework as one certified ONNX file; see ``import_model``.

        Args:
            source: a folder or file of the framework.
            destination: the ONNX file to write.
            progress: called as the import goes on.
            choices: what to take of the source.
            card: the card to use in place of the source's.
            changes: fields of the card by dotted name, with their values.
            check: volumes of a case for the comparison with the framework's own run.
        """

        def revise(read: ModelCard) -> ModelCard:
            return self.revise_card(card or read, changes or {})

        ports, choices = self.container.import_ports(), replace(choices or ImportChoices(), card=card)
        return import_model(source, choices, revise, check, destination, progress, ports=ports)

    def package_model(self, model: Model, destination: Path) -> tuple[str, ...]:
        """Write a model as a bioimage.io package; return what the package cannot say of its card.

        Raises:
            ModelError, OutputError
        """
        loaded = self.load_model(model, runtime="onnx", precision="fp32")
        with closing(loaded.runtime):
            return self.container.packager().package(loaded.model, loaded.runtime, destination)

    def sign_model(self, model: Model, key: SigningKey) -> Path:
        """Sign a model file with its card; return the signature's path; see ``sign_model``."""
        return sign_model(model, key, self.container.signatures())

    def check_signature(self, model: Model, trusted: Path) -> None:
        """Check the signature of a model; see ``check_signature``."""
        check_signature(model, trusted, self.container.signatures())

    def model_bom(self, model: Model) -> bytes:
        """The bill of materials of a model file, from its card; see ``BomWriter``."""
        return self.container.boms().model_bom(model)

    def installation_bom(self) -> bytes:
        """The bill of materials of what this process runs in; see ``BomWriter``."""
        return self.container.boms().installation_bom()

    def verify(self, loaded: LoadedModel, checkpoint: Path | None, progress: ProgressListener) -> Verification:
        """Compare a model with its checkpoint, or with its certificate for None; see ``verify``."""
        openers = self.container.runtimes()
        return verify(
            loaded,
            checkpoint,
            progress,
            open_source=openers["torch"],
            files=self.container.model_files(),
            openers=openers,
            bounds=self.bounds,
        )

    def tune(
        self, model: Model, volumes: Sequence[str], progress: ProgressListener, options: RunOptions | None = None
    ) -> Tuning:
        """Measure runtimes, precisions and tiles on this machine, and keep the fastest that holds; see ``tune``.

        Without volumes, the bundled model is measured on the bundled sample, and any other on noise. Of ``options``
        those that state how the volumes are read count.
        """
        ports, stated = self.container.tune_ports(), options or RunOptions()
        return tune(model, volumes or self._calibration(model), progress, stated, ports=ports)

    def measure_tradeoffs(
        self, model: Model, folders: Sequence[Path], progress: ProgressListener, options: RunOptions | None = None
    ) -> tuple[Tradeoff, ...]:
        """Measure time and Dice against truth at each overlap and precision; see ``measure_tradeoffs``."""
        cases = labelled_cases(folders, model.card, self.volumes)
        return measure_tradeoffs(model, cases, progress, options or RunOptions(), ports=self.container.tune_ports())

    def calibrate(
        self,
        loaded: LoadedModel,
        folders: Sequence[Path],
        progress: ProgressListener,
        options: RunOptions | None = None,
        *,
        destination: Path | None = None,
    ) -> Calibration:
        """Fit the temperature of a model's probabilities; write a copy of the model with it. See ``calibrate``."""
        model = loaded.model
        if destination is not None:
            if destination.suffix != ".onnx":
                got, expected = destination.name, "a name that ends in .onnx"
                raise OutputError(str(destination), expected=expected, got=got, do="rename it")
            self.artifacts.check(str(destination))
        cases = labelled_cases(folders, model.card, self.volumes)
        ports, new_store = self.container.segment_ports(), self.container.memory_store
        found = calibrate(loaded, cases, progress, options or RunOptions(), ports=ports, new_store=new_store)
        if destination is not None:
            output = replace(model.card.output, temperature=round(found.temperature, 4))
            self.container.model_files().write(model.path, replace(model.card, output=output), destination)
        return found

    # Cases

    def segment(
        self,
        inputs: Sequence[str],
        loaded: LoadedModel,
        outputs: Outputs,
        options: RunOptions,
        progress: ProgressListener,
    ) -> Segmentation:
        """Segment a case and write its mask; see ``segment``."""
        return segment(inputs, loaded, outputs, options, progress, ports=self.container.case_ports())

    def predict_case(
        self,
        case: Sequence[str | Volume],
        loaded: LoadedModel,
        options: RunOptions,
        progress: ProgressListener,
        *,
        probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Prediction:
        """Segment stored volumes and volumes in memory; the results stay in memory; see ``predict``."""
        return predict(
            case,
            loaded,
            options,
            progress,
            probabilities=probabilities,
            uncertainty=uncertainty,
            ports=self.container.segment_ports(),
            new_store=self.container.memory_store,
        )

    def plan_blocks(
        self, inputs: Sequence[str], loaded: LoadedModel, options: RunOptions, progress: ProgressListener
    ) -> BlockPlan | None:
        """Plan a run on the cluster of the settings, None without one; see ``plan_blocks``."""
        ports = self.container.case_ports()
        if ports.cluster is None:
            return None
        more: dict[str, Any] = {"volumes": ports.volumes, "resources": ports.resources, "cluster": ports.cluster}
        return plan_blocks(inputs, loaded, options, progress, probabilities=False, **more)

    def format_of(self, reference: str) -> str:
        """Return the name of the format of a stored volume; empty for an unknown one."""
        return self.container.format_of(reference)

    def image_volume(self, image: object) -> Volume:
        """Make a volume of a nibabel image. Raises InputError unless it is a NIfTI image that can be segmented."""
        return self.container.image_volume(image)

    @contextmanager
    def loaded_segmenter(
        self,
        model: str | None,
        *,
        card: Path | None = None,
        runtime: str = AUTO,
        precision: str = AUTO,
        threads: int | None = None,
    ) -> Iterator[LoadedSegmenter]:
        """Load a model to segment with in this process; it is released at the end. See ``load_model`` for errors."""
        found = self.find_model(model, card)
        loaded = self.load_model(found, runtime=runtime, precision=precision, threads=threads)
        with closing(loaded.runtime):
            named, file = model or found.card.reference, None if card is None else str(card)
            yield LoadedSegmenter(loaded, self.container.case_ports(), __version__, named, file, threads)

    def check_outputs(self, inputs: Sequence[str], outputs: Outputs, *, kept: Sequence[Path] = ()) -> None:
        """Check that results can be written under these names; see ``check_outputs``."""
        check_outputs(inputs, outputs, volumes=self.volumes, artifacts=self.artifacts, kept=kept)

    def write_report(self, outputs: Outputs, report: Mapping[str, Any]) -> None:
        """Write the report of a run, if ``outputs`` names one."""
        if outputs.report is not None:
            self.artifacts.write(outputs.report, (json.dumps(report, indent=2) + "\n").encode())

    def write_case_page(
        self, inputs: Sequence[str], outputs: Outputs, report: Mapping[str, Any], reading: Reading
    ) -> None:
        """Write the page on a case from stored volumes and mask, if ``outputs`` names one; see ``stored_figures``."""
        if outputs.html is not None:
            ports, card = self.container.page_ports(), check_report(report, outputs.html)
            figures, _, mask = stored_figures(inputs, outputs.mask, reading, card, ports.volumes, ports.pictures)
            page = case_page(self.volumes.names.stem(Path(outputs.mask).name), report, mask, figures)
            self.artifacts.write(outputs.html, ports.pages.case(page))

    def write_pages(
        self, folder: Path, progress: ProgressListener, *, volumes: Path | None = None, without: Collection[str] = ()
    ) -> PagesMade:
        """Write pages on all cases of a folder of results; see ``write_pages``."""
        ports = self.container.page_ports()
        return write_pages(folder, progress, ports=ports, check=check_report, volumes=volumes, without=without)

    def check_label_table(self, reference: str) -> None:
        """Check that a label table can be written under this name. Raises UsageError, OutputError."""
        check_label_file_name(reference)
        self.artifacts.check(reference)

    def write_label_table(self, reference: str, card: ModelCard) -> None:
        """Write the labels of a model in the format of a name: BIDS or ITK-SNAP. Raises UsageError, OutputError."""
        self.artifacts.write(reference, label_file_bytes(reference, card.output.table))

    def estimate(
        self,
        inputs: Sequence[str],
        loaded: LoadedModel,
        options: RunOptions,
        progress: ProgressListener,
        *,
        seconds_per_voxel: float | None = None,
        mask: str | None = None,
    ) -> Estimate:
        """Estimate tiles, memory and time of a run; see ``estimate``."""
        ports = self.container.segment_ports()
        return estimate(
            inputs,
            loaded,
            options,
            progress,
            volumes=ports.volumes,
            resources=ports.resources,
            scratch=ports.scratch,
            seconds_per_voxel=seconds_per_voxel,
            mask=mask,
        )

    def convert(self, reference: str, destination: str, reading: Reading, progress: ProgressListener) -> Conversion:
        """Copy a volume into the format of another name; see ``convert``."""
        return convert(reference, destination, reading, progress, volumes=self.volumes, artifacts=self.artifacts)

    def compare(
        self,
        mask: str,
        truth: str,
        progress: ProgressListener,
        *,
        tolerance: float | None = None,
        resample: bool = False,
        as_one: bool = False,
        labels: LabelTable | None = None,
        drawn_cases: int = 0,
        image: str | None = None,
    ) -> Comparison:
        """Compare a label map with the true one; see ``compare``. ``labels`` gives them names.

        What differs is drawn for a page on ``drawn_cases``, over an image; see ``draw_differences``.
        """
        volumes, pictures = self.volumes, self.pictures
        return compare(
            mask,
            truth,
            progress,
            ports=self.container.compare_ports(),
            tolerance=tolerance,
            resample=resample,
            as_one=as_one,
            names=[] if labels is None else [(label.value, label.name) for label in labels.labels],
            draw=partial(draw_differences, image=image, cases=drawn_cases, volumes=volumes, pictures=pictures)
            if drawn_cases
            else None,
        )

    def write_comparison_page(self, reference: str, found: Mapping[str, Comparison]) -> None:
        """Write the page on comparisons, by the names of their cases. Raises OutputError."""
        cases = (ComparedCase(name, c.labels, c.unit, c.tolerance, c.slices, c.notes) for name, c in found.items())
        self.artifacts.write(reference, self.container.pages().comparison(ComparisonPage(tuple(cases), DIFFERENCES)))

    def rank_models(
        self, models: Sequence[Model], folders: Sequence[Path], progress: ProgressListener, options: RunOptions
    ) -> tuple[RankedModel, ...]:
        """Segment labelled cases with each model, the best first; see ``rank_models``."""
        return rank_models(models, folders, progress, options, ports=self.container.rank_ports())

    def measure_tubes(
        self,
        mask: str,
        folder: Path,
        progress: ProgressListener,
        *,
        names: Sequence[tuple[int, str]] = (),
        reading: Reading | None = None,
    ) -> TubeReport:
        """Measure the tubes of a mask, and write tables and centre lines into a folder; see ``measure_tubes``.

        ``names`` are those of the labels, by value.
        """
        check_tube_folder(folder)
        report = measure_tubes(mask, progress, ports=self.container.tube_ports(), names=names, reading=reading)
        write_tubes(report, folder, self.artifacts)
        return report

    def pairs_to_compare(self, masks: Path, truths: Path) -> tuple[tuple[str, str, str], ...]:
        """Return name, mask and truth of two files, or of the volumes in two folders; see ``paired``."""
        return paired(masks, truths, self.volumes)

    def threshold_preview(
        self, inputs: Sequence[str], outputs: Outputs, progress: ProgressListener, reading: Reading | None = None
    ) -> dict[str, Any]:
        """Segment a case by Otsu's threshold, without a model; see ``threshold_preview``."""
        volumes, artifacts = self.volumes, self.artifacts
        return threshold_preview(inputs, outputs, progress, volumes=volumes, artifacts=artifacts, reading=reading)

    def label_surfaces(self, mask: LabelSource, table: LabelTable) -> bytes:
        """The surfaces of a mask's labels as binary glTF; see ``label_surfaces``."""
        return label_surfaces(mask, table, surfaces=self.container.surfaces())

    def training_folder(self, folder: Path) -> TrainingFolder:
        """The folder that corrected cases are kept in, for training; made where it is missing.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.cannot_write(str(folder), error) from None
        self.artifacts.check(str(folder / DATASET))
        return TrainingFolder(folder, self.volumes, self.artifacts, self.locks)

    # Models that stay loaded, and jobs

    bentoml = _Part(lambda container: container.bentoml())
    """The ``bentoml`` module, with its telemetry off."""
    served_models = _Part(lambda container: container.served_models())
    """The models that this process keeps loaded."""
    tensor_models = _Part(lambda container: container.tensor_models())
    """ONNX models of any kind in BentoML's store: save, get, load and run them."""
    slots = _Part(lambda container: container.slots())
    """The slots that bound how many cases run at once in this process."""
    segmenter = _Part(lambda container: container.segmenter())
    """A segmenter with the served models, in this process's slots."""

    def remote_segmenter(self, url: str, *, as_jobs: bool = True) -> Segmenter:
        """Return a segmenter on a voxport service, with the key of the settings."""
        return self.container.remote_segmenter(url, as_jobs=as_jobs)

    job_ports = _Part(lambda container: container.job_ports())
    """The job queue and the stored files; made on first use."""
    job_queue = _Part(lambda container: container.job_queue())
    """The job queue of the settings; made on first use."""
    known_job_queue = _Part(lambda container: container.known_job_queue())
    """The job queue of the settings, which must exist already."""
    blobs = _Part(lambda container: container.blobs())
    """The stored files of jobs."""

    @property
    def private_path(self) -> str:
        """The folder of models, as messages contain it, which callers of a service must not see."""
        return f"{Path(self.settings.models_dir).expanduser()}/"

    def public(self, text: str) -> str:
        """The text without the folder of models."""
        return text.replace(self.private_path, "")

    @cached_property
    def callbacks(self) -> Callbacks:
        """Calls the URLs of jobs that have ended."""
        kept = self.settings.jobs.retention_seconds

        def describe(job: Job) -> Mapping[str, Any]:
            return job_mapping(job, None, retention_seconds=kept, public=self.public)

        return Callbacks(self.job_ports, self.container.webhooks(), describe)

    def submit_case(
        self,
        volumes: Sequence[tuple[str, Path]],
        model: str,
        options: RunOptions,
        outputs: Sequence[str],
        owner: str,
        *,
        key: str | None = None,
        model_sha256: str = "",
        estimate_seconds: float | None = None,
        folder: str | None = None,
        hashes: Sequence[str] = (),
        mask_format: MaskFormat = USUAL_FORMAT,
    ) -> Job:
        """Store a case's volumes and queue it as a job; see ``submit_case``."""
        return submit_case(
            volumes,
            model,
            options,
            outputs,
            owner,
            ports=self.job_ports,
            key=key,
            model_sha256=model_sha256,
            estimate_seconds=estimate_seconds,
            folder=folder,
            hashes=hashes,
            mask_format=mask_format,
        )

    def dicom_node(self) -> DicomNode:
        """Return the DICOM node of the settings. Raises ModelError for a rule whose model cannot be found."""
        settings = self.settings.dicom
        rules = [SeriesRule(**rule.model_dump()) for rule in settings.rules]
        for rule in rules:
            self.find_model(rule.model)
        times = NodeTimes(settings.quiet_seconds, settings.keep_seconds, self.settings.jobs.retention_seconds)
        peers = self.container.dicom_peers()
        return DicomNode(rules, peers, times, self.job_ports, self.work_folders, self.find_model)

    def forget_job(self, id: str, owner: str | None) -> None:
        """Delete an ended job and its files; see ``forget_job``."""
        forget_job(id, owner, ports=self.job_ports)

    def run_job(self, attempt: Attempt, take: Callable[[str], LoadedModel] | None = None) -> Results:
        """Run one attempt of a job, with the served models unless ``take`` gives another; see ``run_job``."""
        return run_job(
            attempt,
            take=take or self.served_models.take,
            ports=self.container.case_ports(),
            blobs=self.blobs,
            settings=self.container.job_settings(),
            folders=self.work_folders,
        )

    def work_on_jobs(self, concurrency: int, stop: Event, handler: Handler | None = None) -> None:
        """Run jobs until ``stop`` is set, with ``run_job`` unless ``handler`` is given; see ``work_on_jobs``."""
        work_on_jobs(
            concurrency,
            stop,
            handler=handler or self.run_job,
            ports=self.job_ports,
            settings=self.container.job_settings(),
            folders=self.work_folders,
            callbacks=self.callbacks if self.settings.jobs.callback_origins else None,
        )

    def job_slice(self, job: Job, plane: Plane, index: int | None, progress: ProgressListener) -> bytes:
        """A PNG of one slice of a finished job; see ``job_slice``."""
        ports = self.container.segment_ports()
        return job_slice(job, plane, index, progress, blobs=self.blobs, ports=ports, folders=self.work_folders)

    @cached_property
    def _opener(self) -> ModelOpener:
        return self.container.open_model()

    def _calibration(self, model: Model) -> list[str]:
        """The bundled sample for the bundled model; no volume for another."""
        bundled = {known.weights_sha256 for known in self.list_models().models if known.path.parent == BUNDLED}
        return [self.sample] if model.weights_sha256 in bundled else []


def open_worker() -> WorkerPorts:
    """Return the ports of a worker of a cluster, from the settings of its own machine."""
    return Application(load_settings()).container.worker_ports()
