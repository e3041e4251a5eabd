"""What a person says of a checkpoint makes a checkpoint, or a clear error about the option at odds."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.domain.errors import UsageError
from voxport.ports.exporter import Checkpoint
from voxport.services.models.export import describe_checkpoint

PATH, BUNDLE = Path("net.pt"), Path("bundle")
IN_BUNDLE = Checkpoint(BUNDLE / "models" / "model.pt", {"_target_": "UNet"})


def read_bundle(folder: Path) -> Checkpoint:
    assert folder == BUNDLE
    return IN_BUNDLE


def describe(
    path: Path | None = None, network: str | None = None, arguments: str | None = None, bundle: Path | None = None
) -> Checkpoint:
    return describe_checkpoint(path, network, arguments, bundle, read_bundle)


def test_a_file_alone_is_torchscript_and_brings_its_own_code() -> None:
    assert describe(PATH) == Checkpoint(PATH)


def test_a_network_is_a_target_with_its_arguments() -> None:
    assert describe(PATH, "SegResNet", '{"init_filters": 8}').network == {"_target_": "SegResNet", "init_filters": 8}
    assert describe(PATH, "SegResNet").network == {"_target_": "SegResNet"}


def test_a_bundle_brings_its_checkpoint_and_network() -> None:
    assert describe(bundle=BUNDLE) == IN_BUNDLE


def test_other_weights_may_be_given_to_a_bundles_network() -> None:
    assert describe(PATH, bundle=BUNDLE) == Checkpoint(PATH, IN_BUNDLE.network)


@pytest.mark.parametrize(("network", "arguments"), [("UNet", None), (None, "{}"), ("UNet", "{}")])
def test_a_bundle_and_a_network_contradict_each_other(network: str | None, arguments: str | None) -> None:
    with pytest.raises(UsageError, match="bundle: expected no `network` beside it"):
        describe(PATH, network, arguments, BUNDLE)


def test_nothing_to_export_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="checkpoint: expected a file, got none"):
        describe(network="UNet")


def test_arguments_without_a_network_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="network_args: expected a `network` with it"):
        describe(PATH, arguments="{}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{init_filters: 8}", r"got \{init_filters: 8\} \(.* at character 1\); quote it"),
        ("", "at character 0"),
        ("[8]", r"expected a JSON object, got \[8\]"),
        ("8", "expected a JSON object, got 8"),
    ],
)
def test_arguments_that_are_no_json_object_are_a_usage_error(text: str, said: str) -> None:
    if text:
        with pytest.raises(UsageError, match=said):
            describe(PATH, "UNet", text)
    else:
        assert describe(PATH, "UNet", text).network == {"_target_": "UNet"}
