"""What benchmarks are made with: volumes of known kinds, and a description of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from voxport.container import wired
from voxport.services.machine import processors


def machine() -> dict[str, str]:
    """Processors, memory, how busy they are, and the versions that matter."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "system": platform.platform(),
        "processors": f"{processors()} x {name}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "load average": ", ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        **{
            name: importlib.metadata.version(name)
            for name in ("voxport", "bentoml", "uvicorn", "onnxruntime", "openvino", "torch", "monai")
        },
    }


def sample_volumes(folder: Path) -> list[Path]:
    """The bundled sample as it is, moved and in other forms, and smooth noise; no two have the same mask."""
    sample = Path(wired().sample())
    values = np.asarray(nib.load(sample).dataobj)
    forms = {
        "moved.nii.gz": np.roll(values, (80, -50), (0, 1))[:, :, :16],
        "turned.nii": values[::-1, :, -16:].astype(np.int16),
        "cropped.nii.gz": values[:200, 30:250, 4:20].astype(np.float32),
        "noise.nii.gz": smooth_noise((256, 256, 16)),
    }
    return [sample, *(saved(folder / name, form) for name, form in forms.items())]


def smooth_noise(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """What compresses about as a picture does: slow changes, and some grain."""
    random = np.random.default_rng(0)
    slow: NDArray[np.float32] = gaussian_filter(random.standard_normal(shape, np.float32), (4, 4, 1.5))
    values: NDArray[np.float64] = 60 + slow * 40 / slow.std() + random.normal(0, 3, shape)
    return values.clip(0, 255).astype(np.uint8)


def saved(path: Path, values: NDArray[Any]) -> Path:
    """The path, at which the values now lie as NIfTI, five times as far apart along z."""
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 5.0, 1.0])), path)
    return path
