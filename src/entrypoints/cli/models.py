"""``voxport models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import show_json, show_table, warn

app = typer.Typer(no_args_is_help=True, help="Manage the models that -m can name.")


@app.command("list")
def list_command(as_json: opt.AsJson = False, store: opt.StoreName = None) -> None:
    """Show all models."""
    from ...application import Application

    listing = Application.build(store=store).list_models()
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
    from ...application import Application

    application = Application.build(store=store)
    stored = application.add_model(file, card)
    typer.echo(f"{stored.card.reference} added")


@app.command("remove")
def remove_command(
    name: Annotated[str, typer.Argument(help="NAME, or NAME:VERSION.")], store: opt.StoreName = None
) -> None:
    """Remove a model."""
    from ...application import Application

    Application.build(store=store).remove_model(name)
    typer.echo(f"{name} removed")
