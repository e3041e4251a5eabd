"""Training from a seed, resumable, with a progress bar and a log."""

from __future__ import annotations

import copy
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from .losses import vessel_loss
from .model import WIDTHS, VesselNet, Widths
from .pool import Shape, VolumePool, draw_batch


@dataclass(frozen=True)
class TrainingPlan:
    """Every parameter that the weights depend on; shapes in voxels (x, y, z).

    Training begins with the first `head_start` volumes, and another is added at every fourth step. A run is therefore
    independent of the speed of generation and of interruptions.
    """

    seed: int = 1
    volumes: int = 1500
    head_start: int = 120
    volume_shape: Shape = (256, 256, 16)
    patch: Shape = (192, 192, 16)
    batch: int = 1
    steps: int = 12000
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    ema_decay: float = 0.999
    widths: Widths = WIDTHS
    checkpoint_steps: int = 500


SMOKE = TrainingPlan(
    volumes=4,
    head_start=2,
    volume_shape=(96, 96, 8),
    patch=(64, 64, 8),
    batch=1,
    steps=12,
    warmup_steps=3,
    widths=(8, 8, 16, 16),
    checkpoint_steps=6,
)


@dataclass
class TrainingState:
    """Content of a checkpoint."""

    step: int
    network: VesselNet
    average: VesselNet
    optimiser: torch.optim.Optimizer


def train(plan: TrainingPlan, folder: Path, workers: int = 2, threads: int = 1) -> Path:
    """Train to the end of `plan`, resuming from `folder`; return the file of averaged, folded weights in 16 bits."""
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=2))
    state = _start(plan, folder / "checkpoint.pt")
    pool = VolumePool(folder / "pool", plan.volumes, plan.volume_shape, plan.seed, workers)
    try:
        with progress_bar() as progress:
            _run(plan, state, pool, folder, progress)
    finally:
        pool.close()
    weights = folder / "model.pt"
    torch.save(state.average.folded().half().state_dict(), weights)
    return weights


def progress_bar() -> Progress:
    """Return a bar on stderr with the task's `note`."""
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _start(plan: TrainingPlan, checkpoint: Path) -> TrainingState:
    torch.manual_seed(plan.seed)
    network = VesselNet(plan.widths, standardised=True)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a third faster
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    state = TrainingState(0, network, copy.deepcopy(network).eval(), optimiser)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        state.step = int(saved["step"])
    return state


def _run(plan: TrainingPlan, state: TrainingState, pool: VolumePool, folder: Path, progress: Progress) -> None:
    bar = progress.add_task("train", total=plan.steps, completed=state.step, note="")
    smooth, began_s = math.nan, time.monotonic()
    with (folder / "log.csv").open("a") as log, ThreadPoolExecutor(1) as loader:
        upcoming = loader.submit(_batch, plan, pool, state.step)
        while state.step < plan.steps:
            batch = upcoming.result()
            upcoming = loader.submit(_batch, plan, pool, state.step + 1)
            loss = _step(plan, state, *batch)
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            progress.update(bar, completed=state.step, note=f"loss {smooth:.3f}, {pool.ready()} volumes")
            if state.step % plan.checkpoint_steps == 0 or state.step == plan.steps:
                log.write(f"{state.step},{smooth:.5f},{time.monotonic() - began_s:.1f}\n")
                log.flush()
                _save(state, folder / "checkpoint.pt")
                torch.save(state.average.state_dict(), folder / f"average_{state.step:06d}.pt")


def _batch(plan: TrainingPlan, pool: VolumePool, step: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([plan.seed, 7, step])
    return draw_batch(pool, min(plan.volumes, plan.head_start + step // 4), plan.patch, plan.batch, rng)


def _step(plan: TrainingPlan, state: TrainingState, pictures: Tensor, targets: Tensor) -> float:
    for group in state.optimiser.param_groups:
        group["lr"] = plan.learning_rate * schedule(state.step, plan.steps, plan.warmup_steps)
    with torch.autocast("cpu", torch.bfloat16):
        logits = state.network(pictures)
    loss = vessel_loss(logits, targets)
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimiser.step()
    state.step += 1
    decay = min(plan.ema_decay, state.step / (state.step + 10.0))
    with torch.no_grad():
        for average, current in zip(state.average.parameters(), state.network.parameters(), strict=True):
            average.lerp_(current, 1.0 - decay)
    return loss.item()


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine to 1 %."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    along = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along))


def _save(state: TrainingState, checkpoint: Path) -> None:
    saved = {
        "step": state.step,
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
    }
    unfinished = checkpoint.with_suffix(".tmp")
    torch.save(saved, unfinished)
    unfinished.rename(checkpoint)


def resized(plan: TrainingPlan, steps: int | None, volumes: int | None, seed: int | None) -> TrainingPlan:
    """Return `plan` with the command line's overrides."""
    changed = {"steps": steps, "volumes": volumes, "seed": seed}
    return replace(plan, **{name: value for name, value in changed.items() if value is not None})  # type: ignore[arg-type]
