"""How good a model is on labelled scans, at each keep ratio: the whole pipeline, from file to mask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import stats

from napari_sparsetok.engine.segmenter import SCDSegmenter, config_of
from napari_sparsetok.metrics import dice
from napari_sparsetok.model.flops import count_cost
from napari_sparsetok.scan import Scan, stack_channels
from napari_sparsetok.state import Prediction, Settings
from napari_sparsetok.training.case import open_item
from napari_sparsetok.training.dataset import Dataset, Item
from napari_sparsetok.weights import Card, Registry

TOLERANCE_MM = 1.0
"""Surfaces closer than this count as equal in the normalised surface Dice."""

_RESAMPLES = 2000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Truth:
    """A scan with its labels.

    labels : (z, y, x), in the numbers of the model's label table.
    known : the numbers that were drawn in this case; others are unknown there and left out.
    """

    name: str
    scan: Scan
    labels: NDArray[np.uint8]
    known: frozenset[int]


@dataclass(frozen=True)
class Scores:
    """One label of one case at one keep ratio.

    dice, hd95 (mm), surface_dice, volume_error (mL, signed) : against the truth; NaN where undefined.
    agreement : Dice against the dense prediction.
    """

    case: str
    label: int
    keep_ratio: float
    dice: float
    hd95: float
    surface_dice: float
    volume_error: float
    agreement: float


def read_truths(dataset: Dataset, split: str, card: Card) -> Iterator[Truth]:
    """The cases of one split, one at a time. Labels that were not drawn in a case are unknown there.

    Raises
    ------
    ScanError : there is no such split, a file cannot be read, or image and labels lie on different grids.
    """
    numbers = dataset.numbers(card.labels) or {label.id: label.id for label in card.labels}
    return (_truth(item, numbers) for item in dataset[split])


def _truth(item: Item, numbers: Mapping[int, int]) -> Truth:
    channels, drawn = open_item(item)
    labels = np.zeros(drawn.shape, dtype=np.uint8)
    for theirs, ours in numbers.items():
        labels[np.asarray(drawn.voxels) == theirs] = ours
    known = frozenset(ours for theirs, ours in numbers.items() if item.drawn is None or theirs in item.drawn)
    return Truth(item.name, stack_channels(channels) if len(channels) > 1 else channels[0], labels, known)


def evaluate(
    model: str,
    truths: Iterator[Truth],
    keep_ratios: Sequence[float],
    on_case: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Run a model over labelled scans.

    Parameters
    ----------
    model : its id in the registry.
    truths : the cases.
    keep_ratios : each is run on each case; 1 is always run, for the agreement.
    on_case : told each case before it is run.

    Returns
    -------
    A document for JSON: for every keep ratio and label mean and 95 % bootstrap interval over cases, tokens, GMAC and
    seconds; and how well the first stage's scores tell tokens that touch a label from others (area under the ROC).
    """
    registry = Registry()
    card = registry[model]
    segmenter = SCDSegmenter(registry)
    rows: list[Scores] = []
    seconds: dict[float, list[float]] = {ratio: [] for ratio in keep_ratios}
    areas: list[float] = []
    cases = 0
    for truth in truths:
        on_case(truth.name)
        cases += 1
        dense = segmenter.segment(truth.scan, Settings(model, 1.0))
        areas.append(score_area(dense, truth))
        for ratio in keep_ratios:
            started = time.perf_counter()
            prediction = segmenter.segment(truth.scan, Settings(model, ratio))
            seconds[ratio].append(time.perf_counter() - started)
            rows += _case_scores(truth, prediction, dense)
    return {
        "model": {"id": card.id, "sha256": card.sha256},
        "cases": cases,
        "tolerance_mm": TOLERANCE_MM,
        "score_roc_auc": summary(areas),
        "keep_ratios": [_ratio_summary(ratio, rows, seconds[ratio], card) for ratio in keep_ratios],
    }


