"""The composition root: which adapter stands behind each port. The only module that imports adapters."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import __version__
from .domain.parity import Bounds
from .services.jobs.admission import Slots
from .services.jobs.run import JobPorts, JobSettings, forget_job, run_job, submit_case
from .services.jobs.slice_preview import job_slice
from .services.jobs.worker import work_on_jobs
from .services.machine import describe, processors
from .services.models.export import ExportPorts, export_model
from .services.models.loading import ModelOpener, Tunings
from .services.models.registry import ServedModels
from .services.models.segmenter import LocalSegmenter
from .services.models.tune import TunePorts, tune
from .services.models.verify import verify
from .services.segmentation.estimate import estimate, estimate_elsewhere
from .services.segmentation.predict import predict
from .services.segmentation.segment import SegmentPorts, segment
from .services.viewing.surfaces import label_surfaces
from .services.viewing.threshold_preview import threshold_preview
from .settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr

    from .client.segmenter import RemoteSegmenter
    from .ports.artifacts import ArtifactWriter
    from .ports.blobs import BlobStore
    from .ports.exporter import Checkpoint, ModelExporter
    from .ports.job_queue import JobQueue
    from .ports.model import Model, ModelFiles
    from .ports.model_repository import ModelRepository
    from .ports.pictures import PictureEncoder
    from .ports.quantiser import Quantiser
    from .ports.runtime import InferenceRuntime, RuntimeOptions
    from .ports.scratch import Scratch
    from .ports.surfaces import SurfaceMaker
    from .ports.tunings import TuningStore
    from .ports.volume_store import ArrayStore, VolumeStore

_WIRING = "dependency_injector.wiring"


def _late_wiring() -> ModuleType:
    """Stands for what wires containers into functions, which imports every web framework that it finds.

    Nothing is wired here, and FastAPI takes as long as all else that a command imports. A program that wires its own
    functions has the real one: when it imports it, and when it calls ``Container.wire``.
    """

    def late(name: str) -> Callable[..., Any]:
        return lambda *given, **named: getattr(import_module(_WIRING), name)(*given, **named)

    module = ModuleType(_WIRING)
    module.__dict__.update(wire=late("wire"), unwire=late("unwire"))
    return module


def _injector() -> tuple[ModuleType, ModuleType]:
    names = ("dependency_injector.containers", "dependency_injector.providers")
    if _WIRING in sys.modules or names[0] in sys.modules:
        return import_module(names[0]), import_module(names[1])
    sys.modules[_WIRING] = _late_wiring()
    try:
        return import_module(names[0]), import_module(names[1])
    finally:
        del sys.modules[_WIRING]


if TYPE_CHECKING:
    from dependency_injector import containers, providers
else:
    containers, providers = _injector()

_BUNDLED = Path(__file__).parent / "bundled"

# Adapters are imported when they are first needed: nibabel, onnx and torch take from tenths of a second to seconds.


def _nifti_store(scratch: Path | None, max_voxels: int) -> VolumeStore:
    from .adapters.volumes.nifti import NiftiStore

    return NiftiStore(scratch=scratch, max_voxels=max_voxels)


def _memory_store() -> ArrayStore:
    from .adapters.volumes.memory import MemoryStore

    return MemoryStore()


def _scratch_files(folder: Path | None) -> Scratch:
    from .adapters.scratch.files import ScratchFiles

    return ScratchFiles(folder)


def _onnx_files() -> ModelFiles:
    from .adapters.models.onnx_files import OnnxModelFiles

    return OnnxModelFiles()


def _folder_models(folder: Path, files: ModelFiles) -> ModelRepository:
    from .adapters.models.folder import ModelDirectory

    return ModelDirectory(folder, files)


def _bentoml() -> ModuleType:
    from .adapters.models.bento import untracked_bentoml

    return untracked_bentoml()


def _bento_models(home: Path | None, files: ModelFiles) -> ModelRepository:
    from .adapters.models.bento import BentoStore

    return BentoStore(files, home)


def _with_bundled(own: ModelRepository, files: ModelFiles) -> ModelRepository:
    from .adapters.models.folder import LayeredModels, ModelDirectory

    return LayeredModels(own, ModelDirectory(_BUNDLED, files))


def _local_files() -> ArtifactWriter:
    from .adapters.artifacts.local import LocalFiles

    return LocalFiles()


def _png_pictures() -> PictureEncoder:
    from .adapters.pictures.png import PngPictures

    return PngPictures()


def _gltf_surfaces() -> SurfaceMaker:
    from .adapters.surfaces.gltf import GltfSurfaces

    return GltfSurfaces()


def _open_onnx(
    settings: dict[str, Any], threads: int | None, model: Model, options: RuntimeOptions
) -> InferenceRuntime:
    from .adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime

    chosen = OnnxRuntimeSettings(**settings, threads=threads or processors())
    return open_onnx_runtime(model, options, chosen)


def _open_openvino(
    settings: dict[str, Any], threads: int | None, model: Model, options: RuntimeOptions
) -> InferenceRuntime:
    from .adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime

    chosen = OpenvinoSettings(**settings, threads=threads or processors())
    return open_openvino_runtime(model, options, chosen)


def _open_torch(device: str, threads: int | None, model: Model, options: RuntimeOptions) -> InferenceRuntime:
    from .adapters.runtimes.torch import open_torch_runtime

    return open_torch_runtime(model, options, device=device, threads=threads)


def _tuning_directory(folder: Path) -> TuningStore:
    from .adapters.tunings.folder import TuningDirectory

    return TuningDirectory(folder)


def _onnx_quantiser() -> Quantiser:
    from .adapters.quantisers.onnx import OnnxQuantiser

    return OnnxQuantiser()


def _calibration(models: ModelRepository, sample: str, model: Model) -> list[str]:
    """The bundled sample for the bundled model, which it is of the kind of; nothing for others."""
    bundled = {known.weights_sha256 for known in models.list().models if known.path.parent == _BUNDLED}
    return [sample] if model.weights_sha256 in bundled else []


def _torch_exporter() -> ModelExporter:
    from .adapters.exporters.torch import TorchExporter
    from .adapters.runtimes.torch import load_network

    return TorchExporter(load_network)


def _read_bundle(folder: Path) -> Checkpoint:
    from .adapters.exporters.torch import checkpoint_from_bundle

    return checkpoint_from_bundle(folder)


def _job_queue(
    database: str, length: int, strikes: int, lease_seconds: float, backoff_seconds: float, *, create: bool = True
) -> JobQueue:
    from .adapters.jobs.dbos import DbosJobQueue
    from .ports.job_queue import QueueLimits

    return DbosJobQueue(database, QueueLimits(length, strikes, lease_seconds, backoff_seconds), create=create)


def _blobs(url: str) -> BlobStore:
    from .adapters.blobs.fsspec import FsspecBlobs

    return FsspecBlobs(url)


def _remote_segmenter(
    api_key: SecretStr | None, volumes: VolumeStore, url: str, *, as_jobs: bool = True
) -> RemoteSegmenter:
    from .client.segmenter import RemoteSegmenter

    key = None if api_key is None else api_key.get_secret_value()
    return RemoteSegmenter(url, partial(estimate_elsewhere, volumes=volumes), api_key=key, as_jobs=as_jobs)


class Container(containers.DeclarativeContainer):
    """Everything wired. Override a provider to bring an adapter of your own."""

    config = providers.Configuration(strict=True)

    volumes = providers.Singleton(_nifti_store, config.scratch_dir, config.max_voxels)
    artifacts = providers.Singleton(_local_files)
    pictures = providers.Singleton(_png_pictures)
    scratch = providers.Singleton(_scratch_files, config.scratch_dir)
    model_files = providers.Singleton(_onnx_files)
    own_models = providers.Selector(
        config.store,
        folder=providers.Singleton(_folder_models, config.models_dir, model_files),
        bento=providers.Singleton(_bento_models, config.bentoml_home, model_files),
    )
    models = providers.Singleton(_with_bundled, own_models, model_files)
    sample = providers.Callable(str, _BUNDLED / "sample.nii.gz")
    bentoml = providers.Callable(_bentoml)
    read_bundle = providers.Callable(_read_bundle)
    exporter = providers.Singleton(_torch_exporter)
    bounds = providers.Singleton(Bounds, config.bounds.label_agreement, config.bounds.dice)
    runtimes = providers.Dict(
        onnx=providers.Factory(partial, _open_onnx, config.onnx, config.threads),
        openvino=providers.Factory(partial, _open_openvino, config.openvino, config.threads),
        torch=providers.Factory(partial, _open_torch, config.torch.device, config.threads),
    )

    tuning_store = providers.Singleton(_tuning_directory, config.tunings_dir)
    quantiser = providers.Singleton(_onnx_quantiser)
    tunings = providers.Singleton(Tunings, tuning_store, providers.Callable(describe, config.threads), bounds)

    open_model = providers.Factory(ModelOpener, model_files, models, runtimes, config.model, tunings)
    segment_ports = providers.Factory(SegmentPorts, volumes, artifacts, pictures, scratch)
    segment = providers.Factory(partial, segment, ports=segment_ports)
    predict = providers.Factory(partial, predict, ports=segment_ports, new_store=providers.Object(_memory_store))
    surfaces = providers.Singleton(_gltf_surfaces)
    label_surfaces = providers.Factory(partial, label_surfaces, surfaces=surfaces)
    threshold_preview = providers.Factory(partial, threshold_preview, volumes=volumes, artifacts=artifacts)
    slots = providers.Singleton(Slots, config.serving.slots, config.serving.queue)
    served_models = providers.Singleton(
        ServedModels, open_model, models, config.model, config.serving.look_for_models_seconds
    )
    segmenter = providers.Factory(
        LocalSegmenter, served_models, slots, segment_ports, __version__, config.serving.memory_bytes
    )
    # called with the server's URL
    remote_segmenter = providers.Factory(_remote_segmenter, config.api_key, volumes)
    job_queue = providers.Singleton(
        _job_queue,
        config.jobs.database,
        config.jobs.length,
        config.jobs.strikes,
        config.jobs.lease_seconds,
        config.jobs.backoff_seconds,
    )
    # for who looks at jobs where there are any, and makes no place for them
    known_job_queue = providers.Singleton(_job_queue, *job_queue.args, create=False)
    blobs = providers.Singleton(_blobs, config.jobs.blobs)
    job_ports = providers.Singleton(JobPorts, job_queue, blobs)
    job_settings = providers.Singleton(
        JobSettings,
        __version__,
        config.scratch_dir,
        config.serving.memory_bytes,
        providers.Callable(max, config.jobs.concurrency, config.serving.slots),
        config.jobs.keep_every_seconds,
        config.jobs.retention_seconds,
        config.jobs.sweep_every_seconds,
    )
    submit_case = providers.Factory(partial, submit_case, ports=job_ports)
    forget_job = providers.Factory(partial, forget_job, ports=job_ports)
    run_job = providers.Factory(
        partial, run_job, take=served_models.provided.take, ports=segment_ports, blobs=blobs, settings=job_settings
    )
    job_slice = providers.Factory(partial, job_slice, blobs=blobs, ports=segment_ports, scratch=config.scratch_dir)
    work_on_jobs = providers.Factory(partial, work_on_jobs, ports=job_ports, settings=job_settings)
    calibration = providers.Callable(_calibration, models, sample)
    tune = providers.Factory(
        partial,
        tune,
        ports=providers.Factory(
            TunePorts, runtimes, segment_ports, providers.Object(_memory_store), tunings, quantiser
        ),
    )
    estimate = providers.Factory(partial, estimate, volumes=volumes, scratch=scratch)
    export = providers.Factory(
        partial,
        export_model,
        ports=providers.Factory(
            ExportPorts,
            exporter,
            model_files,
            artifacts,
            runtimes.provided["torch"],
            runtimes.provided["onnx"],
            runtimes,
            bounds,
        ),
    )
    verify = providers.Factory(
        partial,
        verify,
        open_source=runtimes.provided["torch"],
        files=model_files,
        openers=runtimes,
        bounds=bounds,
    )


def wired(**given: Any) -> Container:
    """A container with the settings given, else those of this environment. Raises UsageError for a wrong setting."""
    container = Container()
    container.config.from_pydantic(load_settings(**{name: value for name, value in given.items() if value is not None}))
    return container
