"""How good a model is on labelled scans, at each keep ratio: the whole pipeline, from file to mask."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from napari_sparsetok.state import Prediction, Reference, Selection, Settings, TokenMap
from napari_sparsetok.training.case import open_item
from napari_sparsetok.training.dataset import Dataset, Item
from napari_sparsetok.training.deletion import Deleted, delete_tokens, deletion_summary
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
    selection: Selection
    keep_ratio: float
    dice: float
    hd95: float
    surface_dice: float
    volume_error: float
    agreement: float


def read_truths(
    dataset: Dataset, split: str, card: Card, on_notice: Callable[[str], None] = lambda text: None
) -> Iterator[Truth]:
    """The cases of one split, one at a time. Labels that were not drawn in a case are unknown there.

    Parameters
    ----------
    on_notice : told which of the dataset's labels is which of the model's.

    Raises
    ------
    ScanError : there is no such split, the labels have nothing in common with the model's, a file cannot be read, or
        image and labels lie on different grids.
    """
    if not dataset.labels:
        dataset = replace(dataset, labels={label.id: label.name for label in card.labels})
    matching = dataset.matching(card.labels)
    on_notice(str(matching))
    return (_truth(item, matching.numbers) for item in dataset[split])


def _truth(item: Item, numbers: Mapping[int, int]) -> Truth:
    channels, drawn = open_item(item)
    labels = np.zeros(drawn.shape, dtype=np.uint8)
    there = {theirs: ours for theirs, ours in numbers.items() if ours}
    for theirs, ours in there.items():
        labels[np.asarray(drawn.voxels) == theirs] = ours
    known = frozenset(ours for theirs, ours in there.items() if item.drawn is None or theirs in item.drawn)
    return Truth(item.name, stack_channels(channels) if len(channels) > 1 else channels[0], labels, known)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    keep_ratios : of every stage; 1 is always run as well, for the agreement.
    selections : what picks the tokens; see `Settings.selection`. "oracle" goes by the truth.
    deletion : shares of the tokens that are taken away in the deletion test; none leaves it out.
    """

    keep_ratios: Sequence[float]
    selections: Sequence[Selection] = ("learned",)
    deletion: Sequence[float] = ()


def evaluate(
    model: str,
    truths: Iterator[Truth],
    plan: Plan,
    on_case: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Run a model over labelled scans.

    Parameters
    ----------
    model : its id in the registry.
    truths : the cases.
    on_case : told each case before it is run.

    Returns
    -------
    A document for JSON: for every selection, keep ratio and label mean and 95 % bootstrap interval over cases, tokens,
    GMAC and seconds; by how much the learned selection beats each other one, case by case; how well the first
    stage's scores tell tokens that touch a label from others (area under the ROC); and the deletion test.
    """
    registry = Registry()
    card = registry[model]
    segmenter = SCDSegmenter(registry)
    rows: list[Scores] = []
    seconds: dict[tuple[Selection, float], list[float]] = {}
    areas: list[float] = []
    deleted: list[Deleted] = []
    cases = 0
    for truth in truths:
        on_case(truth.name)
        cases += 1
        dense = segmenter.segment(truth.scan, Settings(model, 1.0))
        areas.append(score_area(dense, truth))
        reference = Reference(truth.labels)
        for selection, ratio in itertools.product(plan.selections, plan.keep_ratios):
            settings = Settings(model, ratio, selection=selection, reference=reference)
            started = time.perf_counter()
            prediction = segmenter.segment(truth.scan, settings)
            seconds.setdefault((selection, ratio), []).append(time.perf_counter() - started)
            rows += _case_scores(truth, prediction, dense)
        deleted += delete_tokens(segmenter, dense, plan.deletion)
    document: dict[str, Any] = {
        "model": {"id": card.id, "sha256": card.sha256},
        "cases": cases,
        "tolerance_mm": TOLERANCE_MM,
        "score_roc_auc": summary(areas),
        "keep_ratios": [_ratio_summary(key, rows, found, card) for key, found in seconds.items()],
    }
    if len(plan.selections) > 1 and "learned" in plan.selections:
        document["learned_minus"] = _advantages(rows, plan)
    if plan.deletion:
        document["deletion"] = deletion_summary(deleted, summary)
    return document


def _advantages(rows: Sequence[Scores], plan: Plan) -> list[dict[str, Any]]:
    """By how much a case's mean Dice is better with the learned selection than with each other one."""
    found: dict[tuple[str, Selection, float], list[float]] = {}
    for row in rows:
        found.setdefault((row.case, row.selection, row.keep_ratio), []).append(row.dice)
    means = {key: float(np.nanmean(values)) for key, values in found.items() if not np.isnan(values).all()}
    table = []
    for other, ratio in itertools.product(plan.selections, plan.keep_ratios):
        if other == "learned":
            continue
        pairs = [
            value - means[case, other, ratio]
            for (case, selection, at), value in means.items()
            if selection == "learned" and at == ratio and (case, other, ratio) in means
        ]
        table.append({"selection": other, "keep_ratio": ratio, "dice": summary(pairs)})
    return table


def score_area(prediction: Prediction, truth: Truth) -> float:
    """Area under the ROC of first-stage scores against "this token touches a labelled structure".

    A token may touch a label that nobody drew in this case. Where the prediction says so, the token is left out.
    """
    tokens = prediction.tokens
    touches = _touched(truth.labels > 0, truth.scan, tokens)
    undrawn = ~np.isin(prediction.mask, [0, *truth.known])
    seen = (tokens.stage > 0) & (touches | ~_touched(undrawn, truth.scan, tokens))
    positive, negative = tokens.importance[0][seen & touches], tokens.importance[0][seen & ~touches]
    if not positive.size or not negative.size:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: positive.size]
    return float((ranks.sum() - positive.size * (positive.size + 1) / 2) / (positive.size * negative.size))


