"""The models that there are: list, install, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.printing import AsJson, print_json, print_table, table
from napari_sparsetok.geometry import times_xyz

models_app = typer.Typer(help="List the models that there are, install one, remove one.")
app.add_typer(models_app, name="models")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models that there are, install one, remove one."""
    if context.invoked_subcommand:
        return
    from napari_sparsetok.weights import Registry

    registry = Registry()
    if as_json:
        print_json({"models": [card.to_json() for card in registry.cards.values()], "problems": registry.problems})
        return
    for card in registry.cards.values():
        best = [d for d in card.dice.get("labels", {}).get("0.25", []) if d is not None]
        quality = (
            f"{sum(best) / len(best):.3f} mean at keep ratio 0.25 ({card.dice.get('split', 'split unknown')})"
            if best
            else "not measured"
        )
        rows = [
            ("for", card.purpose),
            ("input", f"{card.modality}, {times_xyz(card.spacing, '{:g}')} mm"),
            ("labels", ", ".join(label.name for label in card.labels)),
            ("Dice", quality),
            ("licence", card.licence),
        ]
        print_table(table(f"{card.id}: {card.title}", rows))
    for problem in registry.problems:
        typer.echo(f"sparsetok: {problem}", err=True)


@models_app.command()
def add(
    card: Annotated[
        Path, typer.Argument(metavar="CARD.json", help="A model's card; its weights lie beside it, as .safetensors.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of one of the same name.")] = False,
) -> None:
    """Install a model, so that the viewer and all commands find it."""
    from napari_sparsetok.engine.segmenter import load_model
    from napari_sparsetok.weights import Card, install

    read = Card.read(card)
    load_model(read)  # refuses what does not fit together, before anything is copied
    typer.echo(f"installed “{read.title}” as {install(read, replace=replace).id}")


@models_app.command()
def remove(model: Annotated[str, typer.Argument(metavar="MODEL", help="The id of a model that was added.")]) -> None:
    """Remove a model that was added. Bundled ones stay."""
    from napari_sparsetok.weights import uninstall

    uninstall(model)
    typer.echo(f"removed {model}")
