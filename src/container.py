"""The composition root: binds an adapter to each port, behind ``Application``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .domain.parity import Bounds
from .domain.volume import Volume
from .domain.volume_names import PACKED
from .injector import containers, providers
from .ports.artifacts import ArtifactWriter
from .ports.blobs import BlobStore
from .ports.block_scheduler import BlockScheduler
from .ports.block_volumes import BlockVolumes
from .ports.boms import BomWriter
from .ports.dicom_peer import DicomPeer
from .ports.exporter import Checkpoint, ModelExporter
from .ports.folders import WorkFolders
from .ports.importer import ModelImporter
from .ports.job_queue import JobQueue, QueueLimits
from .ports.locks import Locks
from .ports.model import Model, ModelFiles
from .ports.model_repository import ModelRepository
from .ports.packager import Packager
from .ports.pages import PageWriter
from .ports.pictures import PictureEncoder
from .ports.quantiser import Quantiser
from .ports.resources import Resources
from .ports.runtime import InferenceRuntime, RuntimeOptions
from .ports.scratch import Scratch
from .ports.segmenter import Segmenter
from .ports.signatures import Signatures
from .ports.skeletons import Skeletoniser
from .ports.surfaces import SurfaceMaker
from .ports.tensor_models import TensorModelStore
from .ports.tensors import SessionOptions, TensorSession
from .ports.tracers import LineTracer
from .ports.tunings import TuningStore
from .ports.volume_store import ArrayStore, VolumeStore
from .ports.webhooks import WebhookSender
from .services.assurance.signing import Trust
from .services.cluster.run import ClusterPorts
from .services.cluster.tasks import WorkerPorts
from .services.comparison.compare import ComparePorts
from .services.comparison.ranking import RankPorts
from .services.jobs.admission import Slots
from .services.jobs.run import JobSettings
from .services.jobs.submit import JobPorts
from .services.measurement.tubular import TubePorts
from .services.models.export import ExportPorts
from .services.models.importing import ImportPorts
from .services.models.loading import ModelOpener, Tunings
from .services.models.registry import ServedModels
from .services.models.segmenter import LocalSegmenter
from .services.models.tune import TunePorts
from .services.pages.folder import PagePorts
from .services.segmentation.estimate import estimate_elsewhere
from .services.segmentation.segment import SegmentPorts
from .services.tensors.models import Provider, TensorModels

if TYPE_CHECKING:
    from pydantic import SecretStr

BUNDLED = Path(__file__).parent / "bundled"


def _late(module: str, name: str) -> Callable[..., Any]:
    """Return an adapter's class or function, imported at its first call: nibabel, onnx and torch take up to seconds."""

    def call(*given: Any, **named: Any) -> Any:
        return getattr(import_module(f".adapters.{module}", __package__), name)(*given, **named)

    return call


def _threads(stated: int | None, resources: Resources) -> int:
    return stated or resources.processors()


def _open_onnx(settings: Mapping[str, Any], threads: int, model: Model, options: RuntimeOptions) -> InferenceRuntime:
    from .adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime

    return open_onnx_runtime(model, options, OnnxRuntimeSettings(**settings, threads=threads))


def _open_openvino(
    settings: Mapping[str, Any], threads: int, model: Model, options: RuntimeOptions
) -> InferenceRuntime:
    from .adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime

    return open_openvino_runtime(model, options, OpenvinoSettings(**settings, threads=threads))


def _open_session(
    settings: Mapping[str, Any], threads: int, path: Path, given: Sequence[Provider] | None = None
) -> TensorSession:
    from .adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_session

    pairs = [(p, {}) if isinstance(p, str) else p for p in given or ()]
    texts = {name: {option: str(value) for option, value in chosen.items()} for name, chosen in pairs}
    own = {"providers": [name for name, _ in pairs], "provider_options": texts}
    chosen = OnnxRuntimeSettings(**{**settings, **(own if given else {})}, threads=threads)
    return open_onnx_session(path, SessionOptions(), chosen)


def _remote_segmenter(
    api_key: SecretStr | None, volumes: VolumeStore, resources: Resources, url: str, *, as_jobs: bool = True
) -> Segmenter:
    from .client.segmenter import RemoteSegmenter

    key = None if api_key is None else api_key.get_secret_value()
    return RemoteSegmenter(
        url, partial(estimate_elsewhere, volumes=volumes, resources=resources), api_key=key, as_jobs=as_jobs
    )


