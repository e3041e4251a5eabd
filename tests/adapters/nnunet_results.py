"""Results folders written by nnU-Net's own trainer, and nnU-Net's own inference, for tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Volume = NDArray[Any]
_INTENSITIES = {"mean": 40.0, "std": 60.0, "percentile_00_5": -120.0, "percentile_99_5": 220.0}
_RESAMPLED = {"force_separate_z": None, "order_z": 0}


@dataclass(frozen=True)
class Recipe:
    """One configuration of nnU-Net. Axes are its own, (z, y, x) of the stored file after ``transpose``."""

    configuration: str = "3d_fullres"
    network: str = "PlainConvUNet"
    patch: tuple[int, ...] = (16, 16, 16)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    features: tuple[int, ...] = (4, 8, 8)
    channels: tuple[str, ...] = ("CT",)
    schemes: tuple[str, ...] = ("CTNormalization",)
    masked: tuple[bool, ...] = (False,)
    labels: Mapping[str, Any] = field(default_factory=lambda: {"background": 0, "core": 1, "shell": 2})
    regions: tuple[int, ...] | None = None
    transpose: tuple[int, int, int] = (0, 1, 2)
    mirroring: tuple[int, ...] | None = (0, 1, 2)
    folds: tuple[str, ...] = ("0",)
    reader: str = "SimpleITKIO"
    resampling: Mapping[str, str] = field(default_factory=dict)
    old_plans: bool = False
    steps: int = 40
    edge: int = 16  # of the training patches, along axes where the patch is larger

    @property
    def plans(self) -> dict[str, Any]:
        """``plans.json``."""
        forward = list(self.transpose)
        return {
            "dataset_name": "Dataset001_Balls",
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
            "original_median_shape_after_transp": [40, 40, 40],
            "image_reader_writer": self.reader,
            "transpose_forward": forward,
            "transpose_backward": [forward.index(axis) for axis in range(3)],
            "configurations": {
                self.configuration: self._configuration,
                "3d_cascade_fullres": {"inherits_from": self.configuration, "previous_stage": "3d_lowres"},
            },
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                str(channel): _INTENSITIES for channel in range(len(self.channels))
            },
        }

    @property
    def dataset(self) -> dict[str, Any]:
        """``dataset.json``."""
        described: dict[str, Any] = {
            "channel_names": {str(number): name for number, name in enumerate(self.channels)},
            "labels": dict(self.labels),
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
        return described if self.regions is None else {**described, "regions_class_order": list(self.regions)}

    @property
    def _configuration(self) -> dict[str, Any]:
        functions = {"data": (False, 3), "seg": (True, 1), "probabilities": (False, 1)}
        described: dict[str, Any] = {
            "data_identifier": f"nnUNetPlans_{self.configuration}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "batch_dice": False,
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": [40, 40, 40][-len(self.patch) :],
            "spacing": list(self.spacing),
            "normalization_schemes": list(self.schemes),
            "use_mask_for_norm": list(self.masked),
        }
        for name, (is_seg, order) in functions.items():
            chosen = self.resampling.get(name, "resample_data_or_seg_to_shape")
            plain = chosen == "resample_data_or_seg_to_shape"
            described[f"resampling_fn_{name}"] = chosen
            described[f"resampling_fn_{name}_kwargs"] = (
                {"is_seg": is_seg, "order": order, **_RESAMPLED} if plain else {}
            )
        return described | (self._old_architecture if self.old_plans else {"architecture": self._architecture})

    @property
    def _architecture(self) -> dict[str, Any]:
        stages, dimension = len(self.features), len(self.patch)
        blocks = "n_conv_per_stage" if self.network == "PlainConvUNet" else "n_blocks_per_stage"
        return {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{self.network}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(self.features),
                "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
                "kernel_sizes": self._kernels,
                "strides": [list(step) for step in self.strides],
                blocks: [1] * stages,
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }

    @property
    def _old_architecture(self) -> dict[str, Any]:
        stages = len(self.features)
        return {
            "UNet_class_name": self.network,
            "UNet_base_num_features": self.features[0],
            "unet_max_num_features": self.features[-1],
            "n_conv_per_stage_encoder": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "num_pool_per_axis": [stages - 1] * len(self.patch),
            "pool_op_kernel_sizes": [list(step) for step in self.strides],
            "conv_kernel_sizes": self._kernels,
        }

    @property
    def _kernels(self) -> list[list[int]]:
        """1 along an axis until it is halved, 3 afterwards, as nnU-Net's planner has it for coarse axes."""
        total = np.cumprod(self.strides, axis=0)
        later = np.cumprod(self.strides[::-1], axis=0)[::-1]
        return [
            [1 if before == 1 and after > 1 and self.spacing[axis] > 3 * min(self.spacing) else 3
             for axis, (before, after) in enumerate(zip(total[stage], later[stage], strict=True))]
            for stage in range(len(self.strides))
        ]  # fmt: skip


