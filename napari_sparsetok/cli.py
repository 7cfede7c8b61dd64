"""The command line: what the window can do, and what it takes to bring in a model.

Tables are for people; `--json` prints one JSON document on standard output instead. What was wrong with the
input is one line on standard error, with exit code 2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from napari_sparsetok import __version__
from napari_sparsetok.state import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from napari_sparsetok.model.flops import Cost
    from napari_sparsetok.model.reference import ImportReport


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


app = typer.Typer(
    cls=_Commands,
    name="sparsetok",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Sparse-token segmentation of CT and MR scans.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


Series = Annotated[
    str | None, typer.Option(metavar="KEY", help="Which series of a DICOM study, or level of an OME-Zarr: see `info`.")
]
Repair = Annotated[
    str, typer.Option(metavar="NAME[,NAME]", help="Agree to a repair that `info` offers, as in `resample`.")
]


def main() -> None:
    """Run the command line."""
    app()


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


# The main job


@app.command()
def view(
    scan: Annotated[
        Path | None, typer.Argument(metavar="[SCAN]", help="A file, or the folder of a DICOM study.")
    ] = None,
) -> None:
    """Open napari with the panel, and a scan in it."""
    from napari_sparsetok.ui import app as window

    window.view(scan)


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write mask, report, token map and a screenshot here instead of staying open."
        ),
    ] = None,
) -> None:
    """Segment a sample scan in the viewer."""
    from napari_sparsetok.ui import app as window

    folder = window.demo(out)
    if folder is not None:
        names = ", ".join(sorted(path.name for path in folder.iterdir()))
        typer.echo(f"Wrote to {folder}: {names}")


class DeviceName(StrEnum):
    """Where a network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


