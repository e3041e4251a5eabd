"""Certified runtimes are chosen by themselves, others only by name and with a warning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from voxport.adapters.models.folder import ModelDirectory
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.tunings.folder import TuningDirectory
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.parity import Agreement, Bounds, Certificate, Parity, RuntimeParity
from voxport.domain.tuning import Candidate, Choice, Machine, Tuning
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from voxport.services.models.loading import ModelOpener, RuntimeChoice, Tunings, model_key, runtime_choices
from voxport.testing.fakes import FakeRuntime
from voxport.testing.models import write_bare_affine
from voxport.testing.tunings import MACHINE

from tests.services.conftest import Score, brighter_than, make_card

HOLDS = Parity(1.0, (1.0,), 1e-6)


def open_fake(model: Model, options: RuntimeOptions) -> InferenceRuntime:
    del model, options
    return FakeRuntime(brighter_than(0.5))


ALL: Mapping[str, RuntimeOpener] = {"onnx": open_fake, "openvino": open_fake, "torch": open_fake}


def model(
    certified: Sequence[tuple[str, str]] | None = None,
    file_format: Literal["onnx", "checkpoint"] = "onnx",
    parity: Parity = HOLDS,
) -> Model:
    card = make_card()
    if certified is not None:
        entries = tuple(RuntimeParity(runtime, precision, "1", parity) for runtime, precision in certified)
        card = card.with_parity(Certificate("b" * 64, "2026-01-01", (), entries))
    return Model(Path("net.onnx"), card, "a" * 64, "b" * 64, file_format)


def first(*given: Any, **named: Any) -> RuntimeChoice:
    return runtime_choices(*given, **named)[0]


def way(choice: RuntimeChoice) -> tuple[object, ...]:
    return choice.runtime, choice.precision, choice.warning, choice.tuned


def test_auto_takes_the_certified_runtime_without_a_warning() -> None:
    assert way(first(model([("onnx", "fp32")]), ALL)) == ("onnx", "fp32", None, None)
    assert way(first(model([("openvino", "fp32")]), ALL)) == ("openvino", "fp32", None, None)


def test_auto_takes_the_fastest_of_those_that_the_certificate_covers() -> None:
    known = model([("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")])
    ways = [(c.runtime, c.precision) for c in runtime_choices(known, ALL)]
    assert ways == [("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "fp32")]
    assert [(c.runtime, c.precision) for c in runtime_choices(known, ALL, precision="fp32")] == ways[1:]
    assert {c.reason for c in runtime_choices(known, ALL)} == {"the fastest of those that the certificate covers"}
    assert all(c.warning is None for c in runtime_choices(known, ALL))


@pytest.mark.requirement("R-CERTIFIED")
def test_auto_refuses_a_model_whose_certificate_covers_no_runtime_here() -> None:
    for certified in ([("openvino", "fp32")], [("onnx", "bf16")], []):
        with pytest.raises(UsageError, match=r"expected a certified runtime for affine:1\.0\.0, got none among onnx"):
            first(model(certified), {"onnx": open_fake, "torch": open_fake})


def test_an_entry_that_does_not_hold_certifies_nothing() -> None:
    with pytest.raises(UsageError):
        first(model([("onnx", "fp32")], parity=Parity(0.9, (0.9,), 0.1)), ALL)


def test_a_model_without_a_certificate_runs_with_a_warning() -> None:
    choice = first(model(), ALL)
    assert (choice.runtime, choice.precision) == ("onnx", "fp32")
    assert choice.warning is not None
    assert "no parity certificate" in choice.warning


@pytest.mark.requirement("R-CERTIFIED")
def test_an_uncertified_runtime_or_precision_runs_by_name_with_a_warning_that_says_what_is_certified() -> None:
    certified = model([("onnx", "fp32")])
    for runtime, precision in (("openvino", "auto"), ("onnx", "int8"), ("auto", "bf16")):
        choice = first(certified, ALL, runtime, precision)
        assert choice.warning is not None
        assert "(certified: onnx fp32)" in choice.warning
        assert choice.precision == ("fp32" if precision == "auto" else precision)
    (nothing,) = (first(model([]), ALL, "onnx").warning,)
    assert nothing is not None
    assert "(certified: nothing)" in nothing


def test_a_certified_precision_by_name_gives_no_warning() -> None:
    assert first(model([("onnx", "fp32"), ("onnx", "bf16")]), ALL, precision="bf16").warning is None


@pytest.mark.parametrize("certified", [None, [("onnx", "fp32")]])
def test_a_checkpoint_is_the_source_itself_and_needs_no_certificate(certified: list[tuple[str, str]] | None) -> None:
    assert way(first(model(certified, "checkpoint"), ALL)) == ("torch", "fp32", None, None)


def test_an_unknown_runtime_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="auto or one of onnx, openvino, torch, got tensorflow"):
        first(model(), ALL, "tensorflow")


def test_a_runtime_for_another_format_is_a_usage_error_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"a runtime for net.onnx: onnx, openvino, got torch; give it a checkpoint"):
        first(model(), ALL, "torch")
    with pytest.raises(UsageError, match="got onnx; export the checkpoint"):
        first(model(file_format="checkpoint"), ALL, "onnx")


def test_a_format_that_nothing_here_can_load_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="got torch"):
        first(model(file_format="checkpoint"), {"onnx": open_fake})
    with pytest.raises(UsageError, match="none is installed"):
        first(model(file_format="checkpoint"), {"onnx": open_fake}, "onnx")


def test_an_opener_finds_a_file_and_loads_it_with_what_was_asked_for(tmp_path: Path) -> None:
    asked: list[tuple[Model, RuntimeOptions]] = []

    def remember(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        asked.append((model, options))
        return FakeRuntime(brighter_than(0.5))

    files, path = OnnxModelFiles(), tmp_path / "model.onnx"
    write_bare_affine(path)
    files.write(path, replace(make_card(), name="vessels"), path)
    opener = ModelOpener(files, ModelDirectory(tmp_path, files), {"onnx": remember}, "vessels")
    found = opener.find(str(path))
    assert found == opener.find("vessels") == opener.find(None)
    loaded = opener.load(found, precision="bf16", threads=3)
    assert asked == [(found, RuntimeOptions("bf16", 3))]
    assert loaded.model == found
    assert loaded.warning is not None


# What was measured on this machine


def tuned_as(model: Model, *ways: tuple[Choice, Agreement | None], machine: Machine = MACHINE) -> Tuning:
    """A tuning that kept the last of these ways."""
    candidates = tuple(Candidate(choice, 1.0 / n, found) for n, (choice, found) in enumerate(ways, 1))
    return Tuning(model_key(model), "affine:1.0.0", machine, "2026-01-01", "scan", candidates, ways[-1][0])


SAME_LABELS, FAR = Agreement(1.0, (1.0,)), Agreement(0.9, (0.9,))
FP32 = Choice("onnx", "fp32", 2, (8, 8, 8))
BF16 = Choice("openvino", "bf16", 2, (16, 8, 8), 2)
INT8 = Choice("openvino", "int8", 1, (8, 8, 8))


def test_auto_takes_what_was_tuned_certified_or_not_and_without_a_warning() -> None:
    known = model([("onnx", "fp32")])
    tuning = tuned_as(known, (FP32, SAME_LABELS), (BF16, SAME_LABELS))
    assert way(first(known, ALL, tuning=tuning)) == ("openvino", "bf16", None, BF16)


def test_a_tuning_proves_nothing_about_the_file_itself() -> None:
    tuning = tuned_as(model(), (FP32, SAME_LABELS), (BF16, SAME_LABELS))
    choice = first(model(), ALL, tuning=tuning)
    assert choice.tuned == BF16
    assert "no parity certificate" in (choice.warning or "")


def test_auto_runs_untuned_where_what_was_kept_no_longer_keeps_to_the_bounds_or_is_not_here() -> None:
    known = model([("onnx", "fp32")])
    tuning = tuned_as(known, (FP32, SAME_LABELS), (BF16, Agreement(0.9995, (0.9995,))))
    assert first(known, ALL, tuning=tuning).tuned == BF16
    for openers, bounds in ((ALL, Bounds(dice=0.9999)), ({"onnx": open_fake}, Bounds())):
        assert way(first(known, openers, tuning=tuning, bounds=bounds)) == ("onnx", "fp32", None, None)


def test_a_runtime_by_name_is_not_tuned_but_what_was_measured_of_it_needs_no_warning() -> None:
    known = model([("onnx", "fp32")])
    tuning = tuned_as(known, (FP32, SAME_LABELS), (INT8, FAR), (BF16, SAME_LABELS))
    assert way(first(known, ALL, "openvino", "bf16", tuning=tuning)) == ("openvino", "bf16", None, None)
    assert "not certified" in (first(known, ALL, "openvino", "int8", tuning=tuning).warning or "")
    assert way(first(known, ALL, "onnx", tuning=tuning)) == ("onnx", "fp32", None, None)


def test_a_precision_by_name_takes_the_fastest_way_that_was_measured_in_it() -> None:
    known = model([("onnx", "fp32")])
    quick = replace(FP32, runtime="openvino")
    tuning = tuned_as(known, (FP32, SAME_LABELS), (quick, SAME_LABELS), (BF16, SAME_LABELS))
    assert first(known, ALL, precision="fp32", tuning=tuning).tuned == quick
    assert first(known, ALL, precision="int8", tuning=tuning).tuned is None


class Tuned:
    """An opener over a folder of tunings, which remembers what it opened."""

    def __init__(self, folder: Path, bounds: Bounds | None = None) -> None:
        self.asked: list[tuple[Model, RuntimeOptions]] = []
        self.store = TuningDirectory(folder)
        self.tunings = Tunings(self.store, MACHINE, bounds or Bounds())
        files = OnnxModelFiles()
        openers = {"onnx": self.remember, "openvino": self.remember}
        self.opener = ModelOpener(files, ModelDirectory(folder, files), openers, "vessels", self.tunings)

    def remember(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:
        self.asked.append((model, options))
        return FakeRuntime(brighter_than(0.5))


def test_a_tuned_model_is_loaded_with_its_threads_unless_others_are_asked_for(tmp_path: Path) -> None:
    tuned, known = Tuned(tmp_path), model([("onnx", "fp32")])
    tuned.store.put(tuned_as(known, (FP32, SAME_LABELS), (BF16, SAME_LABELS)))
    loaded = tuned.opener.load(known)
    tuned.opener.load(known, threads=5)
    assert [options for _, options in tuned.asked] == [RuntimeOptions("bf16", 2), RuntimeOptions("bf16", 5)]
    assert (loaded.tuned, loaded.warning) == (BF16, None)
    assert tuned.opener.load(known, "onnx").tuned is None


def test_a_tuning_is_of_weights_and_of_what_the_card_says_of_input_tiles_and_output() -> None:
    known = model([("onnx", "fp32")])
    same = [model(), replace(known, path=Path("elsewhere.onnx"), sha256="c" * 64)]
    same.append(replace(known, card=replace(known.card, description="other words", version="9.9.9")))
    assert {model_key(other) for other in same} == {model_key(known)}
    others = [
        replace(known, weights_sha256="c" * 64),
        replace(known, card=replace(known.card, tiling=replace(known.card.tiling, overlap=0.25))),
        replace(known, card=replace(known.card, input=replace(known.card.input, orientation=None))),
        replace(known, card=replace(known.card, output=known.card.output.with_threshold(0.25))),
    ]
    assert len({model_key(other) for other in (known, *others)}) == 5


def test_a_tuning_of_another_machine_or_other_bounds_is_told_and_not_taken(tmp_path: Path) -> None:
    known = model([("onnx", "fp32")])
    elsewhere, strict = Tuned(tmp_path / "a"), Tuned(tmp_path / "b", Bounds(dice=0.9999))
    ways = (FP32, SAME_LABELS), (BF16, Agreement(0.9995, (0.9995,)))
    elsewhere.store.put(tuned_as(known, *ways, machine=replace(MACHINE, processor="another")))
    strict.store.put(tuned_as(known, *ways))
    for tuned, said in ((elsewhere, "another machine"), (strict, "bounds")):
        loaded = tuned.opener.load(known)
        assert loaded.tuned is None
        assert said in (loaded.warning or "")
        assert tuned.asked[-1] == (known, RuntimeOptions("fp32", None))
        assert tuned.opener.load(known, "onnx").warning is None


def test_int8_is_scored_with_the_quantised_network_that_was_kept(tmp_path: Path) -> None:
    tuned, known = Tuned(tmp_path), model([("onnx", "fp32")])
    (tmp_path / "made.onnx").write_bytes(b"int8")
    digest = hashlib.sha256(b"int8").hexdigest()
    kept = replace(tuned_as(known, (FP32, SAME_LABELS), (INT8, SAME_LABELS)), quantised_sha256=digest)
    tuned.store.put(kept, tmp_path / "made.onnx")
    for loaded in (tuned.opener.load(known), tuned.opener.load(known, "openvino", "int8")):
        assert loaded.model == known
        assert loaded.quantised_sha256 == digest
    assert {inferred.path.read_bytes() for inferred, _ in tuned.asked} == {b"int8"}
    assert tuned.opener.load(known, "onnx").quantised_sha256 is None


def test_int8_without_a_quantised_network_is_a_usage_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    tuned, known = Tuned(tmp_path), model([("onnx", "fp32")])
    for _ in range(2):
        with pytest.raises(UsageError, match="voxport tune"):
            tuned.opener.load(known, precision="int8")
        tuned.store.put(tuned_as(known, (FP32, SAME_LABELS)))


# What is compared when a model is first loaded on a machine


class Compared(Tuned):
    """A tuned opener whose runtimes are told apart; ``other`` is what openvino infers."""

    def __init__(self, folder: Path, other: Score | None = None, error: Exception | None = None) -> None:
        super().__init__(folder)
        self.other, self.error = other or brighter_than(0.5), error
        self.opener = ModelOpener(
            OnnxModelFiles(),
            ModelDirectory(folder, OnnxModelFiles()),
            {"onnx": self.onnx, "openvino": self.openvino},
            "vessels",
            self.tunings,
        )
        self.opened: list[str] = []

    def onnx(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:  # noqa: ARG002 - the port's signature
        self.opened.append("onnx")
        return FakeRuntime(brighter_than(0.5))

    def openvino(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:  # noqa: ARG002
        if self.error is not None:
            raise self.error
        self.opened.append("openvino")
        runtime = FakeRuntime(self.other)
        runtime.name = "openvino"
        return runtime


@pytest.mark.parametrize("certified", [[("onnx", "fp32")], None])
def test_a_runtime_that_gives_the_same_is_compared_once_and_used_from_then_on(
    tmp_path: Path, certified: list[tuple[str, str]] | None
) -> None:
    bench, known = Compared(tmp_path), model(certified)
    first_time = bench.opener.load(known)
    assert bench.opened == ["openvino", "onnx", "openvino"]
    again = Compared(tmp_path)
    assert again.opener.load(known).reason == first_time.reason
    assert again.opened == ["openvino"]
    assert "on this machine" in first_time.reason
    assert (first_time.warning is None) == (certified is not None)


@pytest.mark.parametrize("other", [brighter_than(0.4), lambda batch: np.full_like(brighter_than(0.5)(batch), np.nan)])
def test_a_runtime_that_gives_something_else_is_compared_once_and_never_used(tmp_path: Path, other: Score) -> None:
    for opened in (["openvino", "onnx", "onnx"], ["onnx"]):
        bench = Compared(tmp_path, other)
        bench.opener.load(model([("onnx", "fp32")]))
        assert bench.opened == opened


@pytest.mark.parametrize(
    "error",
    [
        UsageError("runtime openvino", expected="the package openvino", got="none", do="install it"),
        ModelError("net.onnx", expected="a model that OpenVINO can load", got="an operator", do="export it again"),
    ],
)
def test_a_runtime_that_cannot_open_the_file_is_passed_over(tmp_path: Path, error: Exception) -> None:
    bench = Compared(tmp_path, error=error)
    assert bench.opener.load(model([("onnx", "fp32")])).reason == "the fastest of those that the certificate covers"
    assert bench.opened == ["onnx"]


def test_a_certified_runtime_that_is_not_installed_gives_way_to_the_next(tmp_path: Path) -> None:
    bench = Compared(tmp_path, error=UsageError("runtime", expected="a", got="b", do="c"))
    bench.opener.load(model([("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "fp32")]))
    assert bench.opened == ["onnx"]


@pytest.mark.parametrize("certified", [[("openvino", "fp32")], [("onnx", "fp32"), ("openvino", "fp32")]])
def test_what_the_certificate_speaks_of_is_not_compared(tmp_path: Path, certified: list[tuple[str, str]]) -> None:
    bench = Compared(tmp_path)
    bench.opener.load(model(certified))
    assert bench.opened == ["openvino"]


def test_where_a_comparison_cannot_be_kept_it_is_made_again(tmp_path: Path) -> None:
    (tmp_path / model_key(model([("onnx", "fp32")]))).write_text("a file in the folder's place", encoding="utf-8")
    for _ in range(2):
        bench = Compared(tmp_path)
        bench.opener.load(model([("onnx", "fp32")]))
        assert bench.opened == ["openvino", "onnx", "openvino"]
