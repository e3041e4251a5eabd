"""``voxport import``: networks of other frameworks, and what ``inspect`` shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...domain.errors import OutputError, UsageError
from ...domain.plain import plain
from . import options as opt
from .console import build_application, progress_bar, show_json, warn
from .models import card_text, certificate_lines, parity_mapping

if TYPE_CHECKING:
    from ...application import Application
    from ...ports.importer import ImportChoices
    from ...services.models.importing import ImportResult

Folds = Annotated[
    str | None, typer.Option("--folds", metavar="N,N,...", help="Folds whose logits are averaged; all without it.")
]
CheckpointName = Annotated[str, typer.Option("--checkpoint", metavar="final|best", help="Of each fold of an nnU-Net.")]
NoMirroring = Annotated[bool, typer.Option("--no-mirroring", help="Without the source's test-time mirroring.")]


def import_command(
    source: Annotated[Path, typer.Argument(help="A folder or file of another framework.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="MODEL.onnx", help="The model file to write.")
    ] = None,
    *,
    configuration: opt.Configuration = None,
    folds: Folds = None,
    checkpoint: CheckpointName = "final",
    no_mirroring: NoMirroring = False,
    network_output: opt.NetworkOutput = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Version of the model.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a card's field, e.g. licence=MIT."),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option("--card-draft", metavar="FILE", help="Only write the card to a file, to be completed by hand."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE", help="Take this card in place of the source's.")
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option("--check", metavar="VOLUME", help="Compare with the framework's own run; repeat for channels."),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Import a network of nnU-Net, MONAI or bioimage.io as one self-describing, certified ONNX file."""
    from ...ports.importer import ImportChoices

    if checkpoint not in ("final", "best"):
        raise UsageError("checkpoint", expected="final or best", got=checkpoint, do="name one of them")
    which: Literal["final", "best"] = "best" if checkpoint == "best" else "final"
    members = None if folds is None else opt.names(folds)
    choices = ImportChoices(configuration, members, which, not no_mirroring, network_output, name, version)
    application = build_application()
    if draft is not None:
        _write_draft(application, source, choices, _assignments(changes or []), draft)
        return
    destination = output or Path(f"{source.resolve().stem}.onnx")
    given = None if card is None else application.read_card(card)
    with progress_bar(quiet) as progress:
        done = application.import_model(
            source,
            destination,
            progress,
            choices=choices,
            card=given,
            changes=_assignments(changes or []),
            check=check or [],
        )
    warn(done.exported.notes)
    _warn_missing(done.missing)
    _show(done, destination, as_json=as_json, quiet=quiet)


def show_source(
    application: Application, source: Path, configuration: str | None, card: Path | None, *, as_json: bool
) -> None:
    """Show what would be imported of a source."""
    from ...domain.cards.writing import write_card
    from ...ports.importer import ImportChoices

    own = None if card is None else application.read_card(card)
    framework, found = application.inspect_source(source, ImportChoices(configuration, card=own))
    if as_json:
        show_json({"framework": framework, "card": write_card(found.card), "missing": list(found.missing)})
    else:
        typer.echo(f"framework: {framework}\n{card_text(found.card)}")
    warn(found.notes)
    _warn_missing(found.missing)


def _assignments(given: list[str]) -> dict[str, Any]:
    """Return fields and values of ``FIELD=VALUE``, values as YAML has them."""
    import yaml

    changes = {}
    for text in given:
        field, separator, value = text.partition("=")
        if not (separator and field):
            raise UsageError("set", expected="FIELD=VALUE", got=text, do="write e.g. licence=MIT")
        try:
            changes[field] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            changes[field] = value
    return changes


def _write_draft(
    application: Application, source: Path, choices: ImportChoices, changes: dict[str, Any], draft: Path
) -> None:
    if draft.exists():
        raise OutputError(str(draft), expected="a file that does not exist yet", got="one", do="name another one")
    framework, found = application.inspect_source(source, choices)
    card = application.revise_card(found.card, changes)
    application.artifacts.write(str(draft), card_text(card).encode())
    warn(found.notes)
    _warn_missing(found.missing)
    typer.echo(f"{draft}: the card of a network of {framework}; complete it and import again with --card {draft}")


def _warn_missing(missing: tuple[str, ...]) -> None:
    if missing:
        fields = " ".join(f"--set {name}=..." for name in missing)
        warn([f"the source does not state {', '.join(missing)}: add with {fields}, or with --card-draft FILE"])


def _show(done: ImportResult, output: Path, *, as_json: bool, quiet: bool) -> None:
    model, proved = done.exported.model, done.exported.verification
    if as_json:
        show_json(
            {
                "model": str(output),
                "reference": model.card.reference,
                "sha256": model.sha256,
                "dynamic": done.exported.dynamic,
                **parity_mapping(proved.entry),
                "pipeline": plain(done.pipeline),
                "missing": list(done.missing),
                "notes": list(done.exported.notes),
            }
        )
    elif not quiet:
        typer.echo(card_text(model.card).rstrip())
        typer.echo(f"{output}: {model.card.reference}")
        for line in certificate_lines(model.card):
            typer.echo(f"  {line}")