@contextlib.contextmanager
def nnunet_folders(root: Path) -> Iterator[None]:
    """Set nnU-Net's environment to folders below ``root``, and silence it."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(root / name) for name in names})
    try:
        with quiet():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        yield


def write_results(root: Path, recipe: Recipe, image: Volume, labels: Volume, spacing: Sequence[float]) -> Path:
    """Train on one case for a few steps and save it; return the trainer's folder.

    Args:
        root: an empty folder.
        recipe: the configuration.
        image: ``(C, X, Y, Z)`` as stored in a NIfTI file.
        labels: ``(X, Y, Z)``.
        spacing: of x, y and z.
    """
    with nnunet_folders(root):
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        plans, dataset = recipe.plans, recipe.dataset
        preprocessed = root / "nnUNet_preprocessed" / plans["dataset_name"] / f"nnUNetPlans_{recipe.configuration}"
        preprocessed.mkdir(parents=True, exist_ok=True)
        (preprocessed / "case.b2nd").touch()
        for number, fold in enumerate(recipe.folds):
            torch.manual_seed(number)
            trainer = nnUNetTrainer(
                {**json.loads(json.dumps(plans)), "continue_training": False},
                recipe.configuration,
                int(fold) if fold.isdecimal() else fold,
                dataset,
                torch.device("cpu"),
            )
            trainer.enable_deep_supervision = False
            trainer.inference_allowed_mirroring_axes = recipe.mirroring
            trainer.initialize()
            _train(trainer, recipe, image, labels, spacing, seed=number)
            trainer._best_ema = np.float64(0.5)
            trainer.logger.log("mean_fg_dice", np.float32(0.5), 0)
            trainer.logger.log("dice_per_class_or_region", [np.float32(0.5)], 0)
            folder = Path(trainer.output_folder)
            trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
            (folder / "progress.png").touch()
    parent = folder.parent
    (parent / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (parent / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    return parent


def _train(trainer: Any, recipe: Recipe, image: Volume, labels: Volume, spacing: Sequence[float], *, seed: int) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    data, target, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        image.transpose(0, 3, 2, 1).astype(np.float32),
        labels.T[None].astype(np.int16),
        {"spacing": list(spacing)[::-1]},
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.dataset_json,
    )
    target = np.maximum(target, 0)
    flat = len(recipe.patch) == 2
    wanted = [1, *recipe.patch] if flat else list(recipe.patch)
    edges = [min(edge, max(recipe.edge, 1)) if edge > 1 else 1 for edge in wanted]
    random = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(trainer.network.parameters(), 5e-3)
    trainer.network.train()
    short = [(0, 0), *((0, max(0, edge - n)) for edge, n in zip(edges, data.shape[1:], strict=True))]
    data, target = np.pad(data, short), np.pad(target, short)
    inside = np.argwhere(target[0] > 0)
    for _ in range(recipe.steps):
        boxes = []
        for number in range(2):
            around = inside[random.integers(len(inside))] if number and len(inside) else random.integers(data.shape[1:])
            starts = np.clip(around - np.array(edges) // 2, 0, np.array(data.shape[1:]) - edges)
            boxes.append(tuple(slice(s, s + edge) for s, edge in zip(starts, edges, strict=True)))
        batch = torch.from_numpy(np.stack([data[(slice(None), *box)] for box in boxes]).astype(np.float32))
        truth = torch.from_numpy(np.stack([target[(slice(None), *box)] for box in boxes]).astype(np.int64))
        if flat:
            batch, truth = batch[:, :, 0], truth[:, :, 0]
        if trainer.label_manager.has_regions:
            regions = [np.atleast_1d(region) for region in trainer.label_manager.foreground_regions]
            truth = torch.cat([torch.isin(truth, torch.from_numpy(region)) for region in regions], 1)
        optimiser.zero_grad()
        trainer.loss(trainer.network(batch), truth).backward()
        optimiser.step()
    trainer.network.eval()


def exported_zip(trainer_folder: Path, destination: Path) -> Path:
    """Write the zip that nnU-Net's export command makes of a trainer's folder."""
    results = trainer_folder.parent.parent
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(trainer_folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(results))
    return destination


def predict(
    trainer_folder: Path, inputs: Sequence[Path], mask: Path, *, folds: tuple[str, ...] = ("0",), mirroring: bool = True
) -> None:
    """Segment one case with ``nnUNetPredictor``, on the CPU."""
    with nnunet_folders(trainer_folder):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=mirroring, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(trainer_folder), folds, "checkpoint_final.pth")
        name = str(mask).removesuffix(".nii.gz")
        predictor.predict_from_files_sequential([[str(path) for path in inputs]], [name])


def balls(shape: tuple[int, int, int], *, seed: int = 0, channels: int = 1) -> tuple[Volume, Volume]:
    """Return a CT-like image ``(C, X, Y, Z)``, zero outside a body, with balls that have a shell, and their labels."""
    random = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    labels = np.zeros(shape, np.uint8)
    for _ in range(max(3, int(np.prod(shape) // 4000))):
        centre = np.array([random.uniform(0.2 * n, 0.8 * n) for n in shape])
        distance = np.sqrt(((place - centre[:, None, None, None]) ** 2).sum(0))
        radius = random.uniform(3, 6)
        labels[(distance < radius + 2) & (labels == 0)] = 2
        labels[distance < radius] = 1
    means = np.array([[10, 180, 100], [30, 120, 200], [50, 90, 20]])[:channels]
    image = means[:, labels] + random.normal(0, 15, (channels, *shape))
    body = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        margin = n // 12
        index: list[Any] = [slice(None)] * 3
        index[axis] = np.r_[0:margin, n - margin : n]
        body[tuple(index)] = False
    labels[~body] = 0
    return np.where(body, np.rint(image), 0).astype(np.int16), labels