def _touched(mask: NDArray[np.bool_], scan: Scan, tokens: TokenMap) -> NDArray[np.bool_]:
    """The tokens (d, h, w) in which some voxel of a mask lies."""
    at = np.argwhere(mask) * scan.geometry.spacing + scan.geometry.origin
    inside = np.floor((at - tokens.origin) / np.asarray(tokens.spacing) + 0.5).astype(int)
    inside = inside[((inside >= 0) & (inside < tokens.stage.shape)).all(axis=1)]
    touched = np.zeros(tokens.stage.shape, dtype=bool)
    touched[tuple(inside.T)] = True
    return touched


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
                selection=prediction.settings.selection,
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


def _ratio_summary(
    key: tuple[Selection, float], rows: Sequence[Scores], seconds: Sequence[float], card: Card
) -> dict[str, Any]:
    selection, ratio = key
    cost = count_cost(config_of(card), ratio)
    mine = [row for row in rows if (row.selection, row.keep_ratio) == key]
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
        "selection": selection,
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
    several = len({row["selection"] for row in document["keep_ratios"]}) > 1
    head = ["keep ratio", *(["selection"] if several else []), "tokens", "GMAC"]
    head += [*(f"{name}: Dice" for name in names), "mean Dice", "agreement with dense"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in document["keep_ratios"]:
        cells = [f"{row['keep_ratio']:g}", *([row["selection"]] if several else [])]
        cells += [" → ".join(map(str, row["tokens_left"])), f"{row['gmac_per_window']:.2f}"]
        for label in row["labels"]:
            d = label["dice"]
            cells.append(f"{d['mean']:.3f} ({d['low']:.3f}–{d['high']:.3f})")
        agreement = np.nanmean([label["agreement"]["mean"] for label in row["labels"]])
        cells += [f"{row['mean_dice']:.3f}", f"{agreement:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def findings(document: dict[str, Any]) -> list[str]:
    """What the table does not hold, a sentence each: the scores' worth, and what learned selection brings."""
    lines = [f"First-stage scores against labelled tokens: area under the ROC {_interval(document['score_roc_auc'])}."]
    for row in document.get("learned_minus", ()):
        lines.append(
            f"At keep ratio {row['keep_ratio']:g}, learned minus {row['selection']}: Dice "
            f"{_interval(row['dice'], '+')}."
        )
    for row in document.get("deletion", ()):
        lines.append(
            f"Without {row['share']:.0%} of the tokens, agreement with dense: worst-scored taken "
            f"{_interval(row['worst'])}, at random {_interval(row['random'])}, best-scored {_interval(row['best'])}."
        )
    return lines


def _interval(found: dict[str, float], sign: str = "") -> str:
    return f"{found['mean']:{sign}.4f} ({found['low']:{sign}.4f} to {found['high']:{sign}.4f})"
