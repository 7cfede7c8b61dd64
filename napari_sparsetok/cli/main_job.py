"""Commands of the main job: see, segment, and make a mask again."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.printing import AsJson, print_json, print_table, progress, table
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.state import Settings

if TYPE_CHECKING:
    from rich.table import Table

Series = Annotated[
    str | None, typer.Option(metavar="KEY", help="Which series of a DICOM study, or level of an OME-Zarr: see `info`.")
]
Repair = Annotated[
    str, typer.Option(metavar="NAME[,NAME]", help="Agree to a repair that `info` offers, as in `resample`.")
]

ResampleChannels = Annotated[
    bool, typer.Option(help="Bring further scans to the voxels of the first, where they differ.")
]
ReplaceNonfinite = Annotated[
    float | None, typer.Option(metavar="VALUE", help="Put this value where the scan holds NaN or infinity.")
]


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
    resample_channels: ResampleChannels = False,
    report: Annotated[
        Path | None, typer.Option(metavar="R.json", help="Write what was done, with volumes in mL.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(metavar="T.npz", help="Write scores and stages of all tokens.")] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = DeviceName.auto,
    replace_nonfinite: ReplaceNonfinite = None,
    all_pieces: Annotated[
        bool, typer.Option(help="Keep pieces that lie far from the structure they were taken for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment a scan and save the mask."""
    from napari_sparsetok import batch

    order = batch.Order(
        source=batch.ScanFiles(tuple(scans), frame, series, repair, resample_channels),
        settings=Settings(model, keep_ratio, device.value, replace_nonfinite, all_pieces=all_pieces),
        out=out,
        region=region,
        around=around,
        report=report,
        tokens=tokens,
    )
    with progress(quiet=as_json) as advance:
        document = batch.segment_file(order, on_progress=advance, on_notice=lambda text: typer.echo(text, err=True))
    if as_json:
        print_json(document)
    else:
        print_table(_segment_table(document, out))


def _segment_table(document: dict[str, Any], out: Path) -> Table:
    left = document["tokens"]["left_after_each_stage"]
    rows = [
        ("tokens", f"{' → '.join(map(str, left))}  ({left[-1] / left[0]:.1%} kept)"),
        *((x["name"], f"{x['ml']:.2f} mL  ({x['voxels']} voxels)") for x in document["labels"]),
        ("took", f"{document['seconds']['total']:.2f} s on {document['device']}"),
        ("written", str(out)),
    ]
    return table(document["model"]["title"], rows)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A scan, a DICOM folder, zip or DICOMDIR, an OME-Zarr.")],
    series: Series = None,
    repair: Repair = "",
    as_json: AsJson = False,
) -> None:
    """Say what is at a path, without a patient's name. The exit code is 2 if it is refused."""
    from napari_sparsetok.files.description import describe
    from napari_sparsetok.scan import ScanError

    try:
        with progress(quiet=as_json, doing="reading") as advance:
            document = describe(path, series, repair, on_progress=advance)
    except ScanError as error:
        if as_json:
            print_json({"format": None, "series": [], "scan": None, "refused": str(error), "repairs": {}})
        raise
    if as_json:
        print_json(document)
    else:
        for table in _info_tables(document):
            print_table(table)
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
        yield table(f"--series {found['key']}", rows)
    scan = document["scan"]
    if scan:
        rows = [
            ("voxels", _voxels(scan)),
            ("numbers", scan["numbers"] + (" (read when needed)" if scan["lazy"] else "")),
            ("stored as", scan["stored_axes"] + _turned(scan["oblique_degrees"])),
            *(("note", note) for note in scan["notes"]),
        ]
        yield table(f"{document['format']}: {scan['name']}", rows)


def _turned(degrees: float) -> str:
    return f", turned by {degrees:.1f}° against the patient" if degrees >= 0.05 else ""


def _voxels(found: dict[str, Any]) -> str:
    size, spacing = times_xyz(found["voxels_zyx"]), times_xyz(found["spacing_mm_zyx"], "{:.4g}")
    times = f", {found['volumes']} volumes" if found["volumes"] > 1 else ""
    return f"{size} of {spacing} mm{times}"


@app.command()
def replay(  # noqa: PLR0913 - options of a command line
    record: Annotated[Path, typer.Argument(metavar="RECORD.json", help="The record that was saved beside a mask.")],
    scan: Annotated[list[Path], typer.Argument(metavar="SCAN…", help="The scan that it was made of.")],
    out: Annotated[Path | None, typer.Option(metavar="MASK.nii.gz", help="Write the prediction here.")] = None,
    series: Series = None,
    repair: Repair = "",
    frame: Annotated[int, typer.Option(help="Which volume of a scan with a time axis, counted from 0.")] = 0,
    resample_channels: ResampleChannels = False,
    reference: Annotated[
        Path | None, typer.Option(metavar="MASK", help="The mask that ranked the tokens, if one did.")
    ] = None,
    device: Annotated[
        DeviceName | None, typer.Option(help="Where the network runs; by default as the record says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the prediction of a record again, and say whether it is the same, voxel for voxel.

    The exit code is 1 if it is not. Corrections are no part of it: a person made those.
    """
    from napari_sparsetok import batch

    source = batch.ScanFiles(tuple(scan), frame, series, repair, resample_channels)
    with progress(quiet=as_json, doing="segmenting again") as advance:
        document = batch.replay(
            record, source, out, reference, None if device is None else device.value, on_progress=advance
        )
    if as_json:
        print_json(document)
    else:
        rows = [
            ("model", document["model"]),
            ("device", f"{document['device']} (then: {document['device_then']})"),
            ("prediction", "the same, voxel for voxel" if document["same"] else "DIFFERENT"),
        ]
        print_table(table("Replay", rows))
    if not document["same"]:
        raise typer.Exit(1)
