"""nnU-Net's own inference, for comparison."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ....domain.errors import ModelError, UsageError
from ....domain.plain import first_line
from ....domain.volume_names import PACKED
from .results import Results


def predict(
    results: Results, inputs: Sequence[Path], mask: Path, largest: Sequence[tuple[int, ...]], *, mirroring: bool
) -> tuple[str, str]:
    """Segment one case with ``nnUNetPredictor`` on the CPU; return the package and its version.

    The checkpoints must have been read before: nnU-Net unpickles them.

    Args:
        results: the trainer's folder and folds.
        inputs: one NIfTI file a channel.
        mask: NIfTI file to write.
        largest: labels of each postprocessing step, which keeps their largest component.
        mirroring: whether to mirror as the checkpoint allows.
    """
    try:
        with _quiet():
            import torch
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
            from nnunetv2.postprocessing.remove_connected_components import (
                remove_all_but_largest_component_from_segmentation as keep_largest,
            )
    except ImportError:
        expected, do = "the package nnunetv2", "pip install nnunetv2"
        raise UsageError("nnU-Net", expected=expected, got="none installed", do=do) from None
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder, _quiet():
        predictor = nnUNetPredictor(
            use_mirroring=mirroring, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        name = results.checkpoints[0].name
        try:
            predictor.initialize_from_trained_model_folder(str(results.folder), results.folds, name)
            predictor.dataset_json = {**predictor.dataset_json, "file_ending": PACKED}
            predictor.predict_from_files_sequential([[str(path) for path in inputs]], [f"{folder}/mask"])
            written = f"{folder}/mask{PACKED}"
            if largest:
                reader = predictor.plans_manager.image_reader_writer_class()
                labels, properties = reader.read_seg(written)
                found = labels[0].astype(np.int64)
                for step in largest:
                    found = keep_largest(found, list(step))
                reader.write_seg(found, written, properties)
        except (RuntimeError, ValueError, AssertionError, OSError, KeyError, IndexError, TypeError) as error:
            got, do = first_line(error), "compare on a volume that nnU-Net segments"
            raise ModelError(inputs[0].name, expected="nnU-Net to segment it", got=got, do=do) from None
        shutil.copyfile(written, mask)
    return "nnunetv2", version("nnunetv2")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
