"""Measure configurations on this machine, and keep the fastest whose labels agree with fp32.

The search is greedy: every runtime and precision with the card's patch, then other patches, threads and batches for the
fastest that holds.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from ...domain.errors import LimitError, ModelError, UsageError
from ...domain.geometry.grid import Shape3, shape3
from ...domain.inference.patches import TilePlan, Tiling
from ...domain.labels.label_map import Labels
from ...domain.parity import FULL_PRECISION, compare_labels
from ...domain.run import Outputs, RunOptions
from ...domain.tuning import Candidate, Choice, Tuning
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.quantiser import Quantiser
from ...ports.runtime import InferenceRuntime, NetworkShape, RuntimeOpener, RuntimeOptions
from ...ports.volume_store import ArrayStore
from ..segmentation.segment import Segmentation, SegmentPorts, segment
from .calibration import Recorder, put_noise, put_volumes
from .loading import CERTIFIABLE, QUANTISED, LoadedModel, Tunings, model_key, open_first, runtime_choices

# Runtimes that compute a quantised network in int8; others are slower than fp32.
_QUANTISED_RUNTIMES = ("openvino",)
_MASK = "mask"
# Runs of a candidate; the fastest counts, because other load only adds time.
_RUNS, _LONG_SECONDS = 3, 5.0
# Candidates within a tenth of the fastest are measured again, in turns, so that load on the machine slows all.
_NEAR, _TURNS = 1.1, 5
_MOST_TILE_GROWTH = 4
_LARGEST_BATCHED_TILE = 2**20
# With fewer labelled voxels, label agreement is not conclusive.
_LEAST_LABELLED = 100
# Shares of multiplications that are not quantised, in the most harmful convolutions, tried until labels agree. The
# first and the last convolution are 1 % of most networks, and no faster in int8.
_SPARED = (0.01, 0.05, 0.125, 0.25, 0.5)


@dataclass(frozen=True)
class TunePorts:
    """Ports of `tune`: runtimes by name, a store in memory, tunings, quantiser, and a clock."""

    openers: Mapping[str, RuntimeOpener]
    segment: SegmentPorts
    new_store: Callable[[], ArrayStore]
    tunings: Tunings
    quantiser: Quantiser
    seconds_of: Callable[[Segmentation], float] = lambda done: sum(done.seconds.values())


def tune(
    model: Model,
    volumes: Sequence[str],
    progress: ProgressListener,
    options: RunOptions,
    *,
    ports: TunePorts,
) -> Tuning:
    """Measure, compare with fp32 and the card's patch, and store the fastest configuration within the bounds.

    ``volumes`` are the channels of a suitable case; if empty, smooth noise, which may prove nothing about labels.
    They are read as ``options`` state; its other fields do not count.

    Raises:
        UsageError: the model is a checkpoint.
        InputError: the volumes cannot be read or do not fit the card.
        ModelError: the model cannot be run.
        OutputError: the result cannot be stored.
    """
    if model.format != "onnx":
        do = "export it first with voxport export"
        raise UsageError("voxport tune", expected="an ONNX model", got=model.path.name, do=do)
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
        bench = _Bench(model, volumes, progress, options, ports, Path(folder) / "int8.onnx")
        bench.measure_reference()
        bench.measure_precisions()
        bench.measure_tiles()
        bench.measure_threads_and_batches()
        bench.measure_near_ones_longer()
        tuning = Tuning(
            model=model_key(model),
            name=model.card.reference,
            machine=ports.tunings.machine,
            date=datetime.now(UTC).date().isoformat(),
            volume=" + ".join(Path(v).name for v in volumes) or "smooth noise",
            candidates=tuple(bench.candidates),
            choice=bench.best.choice,
            quantised_sha256=bench.quantised_sha256,
        )
        ports.tunings.store.put(tuning, bench.quantised if bench.quantised_sha256 else None)
    return tuning


@dataclass
class _Bench:
    """A tuning in progress: calibration volume, reference labels, and candidates so far."""

    model: Model
    volumes: Sequence[str]
    progress: ProgressListener
    options: RunOptions
    ports: TunePorts
    quantised: Path
    candidates: list[Candidate] = field(default_factory=list)
    quantised_sha256: str | None = None

    def __post_init__(self) -> None:
        self.store, card = self.ports.new_store(), self.model.card
        self.inputs = (
            put_volumes(self.volumes, card, self.ports.segment.volumes, self.store, self.options.reading)
            if self.volumes
            else put_noise(card, self.store)
        )
        self.bounds = self.ports.tunings.bounds
        self.resources = self.ports.segment.resources
        self.resident = self.resources.resident_bytes()

    @property
    def best(self) -> Candidate:
        """The fastest candidate that holds, else the reference."""
        able = [c for c in self.candidates if c.holds(self.bounds)]
        return min(able, key=lambda c: c.seconds or math.inf) if able else self.candidates[0]

    def measure_reference(self) -> None:
        """Measure fp32 with the card's patch."""
        openers, threads = self.ports.openers, self.ports.tunings.machine.threads
        choices = runtime_choices(self.model, openers, bounds=self.bounds)
        full = [choice for choice in choices if choice.precision == FULL_PRECISION]
        chosen, opened = open_first(full or choices, openers, self.model, threads)
        recorder = Recorder(opened)
        self.network = recorder.input_shape
        reference = Choice(chosen.runtime, chosen.precision, threads, (0, 0, 0), self.network[0] or 1)
        self.labels, seconds, self.plan = self._run(recorder, reference, patch=None)
        self.patch = shape3(p or t for p, t in zip(self.model.card.tiling.patch, self.plan.tile, strict=True))
        self.calibration = recorder.inputs
        self.activation_bytes = max(self.resources.peak_resident_bytes() - self.resident, 0)
        labelled = int(np.count_nonzero(np.isin(self.labels, self.model.card.output.table.values)))
        self.proves = labelled >= _LEAST_LABELLED
        self.candidates.append(
            Candidate(
                replace(reference, patch=self.patch),
                seconds,
                compare_labels(self.labels, self.labels, self.model.card.output.table),
                note="the reference",
            )
        )

    def measure_precisions(self) -> None:
        """Measure each installed runtime and precision with the card's patch."""
        reference = self.candidates[0].choice
        names = [name for name in self.ports.openers if name != "torch"]
        for name in names:
            for precision in CERTIFIABLE:
                if (name, precision) != (reference.runtime, reference.precision):
                    self._try(replace(reference, runtime=name, precision=precision))
        for name in names:
            if name in _QUANTISED_RUNTIMES:
                self._try_quantised(replace(reference, runtime=name, precision=QUANTISED))

    def measure_tiles(self) -> None:
        """Measure larger patches for the fastest candidate; they overlap less."""
        best = self.best.choice
        free = self.resources.available_bytes() // 2
        tiling, shape = self.model.card.tiling, self.plan.shape
        for patch in larger_patches(tiling, self.patch, shape, self.network):
            growth = math.prod(map(min, patch, tiling.rounded(shape))) / math.prod(self.plan.tile)
            needed = self.activation_bytes * growth
            choice = replace(best, patch=patch)
            if needed > free:
                note = f"not tried: it would take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free for it"
                self.candidates.append(Candidate(choice, note=note))
            else:
                self._try(choice)

    def measure_threads_and_batches(self) -> None:
        """Measure half of the threads (for shared cores), and several small tiles a call."""
        threads = self.ports.tunings.machine.threads
        if threads >= 4:
            self._try(replace(self.best.choice, threads=threads // 2))
        best = self.best.choice
        if self.network[0] is None and math.prod(best.patch) * 2 <= _LARGEST_BATCHED_TILE:
            self._try(replace(best, batch=2))

    def measure_near_ones_longer(self) -> None:
        """Measure the fastest candidates again, in turns with the reference, and take the medians."""
        fastest = self.best.seconds or 0.0
        near = [
            number
            for number, found in enumerate(self.candidates)
            if number == 0 or (found.holds(self.bounds) and (found.seconds or math.inf) <= _NEAR * fastest)
        ]
        if len(near) < 2:
            return
        taken: dict[int, list[float]] = {number: [] for number in near}
        with ExitStack() as stack:
            runtimes = {n: stack.enter_context(closing(self._opened(self.candidates[n].choice))) for n in near}
            self.progress.stage(f"measure {len(near)} again, in turns")
            for turn in range(_TURNS + 1):
                for number, runtime in runtimes.items():
                    choice = self.candidates[number].choice
                    patch = choice.patch if number else None
                    seconds = self.ports.seconds_of(self._segmented(runtime, choice, patch))
                    if turn:  # the first turn warms up
                        taken[number].append(seconds)
        for number, times in taken.items():
            self.candidates[number] = replace(self.candidates[number], seconds=median(times))

    def _opened(self, choice: Choice) -> InferenceRuntime:
        model = self.model if choice.precision != QUANTISED else replace(self.model, path=self.quantised)
        return self.ports.openers[choice.runtime](model, RuntimeOptions(choice.precision, choice.threads))

    def _try(self, choice: Choice) -> Candidate | None:
        """Measure a configuration; None if it is not installed."""
        try:
            runtime = self._opened(choice)
        except UsageError:
            return None
        try:
            labels, seconds, _ = self._run(runtime, choice, choice.patch)
        except (LimitError, ModelError) as error:
            found = Candidate(choice, note=str(error))
        else:
            agreement = compare_labels(self.labels, labels, self.model.card.output.table)
            certificate = self.model.card.parity
            certified = certificate is not None and certificate.certifies(choice.runtime, choice.precision, self.bounds)
            proves = self.proves or (certified and choice.patch == self.patch)
            note = "" if proves else "the volume has too few labels to show anything"
            found = Candidate(choice, seconds, agreement, proves, note)
        self.candidates.append(found)
        return found

    def _try_quantised(self, choice: Choice) -> None:
        """Quantise fewer and fewer layers until labels agree; delete rejected files."""
        self.progress.stage("quantise")
        files = self.ports.quantiser.quantise(self.model, self.calibration, self.quantised, spared=_SPARED)
        try:
            for layers in files:
                found = self._try(choice)
                if found is None:
                    return
                self.candidates[-1] = found = replace(found, note=found.note or f"{layers} layers in int8")
                if found.holds(self.bounds):
                    self.quantised_sha256 = hashlib.sha256(self.quantised.read_bytes()).hexdigest()
                    return
        except ModelError as error:
            self.candidates.append(Candidate(choice, note=str(error)))

    def _run(self, runtime: InferenceRuntime, choice: Choice, patch: Shape3 | None) -> tuple[Labels, float, TilePlan]:
        """Return labels, the shortest duration of a few runs, and the tiles; closes the runtime."""
        taken: list[float] = []
        self.progress.stage(f"measure {choice}" if patch else "measure the reference")
        with closing(runtime):
            # The first run warms up; it counts only if it is long.
            while len(taken) <= _RUNS and sum(taken) < _LONG_SECONDS:
                done = self._segmented(runtime, choice, patch)
                taken.append(self.ports.seconds_of(done))
        return self.store.get(_MASK).array[0], min(taken[1:] or taken), done.prepared.plan

    def _segmented(self, runtime: InferenceRuntime, choice: Choice, patch: Shape3 | None) -> Segmentation:
        ports = replace(self.ports.segment, volumes=self.store, scratch=None)
        options = RunOptions(patch=patch, batch=choice.batch, nan_as=self.options.nan_as)
        loaded = LoadedModel(self.model, runtime)
        return segment(self.inputs, loaded, Outputs(_MASK), options, Quiet(self.progress), ports=ports)


class Quiet:
    """Discards progress, but lets a run be cancelled between tiles."""

    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress

    def stage(self, name: str, tiles: int = 0) -> None:
        """Ignored."""

    def advance(self, tiles: int) -> None:  # noqa: ARG002 - the port's signature
        """Check for cancellation."""
        self._progress.advance(0)


def larger_patches(tiling: Tiling, patch: Shape3, shape: Sequence[int], network: NetworkShape) -> Iterator[Shape3]:
    """Return patches doubled along one axis or two, at most four times as large, without equivalent ones.

    Axes that the card's tiling takes whole, and fixed sizes of the network, stay as they are. Edges beyond the volume's
    ``shape`` are cut to it.
    """
    most = tiling.rounded(shape)
    free = [
        axis
        for axis in range(3)
        if tiling.patch[axis] is not None and network[2:] == (None, None, None) and patch[axis] < most[axis]
    ]
    for axes in [(axis,) for axis in free] + [(a, b) for a in free for b in free if a < b]:
        longer = shape3(min(2 * e, most[a]) if a in axes else e for a, e in enumerate(patch))
        if math.prod(longer) <= _MOST_TILE_GROWTH * math.prod(patch):
            yield longer
