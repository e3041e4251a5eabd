"""``voxport models``, ``inspect``, ``export`` and ``verify``: model files and their certificates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from ...domain.plain import plain
from ...domain.reading import Reading
from . import options as opt
from .console import build_application, progress_bar, show_json, show_table, warn

if TYPE_CHECKING:
    from ...application import Application
    from ...domain.cards.model_card import ModelCard
    from ...domain.parity import Bounds, RuntimeParity
    from ...ports.model import Model
    from ...services.models.verify import Verification

BomFile = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="The file to write.", show_default="standard output"),
]

app = typer.Typer(no_args_is_help=True, help="Manage the models that -m can name.")


@app.command("list")
def list_command(as_json: opt.AsJson = False, store: opt.StoreName = None) -> None:
    """Show all models."""
    listing = build_application(store=store).list_models()
    if as_json:
        models = [
            {
                "name": m.card.name,
                "version": m.card.version,
                "description": m.card.description,
                "sha256": m.sha256,
                "certified": [f"{r.runtime} {r.precision}" for r in m.card.parity.runtimes] if m.card.parity else [],
            }
            for m in listing.models
        ]
        show_json({"models": models, "broken": [{"name": b.name, "reason": b.reason} for b in listing.broken]})
        return
    rows = [(m.card.name, m.card.version, m.card.description) for m in listing.models]
    show_table(("name", "version", "description"), rows, numbers=False)
    warn(f"broken: {b.reason}" for b in listing.broken)


@app.command("add")
def add_command(
    file: Annotated[Path, typer.Argument(help="An ONNX file.")], card: opt.CardFile = None, store: opt.StoreName = None
) -> None:
    """Store a copy of a model with its card embedded."""
    stored = build_application(store=store).add_model(file, card)
    typer.echo(f"{stored.card.reference} added")


@app.command("remove")
def remove_command(
    name: Annotated[str, typer.Argument(help="NAME, or NAME:VERSION.")], store: opt.StoreName = None
) -> None:
    """Remove a model."""
    build_application(store=store).remove_model(name)
    typer.echo(f"{name} removed")


@app.command("package")
def package_command(
    model: Annotated[str, typer.Argument(help="An ONNX file, NAME, or NAME:VERSION.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="ZIP", help="The package to write.")],
    store: opt.StoreName = None,
) -> None:
    """Write a model as a bioimage.io package, with test tensors; show what the package cannot say."""
    application = build_application(store=store)
    found = application.find_model(model)
    warn(application.package_model(found, output))
    typer.echo(f"{output}: {found.card.reference} as a bioimage.io package")


@app.command("sign")
def sign_command(
    model: Annotated[str, typer.Argument(help="An ONNX file, NAME, or NAME:VERSION.")],
    key: Annotated[
        Path, typer.Option("--key", metavar="PEM", help="The private key: an elliptic curve's, unencrypted.")
    ],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="PEM", help="The certificate of the key.")
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option("--chain", metavar="PEM", help="Certificates between that one and the root. Repeat."),
    ] = None,
    store: opt.StoreName = None,
) -> None:
    """Sign a model with its card, in OpenSSF's format; writes NAME.onnx.sig beside the file."""
    from ...ports.signatures import SigningKey

    if chain and certificate is None:
        raise UsageError("--chain", expected="--certificate too", got="none", do="name the certificate of the key")
    application = build_application(store=store)
    found = application.find_model(model)
    signed = application.sign_model(found, SigningKey(key, certificate, tuple(chain or ())))
    typer.echo(f"{signed}: {found.card.reference} signed")