def _webhooks(origins: Sequence[str], secret: SecretStr | None, private: bool) -> WebhookSender:
    from .adapters.webhooks.http import HttpWebhooks

    return HttpWebhooks(origins, "" if secret is None else secret.get_secret_value(), allows_private=private)


def _dicom_peers(peers: Mapping[str, Mapping[str, Any]], own_title: str) -> dict[str, DicomPeer]:
    from .adapters.dicom_peers.dicomweb import DicomWebPeer
    from .adapters.dicom_peers.dimse import DimsePeer

    def make(url: str | None, token: SecretStr | None, aet: str, host: str, port: int) -> DicomPeer:
        if url is None:
            return DimsePeer(aet, host, port, own_title)
        return DicomWebPeer(url, None if token is None else token.get_secret_value())

    return {name: make(**peer) for name, peer in peers.items()}


def _scheduler(address: str, resources: Resources, patience_seconds: float) -> BlockScheduler:
    if address == "local":
        from .adapters.schedulers.inline import InlineScheduler

        return InlineScheduler()
    from .adapters.schedulers.dask import DaskScheduler

    return DaskScheduler(address, resources.processors(), patience_seconds)


def _cluster(
    settings: Mapping[str, Any],
    resources: Resources,
    block_volumes: BlockVolumes,
    open_blobs: Callable[[str], BlobStore],
    locks: Locks,
    version: str,
    open_worker: Callable[[], WorkerPorts],
) -> ClusterPorts | None:
    if settings["address"] is None:
        return None
    return ClusterPorts(
        partial(_scheduler, settings["address"], resources, settings["patience_seconds"]),
        block_volumes,
        open_blobs,
        open_worker,
        locks,
        version,
        settings["block"],
        settings["attempts"],
        settings["folder"],
    )


