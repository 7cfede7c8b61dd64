"""The inspector in files: a scan in, a folder of tables, plots, arrays and one page out."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_sparsetok import batch
from napari_sparsetok.engine.contract import Watch
from napari_sparsetok.engine.report import report as make_report
from napari_sparsetok.files.token_arrays import save_tokens
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.inspection.finding import Findings
from napari_sparsetok.inspection.heads import heads_of
from napari_sparsetok.inspection.ladder import Question, sweep
from napari_sparsetok.inspection.table import as_csv, finite, sweep_table, token_table, unseen_table
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Reference, Settings
from napari_sparsetok.tokens import LADDER, Lattice, far_from_kept, unseen
from napari_sparsetok.weights import Registry


@dataclass(frozen=True)
class InspectOrder:
    """What is to be looked into.

    source : the scan.
    settings : its keep ratio is the one whose tokens are listed; its rule is that of the whole sweep.
    out : a folder.
    ladder : keep ratios of the sweep; 1 is always among them.
    region, around : see `napari_sparsetok.batch.Order`.
    reference : a mask on the scan's grid, with the model's numbers for labels.
    weigh_heads : silence every attention head in turn, too.
    """

    source: batch.ScanFiles
    settings: Settings
    out: Path
    ladder: tuple[float, ...] = LADDER
    region: str | None = None
    around: str | None = None
    reference: Path | None = None
    weigh_heads: bool = False


def inspect_file(
    order: InspectOrder,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Segment at every ratio, and write what came of it.

    Returns
    -------
    The document that is also written as ``report.json``.

    Raises
    ------
    ScanError : anything about the files, the region, the settings or the model that cannot be used.
    """
    registry = Registry()
    card = registry[order.settings.model]
    scan = batch.opened(order.source)
    for note in scan.notes:
        on_notice(note)
    region = batch.region_of(order.region, order.around, scan, card)
    reference = None if order.reference is None else Reference(batch.mask_on_grid(order.reference, scan))
    settings = replace(order.settings, reference=reference if order.settings.selection == "oracle" else None)

    # These load torch: only once the input is known to be good.
    from napari_sparsetok.engine import selection
    from napari_sparsetok.engine.segmenter import SCDSegmenter

    selection.check(settings, scan, card.stages)
    _make(order.out)

    segmenter = SCDSegmenter(registry)
    device = segmenter.prepare(settings)
    if device.warning:
        on_notice(device.warning)
    watch = Watch(on_progress=on_progress, on_notice=on_notice)
    found = sweep(segmenter, Question(scan, settings, card, region, reference, order.ladder), watch)
    prediction = segmenter.segment(scan, settings, region=region)
    heads = heads_of(segmenter, prediction, order.weigh_heads, on_progress)
    document = {**make_report(prediction, card), "sweep": found.to_json()}
    _write(order.out, card.title, Findings(prediction, found, heads), document)
    return document


def _make(folder: Path) -> None:
    """Make the folder for what will be found, or say why there can be none, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ScanError(f"{folder.name} cannot be written to ({error.strerror}); choose another folder") from None


def _write(out: Path, title: str, findings: Findings, document: dict[str, Any]) -> None:
    # These bring matplotlib, which is slow to load and which the window does not need.
    from napari_sparsetok.inspection.page import page
    from napari_sparsetok.inspection.plot import picture, sweep_figure

    prediction, found, heads = findings.prediction, findings.sweep, findings.heads
    lattice = Lattice.of(prediction.tokens, prediction.scan.geometry, prediction.scan.shape)
    pieces = unseen(prediction.mask, prediction.tokens, lattice)
    texts = {
        "sweep.csv": as_csv(*sweep_table(found)),
        "tokens.csv": as_csv(*token_table(prediction, found.kept_from)),
        "never_looked_at.csv": as_csv(*unseen_table(pieces, prediction)),
        "report.json": json.dumps(finite(document), indent=1) + "\n",
        "report.html": page(title, findings, pieces),
        **({} if heads is None else {"heads.csv": as_csv(*heads.table())}),
    }
    for name, text in texts.items():
        with written_whole(out / name) as part:
            part.write_text(text, encoding="utf-8")
    figure = sweep_figure(found)
    for kind in ("png", "svg"):
        with written_whole(out / f"sweep.{kind}") as part:
            part.write_bytes(picture(figure, kind))
    arrays: dict[str, Any] = {
        "mask": prediction.mask,
        "dense_mask": found.dense.mask,
        "lowest_keep_ratio": found.lowest,
        "far_from_kept_mm": far_from_kept(prediction.mask, prediction.tokens, lattice),
    }
    with written_whole(out / "voxels.npz", ".npz") as part:
        np.savez_compressed(part, **arrays)
    save_tokens(out / "tokens.npz", prediction.tokens, kept_from=found.kept_from)