def score_area(prediction: Prediction, truth: Truth) -> float:
    """Area under the ROC of first-stage scores against "this token touches a labelled structure"."""
    tokens, geometry = prediction.tokens, truth.scan.geometry
    at = np.argwhere(truth.labels > 0) * geometry.spacing + geometry.origin
    inside = np.floor((at - tokens.origin) / np.asarray(tokens.spacing) + 0.5).astype(int)
    touches = np.zeros(tokens.stage.shape, dtype=bool)
    touches[tuple(inside.T)] = True
    seen = tokens.stage > 0
    positive, negative = tokens.importance[0][seen & touches], tokens.importance[0][seen & ~touches]
    if not positive.size or not negative.size:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: positive.size]
    return float((ranks.sum() - positive.size * (positive.size + 1) / 2) / (positive.size * negative.size))


def _case_scores(truth: Truth, prediction: Prediction, dense: Prediction) -> list[Scores]:
    spacing = truth.scan.geometry.spacing
    millilitres = float(np.prod(spacing)) / 1000
    rows = []
    for label in sorted(truth.known):
        ours, theirs = prediction.mask == label, truth.labels == label
        hd95, surface = _surface_scores(ours, theirs, spacing)
        rows.append(
            Scores(
                case=truth.name,
                label=label,
                keep_ratio=prediction.settings.keep_ratio,
                dice=dice(ours, theirs),
                hd95=hd95,
                surface_dice=surface,
                volume_error=(int(ours.sum()) - int(theirs.sum())) * millilitres,
                agreement=dice(ours, dense.mask == label),
            )
        )
    return rows


def _surface_scores(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[float, float]:
    """95th percentile of the distance between surfaces in mm, and normalised surface Dice; NaN if one is empty."""
    if not ours.any() or not theirs.any():
        return float("nan"), float("nan")
    a, b = (torch.from_numpy(mask)[None, None] for mask in (ours, theirs))
    with warnings.catch_warnings():  # MONAI 1.6 calls a function of its own in a way that it has deprecated
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
        far = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=list(spacing))
        close = compute_surface_dice(a, b, [TOLERANCE_MM], include_background=True, spacing=list(spacing))
    return float(far), float(close)


def _ratio_summary(ratio: float, rows: Sequence[Scores], seconds: Sequence[float], card: Card) -> dict[str, Any]:
    cost = count_cost(config_of(card), ratio)
    mine = [row for row in rows if row.keep_ratio == ratio]
    measures = ("dice", "hd95", "surface_dice", "volume_error", "agreement")
    labels: list[dict[str, Any]] = [
        {
            "id": label.id,
            "name": label.name,
            **{name: summary([getattr(r, name) for r in mine if r.label == label.id]) for name in measures},
        }
        for label in card.labels
    ]
    means = [label["dice"]["mean"] for label in labels]
    return {
        "keep_ratio": ratio,
        "mean_dice": float(np.nanmean(means)) if means else float("nan"),
        "labels": labels,
        "tokens_left": cost.left,
        "gmac_per_window": cost.total,
        "seconds_per_case_cached_prefix": float(np.median(seconds)) if seconds else float("nan"),
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean over cases with its 95 % bootstrap interval; undefined values are left out and counted."""
    known = np.asarray([v for v in values if not np.isnan(v)])
    if not known.size:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "cases": 0}
    rng = np.random.default_rng(0)
    means = known[rng.integers(0, known.size, (_RESAMPLES, known.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high), "cases": int(known.size)}


def markdown(document: dict[str, Any]) -> str:
    """The document's table, a row for each keep ratio."""
    names = [label["name"] for label in document["keep_ratios"][0]["labels"]]
    head = ["keep ratio", "tokens", "GMAC", *(f"{name}: Dice" for name in names), "mean Dice", "agreement with dense"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in document["keep_ratios"]:
        cells = [f"{row['keep_ratio']:g}", " → ".join(map(str, row["tokens_left"])), f"{row['gmac_per_window']:.2f}"]
        for label in row["labels"]:
            d = label["dice"]
            cells.append(f"{d['mean']:.3f} ({d['low']:.3f}–{d['high']:.3f})")
        agreement = np.nanmean([label["agreement"]["mean"] for label in row["labels"]])
        cells += [f"{row['mean_dice']:.3f}", f"{agreement:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
