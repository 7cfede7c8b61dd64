"""The command that measures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.printing import print_table
from napari_sparsetok.weights import Registry

if TYPE_CHECKING:
    from rich.table import Table


@app.command()
def bench(
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help="Which models; by default all that are here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds and small scans, to see that it works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the last line, one JSON document.")] = False,
) -> None:
    """Measure speed and memory on this machine.

    Prints a table for people; the last line is one JSON document. Figures are ratios of variants that ran in turns,
    with the least and the greatest of the rounds. It takes some minutes; with a display, or under
    scripts/with-display, also how the slider answers.
    """
    registry = Registry()
    models = model or list(registry.cards)
    for name in models:
        registry[name]  # complains about what is not there before anything is measured

    from napari_sparsetok.bench import measure

    document = measure(models, quick, lambda words: typer.echo(f"measuring: {words} …", err=True))
    if not as_json:
        print_table(_table(document))
    typer.echo(json.dumps(document, ensure_ascii=False))


def _table(document: dict[str, Any]) -> Table:
    from rich.table import Table

    load = document["load"]
    found = Table(
        title=f"{document['date']} · {document['machine']['cores']} cores · load {load['before']} to {load['after']}",
        title_justify="left",
    )
    for heading in ("measure", "figure", "rounds", "must reach", ""):
        found.add_column(heading)
    for row in document["rows"]:
        value = "–" if row["value"] is None else f"{row['value']:g} {row['unit']}".strip()
        spread = "" if row["spread"] is None else f"{row['spread'][0]:g} … {row['spread'][1]:g}"
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        found.add_row(row["name"], value, spread, row["target"], " ".join(filter(None, (met, row["note"]))))
    return found
