"""Segmenting from Python: ``voxport.segment`` for files, ``voxport.load`` for a model that stays loaded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter, ValidationError

from ..application import Application
from ..contract.reading import expected_and_got
from ..domain.errors import UsageError
from ..domain.run import Outputs, RunOptions
from ..domain.volume import Volume
from ..ports.model import Model
from ..ports.progress import ProgressListener
from ..services.models.loading import AUTO, LoadedModel
from ..services.segmentation.predict import Prediction, array_volume
from ..services.segmentation.segment import Segmentation
from .cli.console import progress_bar

File = str | os.PathLike[str]


def segment(
    inputs: File | Sequence[File],
    mask: File,
    *,
    model: File | None = None,
    card: File | None = None,
    runtime: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    probabilities: File | None = None,
    statistics: File | None = None,
    preview: File | None = None,
    label_table: File | None = None,
    report: File | None = None,
    uncertainty: File | None = None,
    progress: bool | ProgressListener = False,
    application: Application | None = None,
    **options: Any,
) -> Segmentation:
    """Segment a case and write its mask, as the command ``voxport segment`` does.

    Args:
        inputs: the volume, or one volume a channel.
        mask: the mask, on the grid of the first volume.
        model: a model file or the name of a model; the bundled model by default.
        card: a model card (YAML) for a model that has none, or in its place.
        runtime: ``auto``, ``onnx``, ``openvino`` or ``torch``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``int8``.
        threads: processors to use; all by default.
        probabilities: file for the class probabilities.
        statistics: file for the statistics of each label, ``.json`` or ``.csv``.
        preview: file for a picture of the result, ``.png``.
        label_table: file for value, name and colour of each label: ``.tsv`` (BIDS), ``.txt`` or ``.label`` (ITK-SNAP).
        report: file for the provenance of the run, ``.json``.
        uncertainty: file for entropy, margin and disagreement in per cent; the run says where to look first.
        progress: show a bar on stderr, or report to this listener.
        application: the adapters to use; those of the environment by default.
        options: the fields of ``RunOptions``, such as ``overlap`` and ``patch``.

    Returns:
        The run: statistics of each label, warnings, plan and times.

    Raises:
        VoxportError: see its subclasses.
    """
    names = [os.fspath(name) for name in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    outputs = Outputs(
        os.fspath(mask), *map(_name, (probabilities, statistics, preview, report, label_table, uncertainty))
    )
    wanted = _options(options)
    how: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads}
    how["card"] = None if card is None else Path(card)
    with _listener(progress) as listener:
        used = application or Application.build()
        used.check_outputs(names, outputs, kept=[how["card"]] if card is not None else [])
        with used.loaded_segmenter(_name(model), **how) as segmenter:
            done, provenance = segmenter.run(names, outputs, wanted, listener)
        used.write_report(outputs, provenance)
    return done


def load(
    model: File | None = None,
    *,
    card: File | None = None,
    runtime: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    application: Application | None = None,
) -> Predictor:
    """Load a model to segment many cases with. The arguments are those of ``segment``.

    Raises:
        ModelError: no such model, or a file that the runtime cannot load.
        UsageError: no such runtime or precision on this machine.
    """
    used = application or Application.build()
    found = used.find_model(_name(model), None if card is None else Path(card))
    return Predictor(used, used.load_model(found, runtime=runtime, precision=precision, threads=threads))


class Predictor:
    """A loaded model; call it with a case. Safe for several threads.

    A context manager that releases the network at its end; so does ``close``, and the garbage collector.
    """

    def __init__(self, application: Application, loaded: LoadedModel) -> None:
        self._application, self._loaded = application, loaded
        self._close = weakref.finalize(self, loaded.runtime.close)

    @property
    def model(self) -> Model:
        """The model, with its card."""
        return self._loaded.model

    def __call__(
        self,
        *case: File | ArrayLike | Any,
        spacing: Sequence[float] | None = None,
        unit: str | None = None,
        affine: ArrayLike | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
        progress: bool | ProgressListener = False,
        **options: Any,
    ) -> Prediction:
        """Segment a case; nothing is written.

        Args:
            case: one volume with all channels, or one volume a channel, each a file name, a NIfTI image of nibabel, or
                an array ``(x, y, z)`` or ``(channel, x, y, z)``.
            spacing: of an array's voxels along its axes, which run to the right, anterior and superior; of a file that
                does not state it.
            unit: of ``spacing`` and ``affine``: ``mm``, ``um`` or ``unknown``.
            affine: an array's ``(4, 4)`` matrix from voxel index to RAS+ world, in place of ``spacing``.
            probabilities: return the class probabilities too.
            uncertainty: return entropy, margin and disagreement too, and where to look first.
            progress: show a bar on stderr, or report to this listener.
            options: the fields of ``RunOptions``, such as ``overlap`` and ``patch``.

        Raises:
            VoxportError: see its subclasses.
        """
        if not self._close.alive:
            raise UsageError("model", expected="a loaded one", got="one that is closed", do="load it again")
        place = {"spacing": spacing, "unit": unit, "affine": affine}
        volumes = [self._volume(given, place) for given in case]
        if any(isinstance(volume, str) for volume in volumes):
            options |= {name: place[name] for name in ("spacing", "unit") if place[name] is not None}
        if all(isinstance(volume, str) for volume in volumes):
            _check_absent({"affine": affine})
        wanted = _options(options)
        with _listener(progress) as listener:
            more = {"probabilities": probabilities, "uncertainty": uncertainty}
            return self._application.predict_case(volumes, self._loaded, wanted, listener, **more)

    def _volume(self, given: Any, place: dict[str, Any]) -> str | Volume:
        """A file's name, or the volume of an image or an array."""
        if isinstance(given, str | os.PathLike):
            return os.fspath(given)
        if hasattr(given, "dataobj"):
            _check_absent(place)
            return self._application.image_volume(given)
        if (place["spacing"] is None) == (place["affine"] is None):
            got = "neither" if place["affine"] is None else "both"
            raise UsageError("spacing", expected="the array's spacing or its affine", got=got, do="give one of them")
        if place["unit"] is None:
            do = "say mm or um, or unknown for a model without a spacing of its own"
            raise UsageError("unit", expected="the unit of the array's spacing", got="none", do=do)
        affine = None if place["affine"] is None else np.asarray(place["affine"], np.float64)
        return array_volume(np.asarray(given), unit=place["unit"], spacing=place["spacing"], affine=affine)

    def close(self) -> None:
        """Release the network. Closing twice does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(file: File | None) -> str | None:
    return None if file is None else os.fspath(file)


def _check_absent(place: dict[str, Any]) -> None:
    for name, value in place.items():
        if value is not None:
            expected = f"no {name} beside a volume that states it"
            raise UsageError(name, expected=expected, got=str(value), do="leave it out")


def _options(given: dict[str, Any]) -> RunOptions:
    """Options from keywords. UsageError names every keyword that is unknown or has a wrong value."""
    known = list(RunOptions.__dataclass_fields__)
    unknown = [name for name in given if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        do = f"write {near[0]}" if near else "leave it out"
        raise UsageError(", ".join(unknown), expected=f"options among {', '.join(known)}", got="none of them", do=do)
    try:
        return TypeAdapter(RunOptions).validate_python(given)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): expected_and_got(problem) for problem in error.errors()}
        expected = "; ".join(f"{name}: {words}" for name, (words, _) in wrong.items())
        got = "; ".join(f"{name}={given[name]!r}" for name in wrong)
        raise UsageError(", ".join(wrong), expected=expected, got=got, do="correct it") from None


def _listener(progress: bool | ProgressListener) -> AbstractContextManager[ProgressListener]:
    if isinstance(progress, bool):
        return progress_bar(not progress, anywhere=True)
    return nullcontext(progress)
