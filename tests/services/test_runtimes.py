"""Certified runtimes are chosen by themselves, others only by name and with a warning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from voxport.adapters.model_directory import ModelDirectory
from voxport.adapters.onnx_files import OnnxModelFiles
from voxport.domain.errors import UsageError
from voxport.domain.parity import Certificate, Parity, RuntimeParity
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from voxport.services.runtimes import ModelOpener, RuntimeChoice, choose_runtime
from voxport.testing.fakes import FakeRuntime
from voxport.testing.models import write_bare_affine

from .conftest import brighter_than, make_card

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


def test_auto_takes_the_certified_runtime_without_a_warning() -> None:
    assert choose_runtime(model([("onnx", "fp32")]), ALL) == RuntimeChoice("onnx", "fp32")
    assert choose_runtime(model([("openvino", "fp32")]), ALL) == RuntimeChoice("openvino", "fp32")


def test_auto_takes_the_formats_own_runtime_when_several_are_certified() -> None:
    assert choose_runtime(model([("openvino", "fp32"), ("onnx", "fp32")]), ALL).runtime == "onnx"


def test_auto_refuses_a_model_whose_certificate_covers_no_runtime_here() -> None:
    for certified in ([("openvino", "fp32")], [("onnx", "bf16")], []):
        with pytest.raises(UsageError, match=r"expected a certified runtime for affine:1\.0\.0, got none among onnx"):
            choose_runtime(model(certified), {"onnx": open_fake, "torch": open_fake})


def test_an_entry_that_does_not_hold_certifies_nothing() -> None:
    with pytest.raises(UsageError):
        choose_runtime(model([("onnx", "fp32")], parity=Parity(0.9, (0.9,), 0.1)), ALL)


def test_a_model_without_a_certificate_runs_with_a_warning() -> None:
    choice = choose_runtime(model(), ALL)
    assert (choice.runtime, choice.precision) == ("onnx", "fp32")
    assert choice.warning is not None
    assert "no parity certificate" in choice.warning


def test_an_uncertified_runtime_or_precision_runs_by_name_with_a_warning_that_says_what_is_certified() -> None:
    certified = model([("onnx", "fp32")])
    for runtime, precision in (("openvino", "auto"), ("onnx", "int8"), ("auto", "bf16")):
        choice = choose_runtime(certified, ALL, runtime, precision)
        assert choice.warning is not None
        assert "(certified: onnx fp32)" in choice.warning
        assert choice.precision == ("fp32" if precision == "auto" else precision)
    (nothing,) = (choose_runtime(model([]), ALL, "onnx").warning,)
    assert nothing is not None
    assert "(certified: nothing)" in nothing


def test_a_certified_precision_by_name_gives_no_warning() -> None:
    assert choose_runtime(model([("onnx", "fp32"), ("onnx", "bf16")]), ALL, precision="bf16").warning is None


@pytest.mark.parametrize("certified", [None, [("onnx", "fp32")]])
def test_a_checkpoint_is_the_source_itself_and_needs_no_certificate(certified: list[tuple[str, str]] | None) -> None:
    assert choose_runtime(model(certified, "checkpoint"), ALL) == RuntimeChoice("torch", "fp32")


def test_an_unknown_runtime_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="auto or one of onnx, openvino, torch, got tensorflow"):
        choose_runtime(model(), ALL, "tensorflow")


def test_a_runtime_for_another_format_is_a_usage_error_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"a runtime for net.onnx: onnx, openvino, got torch; give it a checkpoint"):
        choose_runtime(model(), ALL, "torch")
    with pytest.raises(UsageError, match="got onnx; export the checkpoint"):
        choose_runtime(model(file_format="checkpoint"), ALL, "onnx")


def test_a_format_that_nothing_here_can_load_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="got torch"):
        choose_runtime(model(file_format="checkpoint"), {"onnx": open_fake})
    with pytest.raises(UsageError, match="none is installed"):
        choose_runtime(model(file_format="checkpoint"), {"onnx": open_fake}, "onnx")


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