@app.command("check")
def check_command(
    model: Annotated[str, typer.Argument(help="An ONNX file, NAME, or NAME:VERSION.")],
    trusted: Annotated[
        Path | None,
        typer.Option(
            "--trusted",
            metavar="PEM",
            help="The signer's public key, or the root certificates.",
            show_default="VOXPORT_REQUIRE_SIGNED",
        ),
    ] = None,
    store: opt.StoreName = None,
) -> None:
    """Check the signature of a model."""
    application = build_application(store=store)
    root = trusted or application.settings.require_signed
    if root is None:
        raise UsageError("--trusted", expected="a public key or root certificates", got="neither", do="name a PEM file")
    found = application.find_model(model)
    application.check_signature(found, root)
    typer.echo(f"{found.card.reference} is signed, and as it was when it was signed")


@app.command("bom")
def bom_command(
    model: Annotated[str, typer.Argument(help="A model file, NAME, or NAME:VERSION.")],
    output: BomFile = None,
    card: opt.CardFile = None,
    store: opt.StoreName = None,
) -> None:
    """Write the bill of materials of a model, from its card, in CycloneDX 1.6."""
    application = build_application(store=store)
    _write(application, application.model_bom(application.find_model(model, card)), output)


def sbom_command(output: BomFile = None) -> None:
    """Write the bill of materials of this installation, in CycloneDX 1.6: Python packages, and Debian's."""
    application = build_application()
    _write(application, application.installation_bom(), output)


def _write(application: Application, content: bytes, output: str | None) -> None:
    if output is None:
        sys.stdout.write(content.decode())
    else:
        application.artifacts.write(output, content)


@opt.takes_reading
def inspect_command(
    file: Annotated[
        str, typer.Argument(help="A volume, a model file, the name of a model, or another framework's files.")
    ],
    card: opt.CardFile = None,
    configuration: opt.Configuration = None,
    *,
    reading: Reading,
    as_json: opt.AsJson = False,
) -> None:
    """Show a volume's geometry, a model's card and certificate, or what ``import`` would take."""
    from ...services.models.loading import names_a_model
    from .importing import show_source
    from .volumes import show_volume

    application = build_application()
    if Path(file).exists() and application.recognises(Path(file)):
        show_source(application, Path(file), configuration, card, as_json=as_json)
        return
    is_folder_of_a_volume = Path(file).is_dir() and application.volumes.recognises(file)
    if names_a_model(file) and not is_folder_of_a_volume:
        _show_model(application.find_model(file, card), as_json)
        return
    with application.volumes.open(file, reading) as source:
        show_volume(PurePath(file).name, application.format_of(file), source, as_json)


def _show_model(model: Model, as_json: bool) -> None:
    from ...domain.cards.writing import write_card

    certificate, hashes = model.card.parity, {"sha256": model.sha256, "weights_sha256": model.weights_sha256}
    if as_json:
        show_json({**hashes, "card": write_card(model.card)})
        return
    typer.echo(card_text(model.card).rstrip())
    for name, value in hashes.items():
        typer.echo(f"{name}: {value}")
    shown = "none" if certificate is None else f"{certificate.date}, {len(certificate.probes)} probes"
    typer.echo(f"certificate: {shown}")
    for line in certificate_lines(model.card):
        typer.echo(f"  {line}")


def card_text(card: ModelCard) -> str:
    """Return a card as YAML, without its certificate."""
    import yaml

    from ...domain.cards.writing import write_card

    data = write_card(card)
    del data["parity"]
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def certificate_lines(card: ModelCard) -> Iterator[str]:
    """Yield a line for each comparison of a certificate."""
    if card.parity is None:
        return
    for entry in card.parity.runtimes:
        yield (
            f"{entry.runtime} {entry.precision} ({entry.version}): label agreement "
            f"{entry.parity.label_agreement:.6f}, largest difference {entry.parity.max_probability_difference:.2g}"
        )
    for run in card.parity.pipeline:
        yield (
            f"{run.framework} {run.version} on {run.volume}: label agreement {run.label_agreement:.6f}, "
            f"Dice {', '.join(f'{dice:.4f}' for dice in run.dice)}"
        )


