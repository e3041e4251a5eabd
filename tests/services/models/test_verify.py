"""A model is compared with its source on reproducible inputs; what holds is certified, what differs is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.inference.patches import Tiling
from voxport.domain.parity import Bounds, Certificate, Parity, ProbeInput, RuntimeParity
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, NetworkShape, RuntimeOptions
from voxport.services.models.loading import LoadedModel
from voxport.services.models.probing import probe_inputs
from voxport.services.models.verify import Verification, certified, verify, verify_again, verify_against
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime
from voxport.testing.models import write_bare_affine
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import ANY, Score, brighter_than, make_card

FILES = OnnxModelFiles()


def shifted_by(difference: float, at: tuple[int, ...] | None = None) -> Score:
    """The source network, off by a little in the first score, everywhere or at one place of the largest batch."""

    def infer(batch: Floats) -> Floats:
        logits = brighter_than(0.5)(batch)
        if at is None:
            logits[:, 0] += difference
        elif len(batch) > at[0]:
            logits[at] += difference
        return np.asarray(logits, np.float32)

    return infer


def runtime(infer: Score | None = None, input_shape: NetworkShape = ANY) -> FakeRuntime:
    return FakeRuntime(infer or brighter_than(0.5), input_shape=input_shape)


def model(card: ModelCard | None = None) -> Model:
    return Model(Path("folder/model.onnx"), card or make_card(), "a" * 64, "b" * 64)


def against(infer: Score | None = None, card: ModelCard | None = None, source: Score | None = None) -> Verification:
    return verify_against(model(card), runtime(infer), runtime(source), RecordingProgress())


# The inputs


@pytest.mark.parametrize("divisor", [1, 5, 8, 32])
def test_inputs_have_several_odd_shapes_and_batch_sizes_that_the_network_takes(divisor: int) -> None:
    probes = probe_inputs(make_card(3, tiling=Tiling((None, None, None), divisor)), ANY)
    assert len(probes) == 4
    assert {probe.shape[0] for probe in probes} == {1, 2, 3}
    assert {probe.shape[1] for probe in probes} == {3}
    assert len({probe.shape[2:] for probe in probes}) == 4
    assert all(edge >= 16 and edge % divisor == 0 for probe in probes for edge in probe.shape[2:])
    assert len({probe.seed for probe in probes}) == 4


def test_inputs_are_small_and_tell_x_y_and_z_apart() -> None:
    """16 is the least edge; those of a divisor of 10 begin at 20."""
    probes = probe_inputs(make_card(tiling=Tiling((None, None, None), 8)), ANY)
    assert [probe.shape[2:] for probe in probes] == [(16, 24, 16), (24, 16, 32), (16, 16, 16), (40, 32, 24)]
    coarse = probe_inputs(make_card(tiling=Tiling((None, None, None), 10)), ANY)
    assert coarse[0].shape == (1, 1, 20, 30, 20)


def test_sizes_that_the_network_fixes_are_kept_and_no_input_comes_twice() -> None:
    probes = probe_inputs(make_card(), (2, 1, 24, None, 8))
    assert all(probe.shape[:3] == (2, 1, 24) and probe.shape[4] == 8 for probe in probes)
    assert len({probe.shape for probe in probes}) == len(probes) == 3
    assert [probe.shape for probe in probe_inputs(make_card(), (1, 1, 8, 8, 8))] == [(1, 1, 8, 8, 8)]


def test_inputs_of_a_zyx_network_are_in_its_own_axes() -> None:
    xyz = probe_inputs(make_card(), ANY)
    zyx = probe_inputs(make_card(axes="ZYX"), ANY)
    assert [probe.shape[2:] for probe in zyx] == [probe.shape[:1:-1] for probe in xyz]
    fixed = probe_inputs(make_card(axes="ZYX"), (None, None, 8, None, None))
    assert {probe.shape[2] for probe in fixed} == {8}


# Against the source


def test_the_same_network_holds() -> None:
    proved = against()
    assert proved.entry.parity.holds
    assert (proved.entry.parity.label_agreement, proved.entry.parity.max_probability_difference) == (1.0, 0.0)
    assert (proved.entry.runtime, proved.entry.precision, proved.entry.version) == ("fake", "fp32", "1")
    assert proved.against == "fake 1"
    assert [probe.shape for probe in proved.probes] == [probe.shape for probe in probe_inputs(make_card(), ANY)]


def test_the_sources_probabilities_are_kept_with_the_inputs() -> None:
    card = make_card()
    for probe in against(card=card, infer=shifted_by(1e-5)).probes:
        logits = brighter_than(0.5)(probe.array())
        assert probe.probabilities == probe.sampled(np.asarray(logits, np.float32), card.output)
        assert len(probe.probabilities) == 32


def test_every_input_is_scored_once_by_each_and_told() -> None:
    progress, one, other = RecordingProgress(), runtime(), runtime()
    verify_against(model(), one, other, progress)
    shapes = [probe.shape for probe in probe_inputs(make_card(), ANY)]
    assert one.calls == shapes
    assert other.calls == [*shapes, shapes[0]]  # the first once more: it must give the same
    assert progress.stages == [("compare", 8)]
    assert progress.tiles == 8


def test_rounding_holds_and_a_network_that_differs_is_refused_with_numbers() -> None:
    assert against(shifted_by(1e-5)).entry.parity.max_probability_difference > 0
    with pytest.raises(ModelError) as caught:
        against(shifted_by(0.1))
    said = str(caught.value)
    assert said.startswith("model.onnx: expected the source network's labels (agreement >= 0.99999)")
    agreement = re.search(r"label agreement (0\.\d+), least Dice 0\.\d+, a difference of (0\.\d+) with fake fp32", said)
    assert agreement is not None
    assert 0.9 < float(agreement[1]) < 1
    assert 0.02 < float(agreement[2]) < 0.03


def test_a_difference_is_said_where_it_is() -> None:
    """In case 2 of the third input, 16 cubed; the first two have fewer cases."""
    with pytest.raises(ModelError, match=r"most at channel [01], voxel \(3, 14, 5\) of case 2 in \(3, 2, 16, 16, 16\)"):
        against(shifted_by(0.5, at=(2, 1, 3, 14, 5)))


@pytest.mark.parametrize("at", [None, (2, 1, 3, 14, 5)], ids=["everywhere", "one voxel"])
def test_scores_that_are_nan_differ(at: tuple[int, ...] | None) -> None:
    with pytest.raises(ModelError, match=r"a difference of nan with fake fp32, most at channel \d, voxel") as caught:
        against(shifted_by(np.nan, at))
    if at is not None:
        assert "voxel (3, 14, 5) of case 2" in str(caught.value)


@pytest.mark.parametrize(
    "infer",
    [lambda batch: np.concatenate([batch, batch, batch], axis=1), lambda batch: brighter_than(0.5)(batch)[..., 1:]],
    ids=["channels", "edges"],
)
def test_scores_of_another_shape_differ(infer: Score) -> None:
    with pytest.raises(ModelError, match="expected"):
        against(infer)


def test_a_source_that_does_not_fit_the_card_is_a_model_error() -> None:
    def three(batch: Floats) -> Floats:
        return np.concatenate([batch, batch, batch], axis=1)

    with pytest.raises(ModelError, match="expected 2 channels, the background and the labels"):
        against(three, source=three)


# The certificate


def test_a_certificate_names_the_weights_the_runtime_and_the_day() -> None:
    proved = against()
    card = certified(model(), proved)
    assert card.parity is not None
    assert card.parity.weights_sha256 == "b" * 64
    assert card.parity.certifies("fake", "fp32")
    assert card.parity.probes == proved.probes
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", card.parity.date)


def test_other_runtimes_stay_certified_for_the_same_weights_only() -> None:
    proved = against()
    other = replace(proved.entry, runtime="other")
    for weights, kept in (("b" * 64, True), ("c" * 64, False)):
        card = make_card().with_parity(Certificate(weights, "2020-01-01", (), (other, proved.entry)))
        parity = certified(model(card), proved).parity
        assert parity is not None
        assert [entry.runtime for entry in parity.runtimes] == ["other", "fake"][not kept :]


# Again, without the source


@pytest.fixture
def proved_model() -> Model:
    return model(certified(model(), against()))


def again(proved: Model, infer: Score | None = None) -> Verification:
    return verify_again(proved, runtime(infer), RecordingProgress())


def test_a_certified_model_passes_again(proved_model: Model) -> None:
    progress = RecordingProgress()
    found = verify_again(proved_model, runtime(), progress)
    assert found.entry.parity.max_probability_difference == 0
    assert found.entry.parity.label_agreement == 1.0
    assert found.against.startswith("the certificate of 2")
    assert (progress.stages, progress.tiles) == ([("compare", 4)], 4)


def test_another_runtime_passes_again_by_the_same_samples(proved_model: Model) -> None:
    other = runtime(shifted_by(1e-5))
    other.name = "other"
    found = verify_again(proved_model, other, RecordingProgress())
    assert found.entry.runtime == "other"
    assert 0 < found.entry.parity.max_probability_difference < 1e-4


def test_the_label_agreement_is_that_of_the_runtimes_own_proof(proved_model: Model) -> None:
    certificate = proved_model.card.parity
    assert certificate is not None
    (own,) = certificate.runtimes
    parity = replace(own.parity, label_agreement=0.999995)
    others = (replace(own, precision="bf16"), replace(own, parity=parity), replace(own, runtime="other"))
    card = make_card().with_parity(replace(certificate, runtimes=others))
    assert again(model(card)).entry.parity.label_agreement == 0.999995


@pytest.mark.requirement("R-CERTIFIED")
@pytest.mark.parametrize("difference", [0.01, -3.0, np.nan])
def test_weights_that_changed_are_found_out(proved_model: Model, difference: float) -> None:
    with pytest.raises(ModelError, match="at the certificate's sample voxels") as caught:
        again(proved_model, shifted_by(difference))
    assert "label agreement 0" not in str(caught.value)


def test_a_model_with_other_channels_is_a_model_error(proved_model: Model) -> None:
    with pytest.raises(ModelError, match="network output"):
        again(proved_model, lambda batch: batch)


def test_a_model_without_a_certificate_cannot_be_verified_again() -> None:
    with pytest.raises(ModelError, match=r"expected a parity certificate to check again, got none; .*`against`"):
        again(model())


@pytest.mark.parametrize("missing", ["probes", "runtimes", "probabilities"])
def test_a_certificate_that_holds_nothing_to_compare_proves_nothing(proved_model: Model, missing: str) -> None:
    certificate = proved_model.card.parity
    assert certificate is not None
    if missing == "probabilities":
        certificate = replace(certificate, probes=(ProbeInput((1, 1, 16, 16, 16), 0),))
    elif missing == "probes":
        certificate = replace(certificate, probes=())
    else:
        certificate = replace(certificate, runtimes=())
    with pytest.raises(ModelError, match="expected a parity certificate to check again"):
        again(model(make_card().with_parity(certificate)))


# Other runtimes and precisions


class Openers:
    """Runtimes of other precisions, of which some are not there; remembers what was opened."""

    def __init__(self, **logits: Score) -> None:
        self.logits = logits
        self.opened: list[FakeRuntime] = []

    def __call__(self, model: Model, options: RuntimeOptions) -> InferenceRuntime:  # noqa: ARG002 - the port's signature
        if options.precision not in self.logits:
            raise UsageError("--precision", expected="others", got=options.precision, do="choose another")
        made = runtime(self.logits[options.precision])
        made.precision = options.precision
        made.name = "other"
        self.opened.append(made)
        return made


def flipped(share: float) -> Score:
    """The source network, with so large a share of the labels the other way round."""

    def infer(batch: Floats) -> Floats:
        logits = np.asarray(brighter_than(0.5)(batch), np.float32)
        wrong = np.random.default_rng(0).random(logits[:, 0].shape) < share
        return np.where(wrong[:, None], logits[:, ::-1], logits)

    return infer


def test_all_that_is_installed_is_compared_and_what_holds_is_certified() -> None:
    other = Openers(fp32=shifted_by(1e-5), bf16=flipped(0.0002))
    proved = verify_against(model(), runtime(), runtime(), RecordingProgress(), openers={"other": other})
    assert [(r.runtime, r.precision) for r in proved.others] == [("other", "fp32"), ("other", "bf16")]
    assert all(r.holds() for r in proved.others)
    assert 0.999 < proved.others[1].parity.label_agreement < 1
    assert all(opened.closed for opened in other.opened)
    certificate = certified(model(), proved).parity
    assert certificate is not None
    assert [(r.runtime, r.precision) for r in certificate.runtimes] == [
        ("fake", "fp32"),
        ("other", "fp32"),
        ("other", "bf16"),
    ]


@pytest.mark.parametrize(
    ("openers", "bounds"),
    [
        (Openers(bf16=flipped(0.004)), Bounds()),
        (Openers(bf16=flipped(0.0002)), Bounds(label_agreement=0.99999)),
        (Openers(bf16=flipped(0.0002)), Bounds(dice=0.99999)),
        (Openers(fp32=flipped(0.0002)), Bounds()),
        (Openers(bf16=lambda batch: np.full_like(brighter_than(0.5)(batch), np.nan)), Bounds()),
    ],
    ids=["too far", "agreement", "dice", "fp32 has bounds of its own", "nan"],
)
def test_what_does_not_hold_is_told_and_not_certified(openers: Openers, bounds: Bounds) -> None:
    proved = verify_against(
        model(), runtime(), runtime(), RecordingProgress(), openers={"other": openers}, bounds=bounds
    )
    (entry,) = proved.others
    assert not entry.holds(bounds)
    certificate = certified(model(), proved, bounds).parity
    assert certificate is not None
    assert [(r.runtime, r.precision) for r in certificate.runtimes] == [("fake", "fp32")]


def test_an_entry_that_no_longer_holds_is_dropped_and_one_that_was_not_tried_stays() -> None:
    entries = tuple(RuntimeParity(name, "bf16", "1", Parity(1.0, (1.0,), 0.0)) for name in ("other", "elsewhere"))
    old = model(make_card().with_parity(Certificate("b" * 64, "2026-01-01", (), entries)))
    proved = verify_against(
        old, runtime(), runtime(), RecordingProgress(), openers={"other": Openers(bf16=flipped(0.1))}
    )
    certificate = certified(old, proved).parity
    assert certificate is not None
    assert [(r.runtime, r.precision) for r in certificate.runtimes] == [("elsewhere", "bf16"), ("fake", "fp32")]


def test_the_runtime_that_is_asked_about_is_not_compared_with_itself_and_checkpoints_runtimes_not_at_all() -> None:
    same, torch = Openers(fp32=brighter_than(0.5)), Openers(fp32=brighter_than(0.5))
    openers = {"fake": same, "torch": torch}
    assert verify_against(model(), runtime(), runtime(), RecordingProgress(), openers=openers).others == ()
    assert same.opened == torch.opened == []


def test_below_fp32_the_runtime_asked_about_must_keep_to_the_bounds_too() -> None:
    low = runtime(flipped(0.0002))
    low.precision = "bf16"
    assert verify_against(model(), low, runtime(), RecordingProgress()).entry.precision == "bf16"
    with pytest.raises(ModelError, match=r"agreement >= 0\.9999"):
        verify_against(model(), low, runtime(), RecordingProgress(), bounds=Bounds(label_agreement=0.9999))


def test_without_a_checkpoint_others_are_compared_with_the_runtime_that_held() -> None:
    proved = verify_against(model(), runtime(), runtime(), RecordingProgress())
    known = model(certified(model(), proved))
    other = Openers(bf16=flipped(0.0002))
    found = verify_again(known, runtime(), RecordingProgress(), openers={"other": other})
    assert [(r.precision, r.holds()) for r in found.others] == [("bf16", True)]
    low = runtime()
    low.precision = "bf16"
    with pytest.raises(UsageError, match="voxport tune"):
        verify_again(known, low, RecordingProgress())


# The use case


@pytest.fixture
def stored(tmp_path: Path) -> Model:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    return FILES.write(path, make_card(), path)


def test_verifying_against_a_checkpoint_writes_the_certificate_into_the_file(stored: Model, tmp_path: Path) -> None:
    source, asked = runtime(), []

    def open_source(model: Model, options: RuntimeOptions) -> InferenceRuntime:
        asked.append((model.path, model.card, model.format, options))
        return source

    loaded = LoadedModel(stored, runtime())
    proved = verify(loaded, tmp_path / "net.pt", RecordingProgress(), open_source=open_source, files=FILES)
    assert asked == [(tmp_path / "net.pt", stored.card, "checkpoint", RuntimeOptions())]
    assert source.closed
    written = FILES.read(stored.path)
    assert written.card == certified(stored, proved)
    assert written.weights_sha256 == stored.weights_sha256
    assert verify(
        LoadedModel(written, runtime()), None, RecordingProgress(), open_source=open_source, files=FILES
    ).entry.parity.holds
    assert len(asked) == 1


def test_verifying_against_another_network_writes_nothing(stored: Model, tmp_path: Path) -> None:
    source, before = runtime(shifted_by(1.0)), stored.path.read_bytes()
    with pytest.raises(ModelError):
        verify(
            LoadedModel(stored, runtime()),
            tmp_path / "net.pt",
            RecordingProgress(),
            open_source=lambda _model, _options: source,
            files=FILES,
        )
    assert source.closed
    assert stored.path.read_bytes() == before