class Container(containers.DeclarativeContainer):
    """Providers of the adapters behind the ports. Override a provider to use another adapter."""

    config = providers.Configuration(strict=True)

    nifti_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.nifti", "NiftiStore"), scratch=config.scratch_dir, max_voxels=config.max_voxels
    )
    tiff_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.tiff", "TiffStore"), max_voxels=config.max_voxels
    )
    ome_zarr_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.ome_zarr", "OmeZarrStore"), max_voxels=config.max_voxels
    )
    itk_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.itk", "ItkStore"), scratch=config.scratch_dir, max_voxels=config.max_voxels
    )
    dicom_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.dicom", "DicomStore"), scratch=config.scratch_dir, max_voxels=config.max_voxels
    )
    mgh_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.mgh", "MghStore"), scratch=config.scratch_dir, max_voxels=config.max_voxels
    )
    hdf5_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.hdf5", "Hdf5Store"), config.max_voxels
    )
    numpy_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.numpy", "NumpyStore"), config.scratch_dir, config.max_voxels
    )
    vendor_volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.vendors", "VendorStore"), config.max_voxels
    )
    # in the order in which they are asked whether they recognise a volume
    volumes: providers.Provider[VolumeStore] = providers.ThreadSafeSingleton(
        _late("volumes.routed", "RoutedStore"),
        nifti_volumes,
        tiff_volumes,
        ome_zarr_volumes,
        itk_volumes,
        dicom_volumes,
        mgh_volumes,
        hdf5_volumes,
        numpy_volumes,
        vendor_volumes,
    )
    format_of: providers.Provider[str] = providers.Callable(_late("volumes.routed", "format_of"), volumes)
    memory_store: providers.Provider[ArrayStore] = providers.Factory(_late("volumes.memory", "MemoryStore"))
    image_volume: providers.Provider[Volume] = providers.Callable(_late("volumes.nifti", "volume_of_image"))
    artifacts: providers.Provider[ArtifactWriter] = providers.ThreadSafeSingleton(
        _late("artifacts.local", "LocalFiles")
    )
    pictures: providers.Provider[PictureEncoder] = providers.ThreadSafeSingleton(_late("pictures.png", "PngPictures"))
    surfaces: providers.Provider[SurfaceMaker] = providers.ThreadSafeSingleton(_late("surfaces.gltf", "GltfSurfaces"))
    scratch: providers.Provider[Scratch] = providers.ThreadSafeSingleton(
        _late("scratch.files", "ScratchFiles"), config.scratch_dir
    )
    resources: providers.Provider[Resources] = providers.ThreadSafeSingleton(_late("resources.local", "LocalResources"))
    locks: providers.Provider[Locks] = providers.ThreadSafeSingleton(_late("locks.files", "FileLocks"))
    work_folders: providers.Provider[WorkFolders] = providers.ThreadSafeSingleton(
        _late("scratch.folders", "ScratchFolders"), config.scratch_dir, locks
    )
    block_volumes: providers.Provider[BlockVolumes] = providers.ThreadSafeSingleton(
        _late("volumes.ome_zarr.blocks", "OmeZarrBlocks"), volumes
    )
    open_blobs: providers.Provider[BlobStore] = providers.Factory(_late("blobs.fsspec", "FsspecBlobs"))
    cluster: providers.Provider[ClusterPorts | None] = providers.Callable(
        _cluster,
        config.cluster,
        resources,
        block_volumes,
        open_blobs.provider,
        locks,
        config.version,
        config.open_worker,
    )
    pages: providers.Provider[PageWriter] = providers.ThreadSafeSingleton(_late("pages.jinja", "JinjaPages"))
    segment_ports = providers.Factory(SegmentPorts, volumes, artifacts, pictures, resources, scratch, pages)
    # of the cases that users name: in blocks, where the settings name a cluster
    case_ports = providers.Factory(SegmentPorts, volumes, artifacts, pictures, resources, scratch, pages, cluster)
    page_ports = providers.Factory(PagePorts, volumes, pictures, artifacts, pages)
    skeletons: providers.Provider[Skeletoniser] = providers.ThreadSafeSingleton(
        _late("skeletons.skimage", "SkimageSkeletoniser")
    )
    compare_ports = providers.Factory(ComparePorts, volumes, skeletons)
    tracer: providers.Provider[LineTracer] = providers.ThreadSafeSingleton(_late("tracers.skan", "SkanTracer"))
    tube_ports = providers.Factory(TubePorts, volumes, artifacts, skeletons, tracer)
    sample = providers.Callable(str, BUNDLED / f"sample{PACKED}")

    model_files: providers.Provider[ModelFiles] = providers.ThreadSafeSingleton(
        _late("models.onnx_files", "OnnxModelFiles")
    )
    own_models: providers.Provider[ModelRepository] = providers.Selector(
        config.store,
        folder=providers.ThreadSafeSingleton(_late("models.folder", "ModelDirectory"), config.models_dir, model_files),
        bento=providers.ThreadSafeSingleton(
            _late("models.bento", "BentoStore"), model_files, locks, config.bentoml_home
        ),
    )
    models: providers.Provider[ModelRepository] = providers.ThreadSafeSingleton(
        _late("models.folder", "LayeredModels"),
        own_models,
        providers.Factory(_late("models.folder", "ModelDirectory"), BUNDLED, model_files),
    )
    bentoml: providers.Provider[ModuleType] = providers.Callable(_late("models.bento", "untracked_bentoml"))

    tensor_model_store: providers.Provider[TensorModelStore] = providers.ThreadSafeSingleton(
        _late("models.bento", "BentoTensorModels"), config.bentoml_home
    )

    signatures: providers.Provider[Signatures] = providers.ThreadSafeSingleton(
        _late("signatures.openssf", "OpenssfSignatures")
    )
    boms: providers.Provider[BomWriter] = providers.ThreadSafeSingleton(
        _late("boms.cyclonedx", "CyclonedxBoms"), config.version
    )
    # of what is served
    trust = providers.ThreadSafeSingleton(Trust, signatures, config.require_signed)

    bounds = providers.ThreadSafeSingleton(Bounds, config.bounds.label_agreement, config.bounds.dice)
    threads = providers.Callable(_threads, config.threads, resources)
    tensor_models = providers.ThreadSafeSingleton(
        TensorModels, tensor_model_store, providers.Factory(partial, _open_session, config.onnx, threads), trust
    )
    runtimes = providers.Dict(
        onnx=providers.Factory(partial, _open_onnx, config.onnx, threads),
        openvino=providers.Factory(partial, _open_openvino, config.openvino, threads),
        torch=providers.Factory(
            partial,
            _late("runtimes.torch", "open_torch_runtime"),
            device=config.torch.device,
            threads=config.threads,
        ),
    )
    worker_ports = providers.Factory(
        WorkerPorts, volumes, block_volumes, open_blobs.provider, runtimes, resources, config.version
    )
    tuning_store: providers.Provider[TuningStore] = providers.ThreadSafeSingleton(
        _late("tunings.folder", "TuningDirectory"), config.tunings_dir
    )
    quantiser: providers.Provider[Quantiser] = providers.ThreadSafeSingleton(_late("quantisers.onnx", "OnnxQuantiser"))
    tunings = providers.ThreadSafeSingleton(
        Tunings, tuning_store, resources.provided.describe.call(config.threads), bounds
    )
    open_model = providers.Factory(ModelOpener, model_files, models, runtimes, config.model, tunings)
    tune_ports = providers.Factory(TunePorts, runtimes, segment_ports, memory_store.provider, tunings, quantiser)
    rank_ports = providers.Factory(
        RankPorts, segment_ports, compare_ports, memory_store.provider, open_model.provided.load
    )
    read_bundle: providers.Provider[Checkpoint] = providers.Callable(
        _late("importers.monai_bundle", "checkpoint_from_bundle")
    )
    exporter: providers.Provider[ModelExporter] = providers.ThreadSafeSingleton(
        _late("exporters.torch", "TorchExporter"), _late("runtimes.torch", "load_network")
    )
    export_ports = providers.Factory(
        ExportPorts,
        exporter,
        model_files,
        artifacts,
        runtimes.provided["torch"],
        runtimes.provided["onnx"],
        runtimes,
        bounds,
    )

    # in the order in which they are asked whether they recognise a source
    importers: providers.Provider[list[ModelImporter]] = providers.List(
        providers.ThreadSafeSingleton(
            _late("importers.nnunet", "NnunetImporter"), _late("runtimes.torch", "read_content")
        ),
        providers.ThreadSafeSingleton(_late("importers.monai_bundle", "BundleImporter")),
        providers.ThreadSafeSingleton(_late("importers.bioimageio", "BioimageioImporter"), model_files),
        providers.ThreadSafeSingleton(_late("importers.onnx_slices", "OnnxSlicesImporter"), model_files),
    )
    import_ports = providers.Factory(
        ImportPorts, importers, export_ports, open_model.provided.load, segment_ports, memory_store.provider
    )

    packager: providers.Provider[Packager] = providers.ThreadSafeSingleton(
        _late("packages.bioimageio", "BioimageioPackager"), pictures
    )

    slots = providers.ThreadSafeSingleton(Slots, config.serving.slots, config.serving.queue)
    served_models = providers.ThreadSafeSingleton(
        ServedModels, open_model, models, config.model, config.serving.look_for_models_seconds, trust
    )
    segmenter = providers.Factory(
        LocalSegmenter, served_models, slots, segment_ports, config.version, config.serving.memory_bytes
    )
    # called with the server's URL
    remote_segmenter = providers.Factory(_remote_segmenter, config.api_key, volumes, resources)
    _queue_limits = providers.Factory(
        QueueLimits, config.jobs.length, config.jobs.strikes, config.jobs.lease_seconds, config.jobs.backoff_seconds
    )
    job_queue: providers.Provider[JobQueue] = providers.ThreadSafeSingleton(
        _late("jobs.dbos", "DbosJobQueue"), config.jobs.database, _queue_limits
    )
    # for commands that read jobs: never creates the database
    known_job_queue: providers.Provider[JobQueue] = providers.ThreadSafeSingleton(
        _late("jobs.dbos", "DbosJobQueue"), config.jobs.database, _queue_limits, create=False
    )
    blobs: providers.Provider[BlobStore] = providers.ThreadSafeSingleton(
        _late("blobs.fsspec", "FsspecBlobs"), config.jobs.blobs
    )
    job_ports = providers.ThreadSafeSingleton(JobPorts, job_queue, blobs)
    webhooks: providers.Provider[WebhookSender] = providers.ThreadSafeSingleton(
        _webhooks, config.jobs.callback_origins, config.jobs.callback_secret, config.jobs.callback_private
    )
    dicom_peers: providers.Provider[Mapping[str, DicomPeer]] = providers.ThreadSafeSingleton(
        _dicom_peers, config.dicom.peers, config.dicom.aet
    )
    job_settings = providers.ThreadSafeSingleton(
        JobSettings,
        config.version,
        config.serving.memory_bytes,
        providers.Callable(max, config.jobs.concurrency, config.serving.slots),
        config.jobs.keep_every_seconds,
        config.jobs.retention_seconds,
        config.jobs.sweep_every_seconds,
    )