def export_command(
    checkpoint: Annotated[Path | None, typer.Argument(help="A state dict or a TorchScript file.")] = None,
    *,
    card: Annotated[Path, typer.Option("--card", help="Model card (YAML).")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL.onnx", help="The model file to write.")],
    network: Annotated[
        str | None, typer.Option("--network", help="Class of the network: one of MONAI's, or package.module.Class.")
    ] = None,
    network_args: Annotated[
        str | None, typer.Option("--network-args", metavar="JSON", help="Its arguments, e.g. '{\"init_filters\": 8}'.")
    ] = None,
    network_output: opt.NetworkOutput = None,
    slices: Annotated[
        bool,
        typer.Option("--slices", help="The network is for 2-D images: apply it where the card's patch is 1 thick."),
    ] = False,
    bundle: Annotated[Path | None, typer.Option("--bundle", metavar="DIR", help="A MONAI bundle.")] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Export a checkpoint to one self-describing ONNX file, certified to agree with the checkpoint."""
    from ...services.models.export import describe_checkpoint, slice_by_slice

    if network is not None:
        sys.path.append(str(Path.cwd()))  # as `python` does; last, so that nothing installed is hidden
    application = build_application()
    read = application.read_card(card)
    given = describe_checkpoint(checkpoint, network, network_args, bundle, application.read_bundle, network_output)
    given = slice_by_slice(given, read) if slices else given
    with progress_bar(quiet) as progress:
        done = application.export(given, read, output, progress)
    warn(done.notes)
    proved, bounds = done.verification, application.bounds
    parity = proved.entry.parity
    if as_json:
        show_json(
            {"model": str(output), "sha256": done.model.sha256, "dynamic": done.dynamic, **_parities(proved, bounds)}
        )
    elif not quiet:
        sizes = "any size" if done.dynamic else "the card's patch only"
        typer.echo(
            f"{output}: {done.model.card.reference}, takes {sizes}; label agreement {parity.label_agreement:.6f}, "
            f"largest difference {parity.max_probability_difference:.2g} over {len(proved.probes)} inputs"
        )
        _show_others(proved, bounds)


def verify_command(
    model: Annotated[str, typer.Argument(help="A model file, or the name of a model.")],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="CHECKPOINT",
            help="Compare with this checkpoint, and write the certificate into the model.",
        ),
    ] = None,
    card: opt.CardFile = None,
    runtime: opt.RuntimeName = "auto",
    precision: opt.Precision = "fp32",
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare a model with its source network, on this machine."""
    application = build_application()
    found = application.find_model(model, card)
    with progress_bar(quiet) as progress:
        loaded = application.load_model(found, runtime=runtime, precision=precision, threads=threads)
        proved = application.verify(loaded, against, progress)
    entry, bounds = proved.entry, application.bounds
    if as_json:
        show_json({"model": found.card.reference, "against": proved.against, **_parities(proved, bounds)})
    elif not quiet:
        typer.echo(
            f"{found.card.reference} holds: {entry.runtime} {entry.precision} differs from {proved.against} "
            f"by at most {entry.parity.max_probability_difference:.2g}"
        )
        _show_others(proved, bounds)


def _parities(proved: Verification, bounds: Bounds) -> dict[str, Any]:
    others = [{**parity_mapping(entry), "holds": entry.holds(bounds)} for entry in proved.others]
    return {**parity_mapping(proved.entry), "others": others}


def parity_mapping(entry: RuntimeParity) -> dict[str, Any]:
    """Return a comparison of a runtime with the source network, for JSON."""
    parity = plain(entry.parity)
    del parity["logit_spread"]
    return {"runtime": entry.runtime, "precision": entry.precision, **parity}


def _show_others(proved: Verification, bounds: Bounds) -> None:
    for entry in proved.others:
        verdict = "holds" if entry.holds(bounds) else "does not hold"
        typer.echo(
            f"  {entry.runtime} {entry.precision} {verdict}: label agreement {entry.parity.label_agreement:.6f}, "
            f"least Dice {min(entry.parity.dice):.6f}, largest difference {entry.parity.max_probability_difference:.2g}"
        )
