"""A folder of corrected cases is a data set of nnU-Net's and of MONAI's."""

from __future__ import annotations

from contextlib import ExitStack
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.locks.files import FileLocks
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.services.viewing.training import TrainingFolder

from .test_training import GRID, case_of, mask_of, noise


@pytest.mark.parametrize("channels", [1, 2])
def test_nnunet_and_monai_read_the_folder(tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.data import load_decathlon_datalist
    from nnunetv2.experiment_planning import verify_dataset_integrity as verifier

    kept = TrainingFolder(tmp_path, NiftiStore(), LocalFiles(), FileLocks())
    with ExitStack() as stack:
        keys = {kept.keep("scan", case_of(noise(channels), stack), mask_of(), [""] * channels) for _ in range(2)}
    # in threads: processes would import torch anew
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(verifier, "multiprocessing", threads)
    verifier.verify_dataset_integrity(str(kept.folder), num_processes=1)
    listed = load_decathlon_datalist(str(kept.folder / "datalist.json"), is_segmentation=True)
    assert {Path(entry["label"]).name.removesuffix(".nii.gz") for entry in listed} == keys
    for entry in listed:
        images = entry["image"] if channels > 1 else [entry["image"]]
        assert [nib.load(path).shape for path in (*images, entry["label"])] == [GRID.shape] * (channels + 1)
