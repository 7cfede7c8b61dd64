"""The command group: what all commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from napari_sparsetok import __version__

_EXTRAS = {"lightning_fabric": "train", "tensorboard": "train"}
"""Packages that only some commands need, and the extra that brings each."""


class _Commands(TyperGroup):
    """Commands whose complaints about the input are one line, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"sparsetok: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None or ctx.params.get("traceback"):
                raise
            typer.echo(
                f"sparsetok: this needs {error.name}, which comes with the extra “{extra}”: "
                f"python -m pip install -e '.[{extra}]' in the folder of the project",
                err=True,
            )
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Commands,
    name="sparsetok",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Sparse-token segmentation of CT and MR scans.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-sparsetok {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the program an error came from.")
    ] = False,
) -> None:
    """Options of all commands are declared here; the group reads `traceback` itself."""
