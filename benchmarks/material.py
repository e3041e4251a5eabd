"""Volumes, machine description and result tables for benchmarks."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from voxport.adapters.instructions import instruction_limits
from voxport.adapters.resources.local import LocalResources
from voxport.application import Application
from voxport.domain.run import Outputs, RunOptions
from voxport.testing.progress import RecordingProgress

# Variables that limit oneDNN (in PyTorch and OpenVINO) and PyTorch to AVX2, if set before they are loaded.
AVX2_ALONE = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
# Processor features that affect convolutions, by Linux's names.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")


def tiled_sample(path: Path, sample: str, shape: tuple[int, int, int]) -> Path:
    """Write a volume of this shape that repeats the bundled sample; return its path."""
    stored = nib.load(sample)
    values = np.tile(np.asarray(stored.dataobj), [-(-n // m) for n, m in zip(shape, stored.shape, strict=True)])
    image = nib.Nifti1Image(values[tuple(map(slice, shape))], stored.affine)
    image.header.set_xyzt_units("micron")
    nib.save(image, path)
    return path


class Findings:
    """Collects and prints the results of a benchmark of servers, one table for each measurement."""

    def __init__(self) -> None:
        # A server outlives this process unless it exits normally.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        # The user's settings would apply to this process but not to the server.
        for name in [name for name in os.environ if name.startswith("VOXPORT_")]:
            del os.environ[name]
        self._found: dict[str, dict[str, Any]] = {}
        self.add("machine", machine())

    def add(self, title: str, values: dict[str, Any]) -> None:
        """Store a measurement and print it."""
        self._found[title] = values
        print(f"\n{title}")
        for name, value in values.items():
            print(f"  {name:32} {round(value, 4) if isinstance(value, float) else value}", flush=True)

    def end(self, file: Path | None) -> None:
        """Write JSON if requested. SystemExit if a measurement failed."""
        if file is not None:
            file.write_text(json.dumps(self._found, indent=2) + "\n", encoding="utf-8")
        if not all(values.get("passed", True) for values in self._found.values()):
            raise SystemExit(1)


def segmenter(folder: Path, model: str) -> Callable[[Path], bytes]:
    """Return a function that segments in this process with a resident model, bundled or of ``folder/models``."""
    application, mask = Application.build(models_dir=folder / "models"), folder / "mask.nii.gz"
    loaded = application.load_model(application.find_model(model))

    def mask_of(volume: Path) -> bytes:
        application.segment([str(volume)], loaded, Outputs(str(mask)), RunOptions(), RecordingProgress())
        return mask.read_bytes()

    return mask_of


def machine() -> dict[str, str]:
    """Return processors, a limit of their instructions if any is set, memory, load and library versions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    told_of = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    able, limits = told_of.get("flags", "").split(), sorted(instruction_limits())
    return {
        "system": platform.platform(),
        "processors": f"{LocalResources().processors()} x {told_of.get('model name', platform.machine())}",
        "instructions": f"limited to {' '.join(limits).lower()}"
        if limits
        else " ".join(flag for flag in _INSTRUCTIONS if flag in able),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "load average": ", ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        **_versions("voxport", "bentoml", "uvicorn", "onnxruntime", "openvino", "torch", "monai", "nnunetv2"),
    }


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def sample_volumes(folder: Path) -> list[Path]:
    """Return variants of the bundled sample, and smooth noise; all masks differ."""
    sample = Path(Application.build().sample)
    values = np.asarray(nib.load(sample).dataobj)
    forms = {
        "moved.nii.gz": np.roll(values, (80, -50), (0, 1))[:, :, :16],
        "turned.nii": values[::-1, :, -16:].astype(np.int16),
        "cropped.nii.gz": values[:200, 30:250, 4:20].astype(np.float32),
        "noise.nii.gz": smooth_noise((256, 256, 16)),
    }
    return [sample, *(saved(folder / name, form) for name, form in forms.items())]


def smooth_noise(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return noise that compresses about as well as an image."""
    random = np.random.default_rng(0)
    slow: NDArray[np.float32] = gaussian_filter(random.standard_normal(shape, np.float32), (4, 4, 1.5))
    values: NDArray[np.float64] = 60 + slow * 40 / slow.std() + random.normal(0, 3, shape)
    return values.clip(0, 255).astype(np.uint8)


def blobs(shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an image with grain and texture, and the mask of its bright bodies, 10 to 40 voxels wide."""
    random = np.random.default_rng(seed)
    slow: NDArray[np.float32] = gaussian_filter(random.standard_normal(shape, np.float32), (10, 10, 5))
    inside: NDArray[np.bool_] = slow > 0.5 * slow.std()
    texture: NDArray[np.float32] = gaussian_filter(random.standard_normal(shape, np.float32), 1)
    values = gaussian_filter(inside.astype(np.float32), 0.7) * 80 + 60 + texture * 15 / texture.std()
    values += 6 * random.standard_normal(shape, np.float32)
    return values.clip(0, 255).astype(np.uint8), inside


def saved(path: Path, values: NDArray[Any]) -> Path:
    """Write the values as NIfTI, with five times the spacing along z, and return the path."""
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 5.0, 1.0])), path)
    return path


def streamed(path: str, shape: tuple[int, int, int]) -> None:
    """Write a ``.nii.gz`` of any size plane by plane, with repeated blobs."""
    block, _ = blobs((128, 128, 128), seed=0)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    times = [-(-edge // known) for edge, known in zip(shape, block.shape, strict=True)]
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for depth in range(shape[2]):
            plane = np.tile(block[:, :, depth % block.shape[2]], times[:2])[: shape[0], : shape[1]]
            file.write(plane.tobytes(order="F"))
