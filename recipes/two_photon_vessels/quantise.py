"""The network in integers of 8 bits, fine-tuned with its rounding (quantisation-aware training).

Each step between two integers is a power of two, so that fp32 holds every product and every sum of a convolution
exactly, in any order. PyTorch's fake quantisation therefore gives the same bits as a runtime that computes in integers,
and all runtimes and processors give the same bits.

Weights have 7 bits. Processors without VNNI instructions add pairs of products in 16 bits: 2 x 255 x 64 = 32640 fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .losses import vessel_loss
from .model import CELL, WIDTHS, Block, VesselNet, Widths, fold, load_network, picture_views, unfold
from .pool import VolumePool, draw_batch
from .train import TrainingPlan, progress_bar, schedule

LARGEST_WEIGHT = 64
LIGHT_LEVELS = 2048
"""Levels of the picture between 0 and 1.

Logarithms differ in their last bits between libraries. None of these levels has a logarithm or a root near the middle
of two steps, where that would change the rounding; a test tries all. With 4096 levels two have.
"""
_SAMPLE = 100_000  # values of a feature map on which its step is chosen


@dataclass(frozen=True)
class QuantisingPlan:
    """Every parameter of the fine-tuning that `TrainingPlan` lacks.

    Steps are chosen on `calibration` batches. Batches are drawn from the first `volumes` of the pool.
    """

    calibration: int = 24
    steps: int = 200
    learning_rate: float = 5e-5
    warmup_steps: int = 20
    volumes: int = 200


SMOKE = QuantisingPlan(calibration=2, steps=3, warmup_steps=1, volumes=4)


class Bytes(nn.Module):
    """Rectify, and round to 0 to 255 times `step`."""

    step: Tensor
    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(1.0))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int32))
        self.seen: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Round; while values are being collected, keep a sample of them and only rectify."""
        if self.seen is None:
            return torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, 0, 255)
        values = functional.relu(x)
        self.seen.append(values.flatten()[:: max(values.numel() // _SAMPLE, 1)].clone())
        return values

    def fit(self) -> None:
        """Choose the step for the values seen since `seen` became a list."""
        assert self.seen
        self.step.copy_(best_steps(torch.cat(self.seen)[None], 0, 255)[0])
        self.seen = None


def best_steps(values: Tensor, least: int, greatest: int) -> Tensor:
    """Return, for each row of `values` (R, N), the power of two with the least squared error of rounding (R,)."""
    largest = values.abs().amax(dim=1).clamp(min=1e-6)
    widest = torch.exp2(torch.ceil(torch.log2(largest / greatest)))
    steps = torch.stack([widest / 2**halvings for halvings in range(5)])
    errors = [
        (torch.clamp(torch.round(values / step[:, None]), least, greatest) * step[:, None] - values).square().mean(1)
        for step in steps
    ]
    return steps.gather(0, torch.stack(errors).argmin(dim=0)[None])[0]


class IntegerConv(nn.Module):
    """A convolution of bytes with weights of 7 bits and a step for each output channel.

    `source` made its input. Without `result`, the output is not rounded.
    """

    step: Tensor
    zero: Tensor

    def __init__(self, plain: nn.Module, source: Bytes, result: Bytes | None) -> None:
        super().__init__()
        assert isinstance(plain, nn.Conv3d | nn.ConvTranspose3d)
        self.plain, self.result = plain, result
        self._source = (source,)  # in a tuple, a module is not registered twice
        self.axis = 1 if isinstance(plain, nn.ConvTranspose3d) else 0
        self.register_buffer("step", torch.ones(plain.out_channels))
        self.register_buffer("zero", torch.zeros(plain.out_channels, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, I, X, Y, Z) to (N, O, X', Y', Z')."""
        plain = self.plain
        # the range of int8, because ONNX has no other; the weights stay within 7 bits by themselves
        weight = torch.fake_quantize_per_channel_affine(plain.weight, self.step, self.zero, self.axis, -128, 127)
        if isinstance(plain, nn.ConvTranspose3d):
            found = functional.conv_transpose3d(x, weight, plain.bias, plain.stride)
        else:
            found = functional.conv3d(x, weight, plain.bias, plain.stride, plain.padding)
        return found if self.result is None else self.result(found)

    def fit(self) -> None:
        """Choose the steps for the weights."""
        rows = self.plain.weight.detach().transpose(0, self.axis).flatten(1)
        self.step.copy_(best_steps(rows, -LARGEST_WEIGHT, LARGEST_WEIGHT))
        self.limit()

    def limit(self) -> None:
        """Clip the weights to 7 bits."""
        largest = self.along_channels(self.step) * LARGEST_WEIGHT
        self.plain.weight.data.clamp_(-largest, largest)

    def round(self) -> None:
        """Round the weights to their steps, and the biases to those of the sums."""
        (source,) = self._source
        weight, bias = self.plain.weight.data, self.plain.bias
        assert bias is not None
        step = self.along_channels(self.step)
        weight.copy_(torch.round(weight / step) * step)
        bias.data.copy_(torch.round(bias.data / (self.step * source.step)) * self.step * source.step)

    def along_channels(self, values: Tensor) -> Tensor:
        """Reshape one value for each output channel (O,) to multiply the weights."""
        shape = [1] * self.plain.weight.ndim
        shape[self.axis] = -1
        return values.reshape(shape)


class IntegerBlock(nn.Module):
    """A `Block` in integers. Its last convolution's output is rounded after it is added, not before.

    Rounding it twice costs accuracy, and OpenVINO 2026.4 leaves out the first of two.
    """

    def __init__(self, block: nn.Module, source: Bytes) -> None:
        super().__init__()
        assert isinstance(block, Block)
        self.layers = nn.ModuleList()
        for plain in block.convolutions:
            result = None if plain is block.convolutions[-1] else Bytes()
            self.layers.append(IntegerConv(plain, source, result))
            source = result or source
        self.total = Bytes()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions find."""
        found = x
        for layer in self.layers:
            found = layer(found)
        rounded: Tensor = self.total(x + found)
        return rounded


class IntegerVesselNet(nn.Module):
    """`VesselNet` in integers, with the layers of `plain` if that is given; every feature map is made of bytes."""

    def __init__(self, widths: Widths = WIDTHS, plain: VesselNet | None = None) -> None:
        super().__init__()
        plain = VesselNet(widths) if plain is None else plain
        self.views = Bytes()
        made = Bytes()
        self.stem = IntegerConv(plain.stem, self.views, made)
        self.down, self.encoders = nn.ModuleList(), nn.ModuleList()
        for halving, block in zip(plain.down, plain.encoders, strict=True):
            self.down.append(IntegerConv(halving, made, halved := Bytes()))
            self.encoders.append(encoder := IntegerBlock(block, halved))
            made = encoder.total
        self.up, self.joins, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        coarsest_first = (*reversed(plain.decoders), plain.refine)
        for doubling, block in zip(reversed(plain.up), coarsest_first, strict=True):
            self.up.append(IntegerConv(doubling, made, None))
            self.joins.append(joined := Bytes())
            self.decoders.append(decoder := IntegerBlock(block, joined))
            made = decoder.total
        self.head = IntegerConv(plain.head, made, None)

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of background and vessel (N, 2, X, Y, Z)."""
        picture = torch.round(picture * LIGHT_LEVELS) / LIGHT_LEVELS
        maps = [self.stem(fold(self.views(picture_views(picture)), CELL))]
        for halving, block in zip(self.down, self.encoders, strict=True):
            maps.append(block(halving(maps[-1])))
        x = maps.pop()
        for doubling, join, block in zip(self.up, self.joins, self.decoders, strict=True):
            x = block(join(maps.pop() + doubling(x)))
        return unfold(self.head(x), CELL)

    def convolutions(self) -> Iterator[IntegerConv]:
        """Return all convolutions."""
        return (module for module in self.modules() if isinstance(module, IntegerConv))

    def fit(self, pictures: Iterator[Tensor]) -> None:
        """Choose all steps: the weights' first, then those of the values between layers, on `pictures`."""
        for convolution in self.convolutions():
            convolution.fit()
        between = [module for module in self.modules() if isinstance(module, Bytes)]
        for bytes_ in between:
            bytes_.seen = []
        with torch.inference_mode():
            for picture in pictures:
                self(picture)
        for bytes_ in between:
            bytes_.fit()


def quantise(plan: QuantisingPlan, training: TrainingPlan, folder: Path, workers: int = 2, threads: int = 1) -> Path:
    """Fine-tune the weights of a finished training in integers; return the file of the rounded weights and steps."""
    torch.set_num_threads(threads)
    network = IntegerVesselNet(plain=load_network(folder / "model.pt"))
    pool = VolumePool(folder / "pool", plan.volumes, training.volume_shape, training.seed, workers)
    try:
        network.fit(_batch(plan, training, pool, -1 - number)[0] for number in range(plan.calibration))
        _fine_tune(network, plan, training, pool)
    finally:
        pool.close()
    for convolution in network.convolutions():
        convolution.round()
    weights = folder / "int8.pt"
    torch.save(network.state_dict(), weights)
    return weights


def _fine_tune(network: IntegerVesselNet, plan: QuantisingPlan, training: TrainingPlan, pool: VolumePool) -> None:
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters())
    smooth = 0.0
    with progress_bar() as progress, ThreadPoolExecutor(1) as loader:
        bar = progress.add_task("quantise", total=plan.steps, note="")
        upcoming = loader.submit(_batch, plan, training, pool, 0)
        for step in range(plan.steps):
            pictures, targets = upcoming.result()
            upcoming = loader.submit(_batch, plan, training, pool, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * schedule(step, plan.steps, plan.warmup_steps)
            loss = vessel_loss(network(pictures), targets)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            for convolution in network.convolutions():
                convolution.limit()
            smooth = 0.98 * smooth + 0.02 * loss.item() if step else loss.item()
            progress.update(bar, advance=1, note=f"loss {smooth:.3f}")


def _batch(plan: QuantisingPlan, training: TrainingPlan, pool: VolumePool, step: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([training.seed, 8, step + plan.calibration])
    return draw_batch(pool, plan.volumes, training.patch, training.batch, rng)
