"""Commands that look into what a model did: inspect, audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.main_job import DeviceName, Repair, ReplaceNonfinite, ResampleChannels, Series
from napari_sparsetok.cli.printing import AsJson, print_json, print_table, progress, table
from napari_sparsetok.state import Selection, Settings
from napari_sparsetok.tokens import LADDER

if TYPE_CHECKING:
    from rich.table import Table

_USUAL = ",".join(f"{ratio:g}" for ratio in LADDER)


@app.command()
def inspect(  # noqa: PLR0913 - options of a command line
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN…", help="File or DICOM folder; several for a model of several channels."),
    ],
    model: Annotated[str, typer.Option(help="Which model; see `sparsetok models`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for tables, plots, arrays and the page.")],
    keep_ratios: Annotated[str, typer.Option(metavar="R,R,…", help="Keep ratios of the sweep.")] = _USUAL,
    keep_ratio: Annotated[float, typer.Option(metavar="R", help="The one whose tokens are listed.")] = 0.25,
    selection: Annotated[str, typer.Option(help=f"What ranks tokens: {', '.join(get_args(Selection))}.")] = "learned",
    stage_ratios: Annotated[
        str, typer.Option(metavar="R,R,…", help="A ratio for each stage, for the listed tokens.")
    ] = "",
    threshold: Annotated[
        float | None, typer.Option(help="Keep what scores at least this, for the listed tokens.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random selection.")] = 0,
    reference: Annotated[
        Path | None, typer.Option(metavar="MASK", help="A mask to compare with, on the scan's grid.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only this box; see `segment`.")
    ] = None,
    around: Annotated[
        str | None, typer.Option(metavar="R,A,S", help="Only a box around this point; see `segment`.")
    ] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Silence every attention head in turn, too; slow.")] = False,
    frame: Annotated[int, typer.Option(help="Which volume of a scan with a time axis, counted from 0.")] = 0,
    series: Series = None,
    repair: Repair = "",
    resample_channels: ResampleChannels = False,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = DeviceName.auto,
    replace_nonfinite: ReplaceNonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Look into one scan: where tokens died, what no kept token saw, and what other keep ratios would give."""
    from napari_sparsetok import batch, inspection

    hint = "keep ratios are numbers above 0 and up to 1, as in 1,0.5,0.25"
    if selection not in get_args(Selection):
        raise ValueError(f"there is no rule “{selection}”; there are {', '.join(get_args(Selection))}")
    ladder = tuple(batch.numbers(keep_ratios, ",", None, hint))
    if not all(0 < r <= 1 for r in ladder):
        raise ValueError(hint)
    order = inspection.InspectOrder(
        source=batch.ScanFiles(tuple(scans), frame, series, repair, resample_channels),
        settings=Settings(
            model,
            keep_ratio,
            device.value,
            replace_nonfinite,
            selection=cast(Selection, selection),
            stage_ratios=tuple(batch.numbers(stage_ratios, ",", None, hint)) if stage_ratios else None,
            threshold=threshold,
            seed=seed,
        ),
        out=out,
        ladder=ladder,
        region=region,
        around=around,
        reference=reference,
        weigh_heads=heads,
    )
    with progress(quiet=as_json, doing="segmenting at every ratio") as advance:
        document = inspection.inspect_file(order, advance, on_notice=lambda text: typer.echo(text, err=True))
    if as_json:
        print_json(document)
    else:
        print_table(_sweep_table(document))
        typer.echo(f"Written to {out}: open report.html.")


def _sweep_table(document: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = Text(document["model"]["title"])
    found = Table("keep ratio", "tokens", "GMAC", "seconds", "lowest agreement", title=title, box=None)
    for row in document["sweep"]["rungs"]:
        left = " → ".join(map(str, row["left"]))
        worst = row["worst_agreement"]
        cells = (f"{row['keep_ratio']:g}", left, f"{row['gmac']:.2f}", f"{row['seconds']:.2f}", f"{worst:.3f}")
        found.add_row(*cells)
    return found


@app.command()
def audit(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with the records saved beside corrected masks.")
    ],
    as_json: AsJson = False,
) -> None:
    """Of the voxels that people changed, say how many lay in pruned tokens, by stage."""
    from napari_sparsetok import inspection

    document = inspection.audit(folder)
    if as_json:
        print_json(document)
        return
    if document["cases"]:
        print_table(_case_table(document["cases"]))
    for total in document["totals"]:
        changed, voxels = total["changed_by_stage"], total["voxels_by_stage"]
        rows = [
            (words, f"{_counted(n, changed)} corrected voxels, of {_counted(m, voxels)} voxels there")
            for words, n, m in zip(total["stages"], changed, voxels, strict=True)
        ]
        rows.append(("in a word", _verdict(total["odds"])))
        print_table(table(f"{total['records']} records", rows))
    if document["records_without_counts"]:
        typer.echo(f"{document['records_without_counts']} records hold no corrections with token counts; left out.")
    if unreadable := document["unreadable"]:
        typer.echo(f"{len(unreadable)} file(s) could not be read as JSON; left out: {', '.join(unreadable)}")


def _case_table(cases: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    found = Table("record", "model", "keep ratio", "corrected", "… in pruned tokens", "times as often", box=None)
    for case in cases:
        changed, odds = case["changed_by_stage"], case["odds"]
        often = "–" if odds is None else f"{odds:.2f}"
        cells = (case["record"], case["model"], _kept_by(case), sum(changed), sum(changed[1:-1]), often)
        found.add_row(*(Text(str(cell)) for cell in cells))
    return found


def _kept_by(case: dict[str, Any]) -> Any:
    """What said how many tokens were kept, in a cell."""
    ratios, threshold = case["stage_ratios"], case["threshold"]
    if threshold is not None:
        return f"above {threshold}"
    return ", ".join(map(str, ratios)) if isinstance(ratios, list) else case["keep_ratio"]


def _verdict(odds: float | None) -> str:
    if odds is None:
        return "too few corrections or tokens to compare"
    return f"a voxel of a pruned token was corrected {odds:.2f} times as often as one of a kept token"


def _counted(n: int, all_of: list[int]) -> str:
    return f"{n} ({n / max(1, sum(all_of)):.1%})"
