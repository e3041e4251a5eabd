"""An exported file is proved before it appears, and does not appear if it does not hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import ModelError, OutputError
from voxport.domain.inference.patches import Tiling
from voxport.domain.parity import Certificate
from voxport.ports.exporter import Checkpoint, Exported
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.services.models.export import ExportPorts, ExportResult, export_model, slice_by_slice, with_network
from voxport.testing.affine import affine_card, write_affine_onnx
from voxport.testing.fakes import FakeRuntime
from voxport.testing.progress import RecordingProgress

WEIGHTS = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]], np.float32)
BIAS = np.array([0.125, -0.5, 0.25], np.float32)
NETWORK = {"_target_": "Affine", "size": 3}


def card() -> ModelCard:
    return affine_card(2, 3)


class AffineExporter:
    """Exports the affine network of two channels from any file that exists."""

    def export(self, checkpoint: Checkpoint, card: ModelCard, destination: Path) -> Exported:
        name, channels = checkpoint.path.name, len(card.input.channels)
        if not checkpoint.path.exists() or channels != 2:
            expected = f"a file with weights for the card's {channels} channels"
            raise ModelError(name, expected=expected, got="another", do="correct the card")
        write_affine_onnx(destination, WEIGHTS, BIAS)
        digest = hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
        return Exported(destination, True, {"source": {"file": name, "sha256": digest}})


class Exports:
    """Exports the affine network from a folder, with fakes that remember what they were given."""

    def __init__(self, folder: Path, lie: float = 0.0) -> None:
        self.folder = folder
        self.lie = lie
        self.progress = RecordingProgress()
        self.opened: list[tuple[Model, RuntimeOptions]] = []
        self.runtimes: list[FakeRuntime] = []
        (folder / "network.npz").write_bytes(b"a checkpoint")
        (folder / "out").mkdir()

    def open_source(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:
        return self._remembered(model, options, BIAS)

    def open_target(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:
        if not self.lie:
            return open_onnx_runtime(model, options, OnnxRuntimeSettings(threads=1))
        return self._remembered(model, options, BIAS + np.array([self.lie, 0, 0], np.float32))

    def _remembered(self, model: Model, options: RuntimeOptions, bias: Any) -> InferenceRuntime:
        self.opened.append((model, options))
        self.runtimes.append(FakeRuntime.affine(WEIGHTS, bias))
        return self.runtimes[-1]

    def run(
        self,
        given: ModelCard | None = None,
        name: str = "model.onnx",
        network: Mapping[str, Any] = NETWORK,
        checkpoint: str = "network.npz",
    ) -> ExportResult:
        ports = ExportPorts(AffineExporter(), OnnxModelFiles(), LocalFiles(), self.open_source, self.open_target)
        source = Checkpoint(self.folder / checkpoint, network)
        return export_model(source, given or card(), self.folder / "out" / name, self.progress, ports=ports)

    def written(self) -> list[str]:
        return [path.name for path in (self.folder / "out").iterdir()]


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    return Exports(tmp_path)


def test_a_file_that_holds_is_written_with_its_card_and_certificate(exports: Exports) -> None:
    result = exports.run()
    assert exports.written() == ["model.onnx"]
    assert OnnxModelFiles().read(exports.folder / "out" / "model.onnx") == result.model
    certificate = result.model.card.parity
    assert certificate is not None
    assert certificate.weights_sha256 == result.model.weights_sha256
    assert certificate.certifies("onnx", "fp32")
    assert certificate.probes == result.verification.probes
    assert result.verification.against == "fake 1"
    assert result.dynamic


def test_the_certificate_is_the_only_thing_that_changes_in_the_card(exports: Exports) -> None:
    given = card()
    found = exports.run(given).model.card
    padded = replace(given.tiling, padding=replace(given.tiling.padding, to="patch"))
    assert replace(found, parity=None, provenance={}) == replace(given, tiling=padded)


@pytest.mark.parametrize(("said", "kept"), [(None, "patch"), ("patch", "patch"), ("divisor", "divisor")])
def test_volumes_are_padded_to_the_patch_unless_the_card_says_otherwise(exports: Exports, said: Any, kept: str) -> None:
    given = card()
    tiling = replace(given.tiling, padding=replace(given.tiling.padding, to=said))
    assert exports.run(replace(given, tiling=tiling)).model.card.tiling.padding.to == kept


def test_a_context_keeps_the_padding_to_the_divisor(exports: Exports) -> None:
    given = card()
    tiling = replace(given.tiling, blending="halo", context=(1, 1, 1))
    assert exports.run(replace(given, tiling=tiling)).model.card.tiling == tiling


def test_provenance_names_the_source_and_the_network_and_keeps_what_the_card_said(exports: Exports) -> None:
    found = exports.run(replace(card(), provenance={"trained_by": "a colleague"})).model.card.provenance
    digest = hashlib.sha256((exports.folder / "network.npz").read_bytes()).hexdigest()
    assert found == {
        "trained_by": "a colleague",
        "source": {"file": "network.npz", "sha256": digest},
        "network": NETWORK,
    }


def test_a_checkpoint_that_brings_its_own_code_has_no_network_in_its_provenance(exports: Exports) -> None:
    assert "network" not in exports.run(network={}).model.card.provenance


def test_the_source_runtime_learns_the_network_from_the_card(exports: Exports) -> None:
    exports.run()
    ((source, options),) = exports.opened
    assert source.path == exports.folder / "network.npz"
    assert source.format == "checkpoint"
    assert source.card.provenance["network"] == NETWORK
    assert options == RuntimeOptions()
    assert exports.runtimes[0].closed


def test_an_old_certificate_does_not_stand_in_the_way(exports: Exports) -> None:
    old = card().with_parity(Certificate("0" * 64, "2020-01-01", (), ()))
    certificate = exports.run(old).model.card.parity
    assert certificate is not None
    assert [entry.runtime for entry in certificate.runtimes] == ["onnx"]


def test_a_file_that_does_not_score_like_its_source_is_refused_and_none_appears(tmp_path: Path) -> None:
    exports = Exports(tmp_path, lie=0.1)
    with pytest.raises(ModelError, match=r"model.onnx: expected the source network's labels .* most at channel"):
        exports.run()
    assert exports.written() == []
    assert [runtime.closed for runtime in exports.runtimes] == [True, True]


def test_a_refused_export_leaves_an_older_file_alone(tmp_path: Path) -> None:
    exports = Exports(tmp_path, lie=0.1)
    older = tmp_path / "out" / "model.onnx"
    older.write_bytes(b"older")
    with pytest.raises(ModelError):
        exports.run()
    assert older.read_bytes() == b"older"


def test_a_checkpoint_that_cannot_be_exported_is_a_model_error_and_nothing_appears(exports: Exports) -> None:
    with pytest.raises(ModelError, match="missing"):
        exports.run(checkpoint="missing.npz")
    with pytest.raises(ModelError, match="weights for the card's 1 channels"):
        exports.run(affine_card(1, 3))
    assert exports.written() == []


def test_a_source_that_cannot_be_opened_is_a_model_error_and_nothing_appears(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        raise ModelError(model.path.name, expected="weights", got=f"{options}", do="train")

    monkeypatch.setattr(exports, "open_target", refuse)
    with pytest.raises(ModelError, match="train"):
        exports.run()
    assert exports.runtimes[0].closed
    assert exports.written() == []


@pytest.mark.parametrize("name", ["model.pt", "model", "onnx"])
def test_a_name_that_does_not_end_in_onnx_is_an_output_error_before_anything_is_done(
    exports: Exports, name: str
) -> None:
    with pytest.raises(OutputError, match=r"a name that ends in \.onnx"):
        exports.run(name=name)
    assert exports.progress.stages == []


def test_a_folder_that_is_missing_is_an_output_error_before_anything_is_done(exports: Exports) -> None:
    with pytest.raises(OutputError):
        exports.run(name="missing/model.onnx")
    assert exports.progress.stages == []


def test_stages_are_told(exports: Exports) -> None:
    exports.run()
    assert [name for name, _ in exports.progress.stages] == ["export", "compare"]


def test_a_card_without_a_network_is_handed_on_as_it_is() -> None:
    given = card()
    assert with_network(given, {}) is given
    assert with_network(given, NETWORK).provenance == {"network": NETWORK}


@pytest.mark.parametrize(("axes", "axis"), [("XYZ", "z"), ("ZYX", "x")])
def test_slices_are_named_by_their_place_in_the_networks_arrays(axes: Literal["XYZ", "ZYX"], axis: str) -> None:
    given = affine_card(1, 2, tiling=Tiling((8, 8, 1)), axes=axes)
    found = slice_by_slice(Checkpoint(Path("net.pt"), {"_target_": "Net"}), given)
    assert found == Checkpoint(Path("net.pt"), {"_target_": "Net", "_slices_": axis})
