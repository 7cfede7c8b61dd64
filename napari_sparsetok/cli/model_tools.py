"""Commands for networks: import, count."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.printing import AsJson, print_json, print_table, table
from napari_sparsetok.geometry import times_xyz

if TYPE_CHECKING:
    from rich.table import Table

    from napari_sparsetok.model.flops import Cost
    from napari_sparsetok.model.reference import ImportReport


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
        print_json(_import_document(report))
    else:
        print_table(_import_table(report))
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
        ("window", f"{times_xyz(c.window)} voxels, {c.in_channels} channel(s), patch {c.patch}"),
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
    return table("Imported network", rows)


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
        print_json(_profile_document(preset.value, keep_ratio, cost))
    else:
        print_table(_profile_table(preset.value, keep_ratio, cost))


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
    return table(
        f"{preset} at keep ratio {keep_ratio:g}",
        [
            ("parameters", f"{cost.parameters / 1e6:.2f} M, of which {cost.fixed / 1e6:.2f} M fixed position codes"),
            ("GMAC", f"{cost.total:.2f}"),
            *((f"  {name}", f"{value:.2f}  ({value / cost.total:.0%})") for name, value in parts),
            ("tokens left", f"{' → '.join(map(str, cost.left))}  ({share:.2g} of all)"),
        ],
    )