@app.command()
def segment(  # noqa: PLR0913 - options of a command line
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN…",
            help="File or DICOM folder; several, in order, for a model of several channels.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Which model; see `sparsetok models`.")],
    out: Annotated[
        Path,
        typer.Option(metavar="MASK.nii.gz", help="The mask to write, on the scan's own grid."),
    ],
    keep_ratio: Annotated[
        float, typer.Option(metavar="R", help="Share of the tokens still left that each stage keeps, in (0, 1].")
    ] = 0.25,
    region: Annotated[
        str | None,
        typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only this box, in voxels from inferior, anterior and right."),
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(metavar="R,A,S", help="Only a box of the model's size around this point, millimetres in RAS+."),
    ] = None,
    frame: Annotated[int, typer.Option(help="Which volume of a scan with a time axis, counted from 0.")] = 0,
    series: Series = None,
    repair: Repair = "",
    resample_channels: Annotated[
        bool, typer.Option(help="Bring further scans to the voxels of the first, where they differ.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="R.json", help="Write what was done, with volumes in mL.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(metavar="T.npz", help="Write scores and stages of all tokens.")] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = DeviceName.auto,
    replace_nonfinite: Annotated[
        float | None, typer.Option(metavar="VALUE", help="Put this value where the scan holds NaN or infinity.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Segment a scan and save the mask."""
    from napari_sparsetok import batch

    order = batch.Order(
        scans=tuple(scans),
        settings=Settings(model, keep_ratio, device.value, replace_nonfinite),
        out=out,
        region=region,
        around=around,
        frame=frame,
        series=series,
        repair=repair,
        resample_channels=resample_channels,
        report=report,
        tokens=tokens,
    )
    with _progress(quiet=as_json) as advance:
        document = batch.segment_file(order, on_progress=advance, on_notice=lambda text: typer.echo(text, err=True))
    if as_json:
        _print_json(document)
    else:
        _print_table(_segment_table(document, out))


def _segment_table(document: dict[str, Any], out: Path) -> Table:
    left = document["tokens"]["left_after_each_stage"]
    rows = [
        ("tokens", f"{' → '.join(map(str, left))}  ({left[-1] / left[0]:.1%} kept)"),
        *((x["name"], f"{x['ml']:.2f} mL  ({x['voxels']} voxels)") for x in document["labels"]),
        ("took", f"{document['seconds']['total']:.2f} s on {document['device']}"),
        ("written", str(out)),
    ]
    return _table(document["model"]["title"], rows)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A scan, a DICOM folder, zip or DICOMDIR, an OME-Zarr.")],
    series: Series = None,
    repair: Repair = "",
    as_json: AsJson = False,
) -> None:
    """Say what is at a path, without a patient's name. The exit code is 2 if it is refused."""
    from napari_sparsetok.files.description import describe

    with _progress(quiet=as_json, doing="reading") as advance:
        document = describe(path, series, repair, on_progress=advance)
    if as_json:
        _print_json(document)
    else:
        for table in _info_tables(document):
            _print_table(table)
    if document["refused"]:
        typer.echo(f"sparsetok: {document['refused']}", err=True)
        raise typer.Exit(2)


def _info_tables(document: dict[str, Any]) -> Iterator[Table]:
    for found in document["series"]:
        rows = [
            ("what", found["description"]),
            *([("modality", found["modality"])] if found["modality"] else []),
            ("voxels", _voxels(found)),
            ("state", "; ".join(found["problems"]) or "opens"),
            *((f"--repair {name}", text) for name, text in found["repairs"].items()),
        ]
        yield _table(f"--series {found['key']}", rows)
    scan = document["scan"]
    if scan:
        rows = [
            ("voxels", _voxels(scan)),
            ("numbers", scan["numbers"] + (" (read when needed)" if scan["lazy"] else "")),
            ("stored as", f"{scan['stored_axes']}, turned by {scan['oblique_degrees']:g}° against the patient"),
            *(("note", note) for note in scan["notes"]),
        ]
        yield _table(f"{document['format']}: {scan['name']}", rows)


def _voxels(found: dict[str, Any]) -> str:
    size = " × ".join(str(n) for n in reversed(found["voxels_zyx"]))
    spacing = " × ".join(f"{s:.4g}" for s in reversed(found["spacing_mm_zyx"]))
    times = f", {found['volumes']} volumes" if found["volumes"] > 1 else ""
    return f"{size} of {spacing} mm{times}"


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that there are."""
    from napari_sparsetok.weights import Registry

    registry = Registry()
    if as_json:
        _print_json({"models": [card.to_json() for card in registry.cards.values()], "problems": registry.problems})
        return
    for card in registry.cards.values():
        best = card.dice.get("labels", {}).get("0.25")
        quality = (
            f"{sum(best) / len(best):.3f} mean at keep ratio 0.25 ({card.dice['split']})" if best else "not measured"
        )
        rows = [
            ("for", card.purpose),
            ("input", f"{card.modality}, {' × '.join(f'{s:g}' for s in card.spacing)} mm"),
            ("labels", ", ".join(label.name for label in card.labels)),
            ("Dice", quality),
            ("licence", card.licence),
        ]
        _print_table(_table(f"{card.id}: {card.title}", rows))
    for problem in registry.problems:
        typer.echo(f"sparsetok: {problem}", err=True)


# Model tools


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Which model; see `sparsetok models`.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder in the decathlon layout.")],
    split: Annotated[str, typer.Option(help="Which of the splits that dataset.json lists.")] = "val",
    keep_ratios: Annotated[
        str, typer.Option(metavar="R,R,…", help="Keep ratios to measure at.")
    ] = "1,0.75,0.5,0.25,0.1,0.05",
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table instead.")] = False,
) -> None:
    """Measure a model on labelled scans, at several keep ratios."""
    from napari_sparsetok.batch import numbers
    from napari_sparsetok.training import evaluation
    from napari_sparsetok.weights import Registry

    ratios = numbers(keep_ratios, ",", None, f"“{keep_ratios}” is no list of keep ratios; write it as 1,0.5,0.25")
    truths = evaluation.read_truths(dataset, split, Registry()[model])
    document = evaluation.evaluate(model, truths, ratios, on_case=lambda name: typer.echo(name, err=True))
    if as_json:
        _print_json(document)
    else:
        typer.echo(evaluation.markdown(document))
        area = document["score_roc_auc"]
        if not as_markdown:
            typer.echo(f"first-stage scores against labelled tokens: area under the ROC {area['mean']:.3f}")


@app.command("import-reference")
def import_reference(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint of the published code.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json", help="Its options, as a JSON object.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The weights file to write.")],
    check: Annotated[
        Path | None,
        typer.Option(metavar="IO.npz", help="Run this stored input and compare; if it fails, nothing is written."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the paper's published code.

    Only weights are read from the checkpoint, never code. An option or an entry that is not known is refused
    by name. With --check, the exit code is 1 if the members of a stage differ, or completed tokens or logits
    by more than 1e-4.
    """
    from napari_sparsetok.model import reference

    report = reference.import_reference(checkpoint, config, out, check)
    if as_json:
        _print_json(_import_document(report))
    else:
        _print_table(_import_table(report))
    if report.check is not None and not report.check.passed:
        typer.echo("sparsetok: the converted network does not match the stored numbers; nothing was written", err=True)
        raise typer.Exit(1)


def _import_document(report: ImportReport) -> dict[str, Any]:
    from dataclasses import asdict

    from napari_sparsetok.model.reference import TOLERANCE

    check = report.check
    return {
        "out": None if report.out is None else str(report.out),
        "config": asdict(report.config),
        "keep_ratio": report.keep_ratio,
        "parameters": report.parameters,
        "ignored": report.ignored,
        "check": check
        and {
            "passed": check.passed,
            "tolerance": TOLERANCE,
            "completed_tokens_difference": check.completed_tokens,
            "logits_difference": check.logits,
            "members_identical": check.members,
        },
    }


def _import_table(report: ImportReport) -> Table:
    c = report.config
    rows = [
        ("window", f"{' × '.join(map(str, c.window))} voxels, {c.in_channels} channel(s), patch {c.patch}"),
        ("classes", f"{c.out_channels}"),
        ("stages", f"after blocks {', '.join(map(str, c.prune_after))} of {c.depth}"),
        ("keep ratio", f"{report.keep_ratio:.4g} a stage"),
        ("parameters", f"{report.parameters / 1e6:.3f} M"),
        ("left out", ", ".join(report.ignored) or "nothing"),
        ("written", str(report.out or "nothing")),
    ]
    if report.check is not None:
        same = ["identical" if m else "DIFFERENT" for m in report.check.members]
        rows += [
            ("completed tokens", f"largest difference {report.check.completed_tokens:.2e}"),
            ("logits", f"largest difference {report.check.logits:.2e}"),
            *((f"pruned at stage {k}", s) for k, s in enumerate(same[:-1], start=1)),
            ("survivors", same[-1]),
        ]
    return _table("Imported network", rows)


class PresetName(StrEnum):
    """Networks whose cost the paper's authors counted."""

    btcv = "btcv"
    brats = "brats"


@app.command()
def profile(
    preset: Annotated[PresetName, typer.Option(help="Which of the paper's networks.")],
    keep_ratio: Annotated[
        float, typer.Option(metavar="R", help="Share of the tokens still left that each stage keeps, in (0, 1].")
    ] = 0.25,
    as_json: AsJson = False,
) -> None:
    """Count what one window of the paper's networks costs at a keep ratio.

    GMAC are counted by PyTorch's counter: linear layers, convolutions and attention. No weights are needed.
    """
    from napari_sparsetok.model.flops import count_cost
    from napari_sparsetok.model.presets import PRESETS

    cost = count_cost(PRESETS[preset.value], keep_ratio)
    if as_json:
        _print_json(_profile_document(preset.value, keep_ratio, cost))
    else:
        _print_table(_profile_table(preset.value, keep_ratio, cost))


def _profile_document(preset: str, keep_ratio: float, cost: Cost) -> dict[str, Any]:
    return {
        "preset": preset,
        "keep_ratio": keep_ratio,
        "parameters": cost.parameters,
        "parameters_learned": cost.learned,
        "parameters_fixed": cost.fixed,
        "gmac": {
            "total": cost.total,
            "prefix": cost.prefix,
            "rest": cost.rest,
            "completion": cost.completion,
            "decoder": cost.decoder,
        },
        "tokens_left": cost.left,
    }


def _profile_table(preset: str, keep_ratio: float, cost: Cost) -> Table:
    parts = [
        ("prefix (up to stage 1)", cost.prefix),
        ("rest of the encoder", cost.rest),
        ("completion", cost.completion),
        ("decoder", cost.decoder),
    ]
    share = cost.left[-1] / cost.left[0]
    return _table(
        f"{preset} at keep ratio {keep_ratio:g}",
        [
            ("parameters", f"{cost.parameters / 1e6:.2f} M, of which {cost.fixed / 1e6:.2f} M fixed position codes"),
            ("GMAC", f"{cost.total:.2f}"),
            *((f"  {name}", f"{value:.2f}  ({value / cost.total:.0%})") for name, value in parts),
            ("tokens left", f"{' → '.join(map(str, cost.left))}  ({share:.2g} of all)"),
        ],
    )


# Printing


@contextmanager
def _progress(quiet: bool, doing: str = "segmenting") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console(highlight=False).print(table)


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
