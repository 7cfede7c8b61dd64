"""Does it help to keep the tokens under corrections? Simulated on labelled scans.

    python benchmarks/bench_keep_tokens.py DATASET [RESULT.json]

A simulated clinician corrects every wrong voxel in the three axial slices that have the most of them. Then the model
runs again (a) with the tokens under those corrections kept at every stage, (b) with as many tokens kept that were drawn
at random among the others. Reported: the share of the corrected voxels that the model itself now gets right, and the
Dice of the slices that nobody corrected, before and after. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from napari_sparsetok.correction import tokens_under
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.files import open_scan
from napari_sparsetok.metrics import dice
from napari_sparsetok.state import Forced, Settings
from napari_sparsetok.weights import Registry

RATIOS = (0.25, 0.1, 0.05)
SLICES = 3
MODEL = "hippocampus-t1"
DRAWS = 2000  # of the bootstrap


def one_case(segmenter: SCDSegmenter, image: Path, label: Path, ratio: float) -> dict[str, float] | None:
    """One scan at one keep ratio."""
    scan, reference = open_scan(image), open_scan(label).voxels
    settings = Settings(model=MODEL, keep_ratio=ratio)
    before = segmenter.segment(scan, settings)
    wrong = before.mask != reference
    worst = np.argsort(-wrong.sum(axis=(1, 2)), kind="stable")[:SLICES]
    corrected = np.zeros(wrong.shape, bool)
    corrected[worst] = wrong[worst]
    if not corrected.any():
        return None
    under = tokens_under(corrected.astype(np.uint8), before.tokens, scan.geometry)
    others = np.flatnonzero(~under & (before.tokens.stage > 0))
    drawn = np.zeros(under.size, bool)
    drawn[np.random.default_rng(0).choice(others, min(int(under.sum()), len(others)), replace=False)] = True
    free = np.ones(len(wrong), bool)
    free[worst] = False
    found = {"tokens": float(under.sum()), "corrected": float(corrected.sum())}
    found["dice_before"] = agreement(before.mask, reference, free)
    kept = before.tokens.stage == before.tokens.stages + 1
    found["kept_before"] = float(kept[under].mean())
    for name, chosen in (("forced", under), ("random", drawn.reshape(under.shape))):
        forced = Forced.of(before.region, chosen.astype(np.int8))
        after = segmenter.segment(scan, Settings(model=MODEL, keep_ratio=ratio, forced=forced))
        found[f"dice_{name}"] = agreement(after.mask, reference, free)
        found[f"right_{name}"] = float((after.mask == reference)[corrected].mean())
    return found


def agreement(mask: np.ndarray, reference: np.ndarray, slices: np.ndarray) -> float:
    """Mean Dice of both labels in some slices."""
    return float(np.nanmean([dice(mask[slices] == k, reference[slices] == k) for k in (1, 2)]))


def interval(values: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    return [round(float(v), 4) for v in np.percentile(means, (2.5, 97.5))]


def measure(root: Path) -> dict[str, object]:
    """All held-out cases at all ratios."""
    document = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    names = document["splits"]["val"]
    registry = Registry()
    segmenter = SCDSegmenter(registry)
    segmenter.prepare(Settings(model=MODEL))
    rows = {}
    for ratio in RATIOS:
        cases = []
        for name in names:
            stem = Path(str(name)).name.removesuffix(".nii.gz")
            image, label = (root / folder / f"{stem}.nii.gz" for folder in ("imagesTr", "labelsTr"))
            found = one_case(segmenter, image, label, ratio)
            cases += [found] if found else []
        columns = {key: np.array([case[key] for case in cases], float) for key in cases[0]}
        row: dict[str, object] = {"cases": len(cases)}
        row |= {key: round(float(values.mean()), 4) for key, values in columns.items()}
        for name in ("forced", "random"):
            row[f"dice_gain_{name}_95"] = interval(columns[f"dice_{name}"] - columns["dice_before"])
            row[f"right_{name}_95"] = interval(columns[f"right_{name}"])
        rows[str(ratio)] = row
        print(ratio, row, flush=True)
    return {
        "benchmark": "keep_tokens",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU",
        "model": MODEL,
        "split": "val",
        "corrected_slices": SLICES,
        "by_keep_ratio": rows,
    }


if __name__ == "__main__":
    result = measure(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
