"""The node as hospitals meet it: series arrive, their masks go to the archive once, whatever is killed when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from voxport.entrypoints.cli.main import app

from tests.rest.conftest import named_model

from .network import Archive, Node, running_node, send_files, start_node
from .series import HEAD, as_new_series, changed, head_ct

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
_ARGUMENTS = ("--models", "models", "-m", "edges")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model."""
    named_model(tmp_path / "models", "edges")
    return tmp_path


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive().running() as archive:
        yield archive


def settings(archive: Archive, **rule: str) -> dict[str, Any]:
    return {"peers": {"pacs": archive.settings}, "rules": [{"modality": "CT", "send_to": "pacs", **rule}]}


def mask_of(segmentation: Any) -> Any:
    """Label values (z, y, x) of a label map."""
    return segmentation.pixel_array


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the command line gives of the same series."""
    folder = tmp_path_factory.mktemp("command-line")
    model = named_model(folder / "models", "edges")
    mask = folder / "mask.dcm"
    app(args=["segment", str(HEAD), "-m", str(model), "-o", str(mask), "--quiet"], standalone_mode=False)
    return highdicom.seg.segread(mask)


def test_a_series_is_segmented_and_its_mask_sent_as_the_command_line_makes_it(
    folder: Path, archive: Archive, expected: Any
) -> None:
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        assert set(send_files(node.port, head_ct())) == {0}
        node.wait_until(lambda: "sent" in node.states())
        (sent,) = archive.sent
        assert sent.SOPInstanceUID == expected.SOPInstanceUID
        np.testing.assert_array_equal(mask_of(sent), mask_of(expected))
        assert send_files(node.port, head_ct()[:2]) == [0, 0]  # what it has is taken, and changes nothing
        assert node.stop() == 0
    assert len(archive.sent) == 1


def test_its_log_has_a_line_for_each_step_and_nothing_of_the_patient(folder: Path, archive: Archive) -> None:
    files = as_new_series(folder, head_ct(), PatientName="Secret", PatientID="SECRET-ID", SeriesDescription="Words")
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        send_files(node.port, files)
        node.wait_until(lambda: "sent" in node.states())
        lines = [line for line in node.lines() if line.get("event") == "dicom"]
        text = node.log.read_text(encoding="utf-8")
    assert [line["state"] for line in lines] == ["submitted", "sent"]
    assert {len(line["study"]) for line in lines} == {16}
    assert {(line["instances"], line["model"], line["peer"]) for line in lines} == {(5, "edges:1.0.0", "pacs")}
    header = archive.sent[0]
    for secret in ("Secret", "SECRET", "Words", header.StudyInstanceUID, header.PatientID):
        assert str(secret) not in text


def test_what_no_rule_takes_is_acknowledged_and_not_kept(folder: Path, archive: Archive) -> None:
    others = [
        *as_new_series(folder, head_ct()[:1], Modality="MR"),
        *as_new_series(folder, head_ct()[:1], Rows=None, PixelData=None),
    ]
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        assert send_files(node.port, others) == [0, 0]
        assert node.states() == ["ignored", "ignored"]
        assert not [path for path in node.blobs.rglob("*") if path.is_file()]


def test_slices_that_come_late_are_segmented_with_the_others(folder: Path, archive: Archive, expected: Any) -> None:
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        send_files(node.port, head_ct()[:4])
        node.wait_until(lambda: "sent" in node.states())
        send_files(node.port, head_ct()[4:])
        node.wait_until(lambda: len(archive.sent) == 2)
    first, second = archive.sent
    assert second.SOPInstanceUID == expected.SOPInstanceUID != first.SOPInstanceUID
    np.testing.assert_array_equal(mask_of(second), mask_of(expected))


def test_a_series_that_cannot_be_segmented_waits_for_its_missing_slice(folder: Path, archive: Archive) -> None:
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        send_files(node.port, [head_ct()[0], *head_ct()[2:]])
        node.wait_until(lambda: "failed" in node.states())
        assert archive.sent == []
        send_files(node.port, head_ct()[1:2])
        node.wait_until(lambda: "sent" in node.states())
    assert len(archive.sent) == 1


def test_a_mask_waits_for_a_peer_that_cannot_be_reached(folder: Path, archive: Archive) -> None:
    archive.status = 0xA700
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        send_files(node.port, head_ct())
        node.wait_until(lambda: "0xA700" in node.log.read_text(encoding="utf-8"))
        archive.status = 0x0000
        node.wait_until(lambda: "sent" in node.states())
    assert len(archive.sent) == 1


def wait_for(node: Node, state: str, count: int) -> None:
    """Wait until so many series have reached a state."""
    node.wait_until(lambda: node.states().count(state) >= count)


def test_a_mask_waits_for_a_peer_that_does_not_know_its_class(folder: Path) -> None:
    with Archive(takes_label_maps=False).running() as archive:
        with running_node(folder, settings(archive), *_ARGUMENTS) as node:
            send_files(node.port, head_ct())
            node.wait_until(lambda: "takes no objects of the class 1.2.840" in node.log.read_text(encoding="utf-8"))
        assert archive.sent == []


def _received(node: Node) -> bool:
    return len(list(node.blobs.glob("dicom/*/instances/*"))) >= 2


def _submitted(node: Node) -> bool:
    return "submitted" in node.states()


def _begun(node: Node) -> bool:
    return any(line.get("event") == "begun" for line in node.lines())


def _sending(node: Node) -> bool:
    return any('"sending"' in path.read_text(encoding="utf-8") for path in node.blobs.glob("dicom/*/record"))


@pytest.mark.parametrize("moment", [_received, _submitted, _begun, _sending])
def test_a_node_that_is_killed_loses_nothing_and_sends_once(
    folder: Path, archive: Archive, expected: Any, moment: Callable[[Node], bool]
) -> None:
    """Whoever sends gets no answer from a killed node and sends again, as every sender of DICOM does."""
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        for file in head_ct():
            send_files(node.port, [file])
            if moment(node):
                break
        node.wait_until(lambda: moment(node))
        node.kill()
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        if moment is _received:
            send_files(node.port, head_ct())
        node.wait_until(lambda: "sent" in node.states())
    (sent,) = archive.sent
    assert sent.SOPInstanceUID == expected.SOPInstanceUID
    np.testing.assert_array_equal(mask_of(sent), mask_of(expected))


def test_a_node_that_is_killed_before_the_archive_has_answered_asks_what_it_has(
    folder: Path, archive: Archive, expected: Any
) -> None:
    """The archive has stored the mask, but the node was gone before it heard so."""
    node = start_node(folder, settings(archive), *_ARGUMENTS)
    archive.before_answer = node.kill
    node.wait_until(lambda: str(node.port) in node.log.read_text(encoding="utf-8"))
    send_files(node.port, head_ct())
    with suppress(AssertionError):
        node.wait_until(lambda: archive.sent)
    node.process.wait(60)
    archive.before_answer = lambda: None
    assert len(archive.sent) == 1
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        node.wait_until(lambda: "sent" in node.states())
    (sent,) = archive.sent
    assert sent.SOPInstanceUID == expected.SOPInstanceUID


def test_killed_again_and_again_it_sends_each_of_several_series_once(folder: Path, archive: Archive) -> None:
    studies = [as_new_series(folder, head_ct()) for _ in range(3)]
    reached = [("submitted", 0), ("submitted", 1), ("submitted", 2), ("sent", 1), ("submitted", 3), ("sent", 2)]
    for files, (state, count) in zip([*studies, *studies], reached, strict=True):
        with running_node(folder, settings(archive), *_ARGUMENTS) as node:
            send_files(node.port, files)
            wait_for(node, state, count)
            node.kill()
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        for files in studies:
            send_files(node.port, files)
        node.wait_until(lambda: len(archive.sent) >= 3)
        node.wait_until(lambda: node.states().count("sent") >= 3)
    assert len({dataset.SOPInstanceUID for dataset in archive.sent}) == len(archive.sent) == 3


def test_a_second_node_of_the_same_queue_is_refused(folder: Path, archive: Archive) -> None:
    with running_node(folder, settings(archive), *_ARGUMENTS):
        other = start_node(folder, settings(archive), *_ARGUMENTS)
        assert other.process.wait(60) == 2
        assert "expected one node for a queue" in other.log.read_text(encoding="utf-8")


def test_a_file_of_another_kind_does_not_end_the_node(folder: Path, archive: Archive) -> None:
    """The archive sends what it gets to everybody, the node's own segmentations too."""
    with running_node(folder, settings(archive), *_ARGUMENTS) as node:
        send_files(node.port, head_ct())
        node.wait_until(lambda: archive.sent)
        back = folder / "back.dcm"
        archive.sent[0].save_as(back, enforce_file_format=True)
        assert send_files(node.port, [back]) == [0]
        damaged = changed(head_ct()[0], folder / "damaged.dcm", StudyInstanceUID="no uid")
        assert send_files(node.port, [damaged]) == [0xC000]
        node.wait_until(lambda: node.states()[-1] == "ignored" or "sent" in node.states())
    assert len(archive.sent) == 1


@pytest.mark.parametrize(
    ("dicom", "arguments", "message"),
    [
        ({}, (), "expected a rule that says which series are segmented, got none; write dicom: {peers:"),
        ({"rules": [{"modality": "CT"}]}, (), "dicom.rules.0.send_to: field required"),
        ({"rules": [{"send_to": "pacs"}]}, (), "expected send_to as one of the peers (there are none)"),
        ({"peers": {"pacs": {"aet": "A"}}}, (), "expected aet and host, or the url of a dicomweb service"),
        ({"peers": {"pacs": {"aet": "A" * 17, "host": "h"}}}, (), "at most 16 characters"),
        ({"senders": [{"address": "10.0.0.7/33"}]}, (), "dicom.senders.0.address"),
        (None, ("--host", "0.0.0.0"), "expected the senders in the settings, so that not everyone may send, got none"),
        (None, ("--host", "hospital"), "expected an IP address"),
        (None, ("--aet", "VOXPORT-OF-THE-LAB"), "dicom.aet: string should have at most 16 characters"),
        (None, ("-m", "gone"), "gone"),
    ],
)
def test_wrong_settings_are_one_line(
    folder: Path, archive: Archive, dicom: dict[str, Any] | None, arguments: tuple[str, ...], message: str
) -> None:
    node = start_node(folder, settings(archive) if dicom is None else dicom, "--models", "models", *arguments)
    assert node.process.wait(60) in (2, 4)
    (line,) = node.log.read_text(encoding="utf-8").splitlines()
    assert message in line
