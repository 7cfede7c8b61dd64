"""How good a model is on labelled scans, at each keep ratio: the whole pipeline, from file to mask."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import stats

from napari_sparsetok.engine.segmenter import SCDSegmenter, config_of
from napari_sparsetok.inspection.ladder import gmac_of
from napari_sparsetok.metrics import dice
from napari_sparsetok.scan import Scan, ScanError, stack_channels
from napari_sparsetok.state import Prediction, Reference, Selection, Settings, TokenMap
from napari_sparsetok.training.case import open_item, renumbered
from napari_sparsetok.training.confusion import confusion, confusion_to_json
from napari_sparsetok.training.dataset import Dataset, Item
from napari_sparsetok.training.deletion import Deleted, delete_tokens, deletion_summary
from napari_sparsetok.training.matching import numbered
from napari_sparsetok.training.plan import Plan, Pruning
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
class Failed:
    """A case that could not be measured, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Scores:
    """One label of one case at one keep ratio.

    dice, hd95 (mm), surface_dice, volume_error (mL, signed) : against the truth; NaN where undefined. If only one of
        the masks has the label, both kinds of Dice are 0, and there is no distance.
    agreement : Dice against the dense prediction.
    missed, invented : whether only the truth has the label, or only the prediction.
    """

    label: int
    selection: Selection
    pruning: Pruning
    dice: float
    hd95: float
    surface_dice: float
    volume_error: float
    agreement: float
    missed: bool
    invented: bool


def read_truths(
    dataset: Dataset,
    split: str,
    card: Card,
    *,
    numbers: Sequence[int] = (),
    on_notice: Callable[[str], None] = lambda text: None,
) -> Iterator[Truth | Failed]:
    """The cases of one split, one at a time. Labels that were not drawn in a case are unknown there.

    A case has failed if a file cannot be read, image and labels lie on different grids, or a number in the mask has no
    name.

    Parameters
    ----------
    numbers : what the masks call the model's labels, in its order, whatever their names are; empty if names tell.
    on_notice : told which of the dataset's labels is which of the model's, and which cases are not there.

    Raises
    ------
    ScanError : there is no such split, or the labels have nothing in common with the model's.
    ValueError : there are more or fewer numbers than labels.
    """
    named = dataset.named(card.labels, numbered(card.labels, numbers) if numbers else None)
    matching = named.matching(card.labels)
    on_notice(str(matching))
    for name, words in dataset.absent.items():
        on_notice(f"{name}: {words}")
    return (_truth(item, matching.numbers) for item in dataset[split])


def _truth(item: Item, numbers: Mapping[int, int]) -> Truth | Failed:
    try:
        channels, drawn = open_item(item)
        labels = renumbered(drawn.voxels, numbers, item)
        scan = stack_channels(channels) if len(channels) > 1 else channels[0]
    except ScanError as error:
        return Failed(item.name, str(error))
    known = frozenset(ours for theirs, ours in numbers.items() if ours and (item.drawn is None or theirs in item.drawn))
    return Truth(item.name, scan, labels, known)


@dataclass(frozen=True)
class Run:
    """What one case cost at one pruning.

    left : tokens before the first stage and after each, over the windows that were run.
    gmac : of those windows, as if no prefix had been cached, in thousands of millions.
    seconds : with cached prefixes, as far as they fit.
    """

    left: tuple[int, ...]
    gmac: float
    seconds: float


Key = tuple[Selection, Pruning]


@dataclass(frozen=True)
class Measured:
    """One case.

    scores : of every label at every selection and pruning.
    runs : what each of those cost.
    confused : what was taken for what in each of those, in mL; see `confusion`.
    area, area_entered : see `score_area`.
    """

    scores: list[Scores]
    runs: dict[Key, Run]
    confused: dict[Key, NDArray[np.float64]]
    area: float
    area_entered: float
    deleted: list[Deleted]


def evaluate(
    model: str,
    truths: Iterable[Truth | Failed],
    plan: Plan,
    on_case: Callable[[str], None] = lambda name: None,
    on_failed: Callable[[Failed], None] = lambda failed: None,
) -> dict[str, Any]:
    """Run a model over labelled scans. A case that cannot be measured is left out, and the others are.

    Parameters
    ----------
    model : its id in the registry.
    truths : the cases.
    on_case : told each case before it is run.
    on_failed : told each case that is left out.

    Returns
    -------
    A document for JSON: for every selection, pruning and label mean and 95 % bootstrap interval over cases, in how many
    cases it was missed or invented; what was taken for what, in mL over all cases; tokens and GMAC as they were run,
    means over cases; seconds; by how much the learned selection beats each other one, case by case; how well the first
    stage's scores tell tokens that touch a label from others (area under the ROC); and the deletion test. `cases` were
    measured, `failed` were not.

    Raises
    ------
    ValueError : the plan has more or fewer ratios than the model has stages.
    """
    registry = Registry()
    card = registry[model]
    if plan.stage_ratios and len(plan.stage_ratios) != (stages := config_of(card).stages):
        raise ValueError(f"“{card.title}” has {stages} stages; give as many ratios, not {len(plan.stage_ratios)}")
    segmenter = SCDSegmenter(registry)
    cases: list[Measured] = []
    failed: list[Failed] = []
    for truth in truths:
        on_case(truth.name)
        found = _measured(segmenter, card, truth, plan)
        if isinstance(found, Failed):
            failed.append(found)
            on_failed(found)
        else:
            cases.append(found)
    return _document(card, plan, cases, failed)


def _measured(segmenter: SCDSegmenter, card: Card, truth: Truth | Failed, plan: Plan) -> Measured | Failed:
    if isinstance(truth, Failed):
        return truth
    try:
        return _measure(segmenter, card, truth, plan)
    except ScanError as error:
        return Failed(truth.name, str(error))


def _measure(segmenter: SCDSegmenter, card: Card, truth: Truth, plan: Plan) -> Measured:
    usual = Settings(card.id, replace_nonfinite=plan.replace_nonfinite)
    dense = segmenter.segment(truth.scan, replace(usual, keep_ratio=1.0))
    reference = Reference(truth.labels)
    scores: list[Scores] = []
    runs: dict[Key, Run] = {}
    confused: dict[Key, NDArray[np.float64]] = {}
    largest = max(label.id for label in card.labels)
    for key in itertools.product(plan.selections, plan.prunings):
        selection, pruning = key
        settings = pruning.settings(usual, selection, reference)
        started = time.perf_counter()
        prediction = segmenter.segment(truth.scan, settings)
        seconds = time.perf_counter() - started
        runs[key] = Run(prediction.tokens.left, gmac_of(prediction, card), seconds)
        scores += _case_scores(truth, prediction, dense, key)
        confused[key] = confusion(prediction.mask, truth.labels, truth.known, _millilitres(truth.scan), largest)
    return Measured(
        scores=scores,
        runs=runs,
        confused=confused,
        area=score_area(dense, truth),
        area_entered=score_area(dense, truth, entered_only=True),
        deleted=delete_tokens(segmenter, dense, plan.deletion),
    )


def _document(card: Card, plan: Plan, cases: Sequence[Measured], failed: Sequence[Failed]) -> dict[str, Any]:
    keys = itertools.product(plan.selections, plan.prunings) if cases else ()
    document: dict[str, Any] = {
        "model": {"id": card.id, "sha256": card.sha256},
        "cases": len(cases),
        "failed": [{"case": one.name, "why": one.why} for one in failed],
        "tolerance_mm": TOLERANCE_MM,
        "score_roc_auc": summary([case.area for case in cases]),
        "score_roc_auc_entered": summary([case.area_entered for case in cases]),
        "keep_ratios": [_summary_at(key, cases, card) for key in keys],
    }
    if len(plan.selections) > 1 and "learned" in plan.selections:
        document["learned_minus"] = _advantages(cases, plan)
    if plan.deletion:
        document["deletion"] = deletion_summary([one for case in cases for one in case.deleted], summary)
    return document


def _advantages(cases: Sequence[Measured], plan: Plan) -> list[dict[str, Any]]:
    """By how much a case's mean Dice is better with the learned selection than with each other one."""
    table = []
    for other, pruning in itertools.product(plan.selections, plan.prunings):
        if other == "learned":
            continue
        gains = [_mean_dice(case, ("learned", pruning)) - _mean_dice(case, (other, pruning)) for case in cases]
        table.append({"selection": other, **pruning.to_json(), "dice": summary(gains)})
    return table


def _mean_dice(case: Measured, key: Key) -> float:
    """Over the labels of a case; NaN if Dice is defined for none of them."""
    values = [row.dice for row in case.scores if (row.selection, row.pruning) == key and not math.isnan(row.dice)]
    return float(np.mean(values)) if values else math.nan


def score_area(prediction: Prediction, truth: Truth, entered_only: bool = False) -> float:
    """Area under the ROC of first-stage scores against "this token touches a labelled structure".

    A token may touch a label that nobody drew in this case. Where the prediction says so, the token is left out. One
    that never entered, as its patch is empty, was pruned before all others: it counts as scored below them, or not at
    all if `entered_only`.
    """
    tokens = prediction.tokens
    touches = _touched(truth.labels > 0, truth.scan, tokens)
    undrawn = ~np.isin(prediction.mask, [0, *truth.known])
    entered = tokens.stage > 0
    seen = (entered if entered_only else tokens.covered) & (touches | ~_touched(undrawn, truth.scan, tokens))
    scores = np.where(entered, tokens.importance[0], -np.inf)
    positive, negative = scores[seen & touches], scores[seen & ~touches]
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


def _millilitres(scan: Scan) -> float:
    """Of one voxel."""
    return float(np.prod(scan.geometry.spacing)) / 1000


def _case_scores(truth: Truth, prediction: Prediction, dense: Prediction, key: Key) -> list[Scores]:
    spacing = truth.scan.geometry.spacing
    millilitres = _millilitres(truth.scan)
    rows = []
    for label in sorted(truth.known):
        ours, theirs = prediction.mask == label, truth.labels == label
        hd95, surface = _surface_scores(ours, theirs, spacing)
        rows.append(
            Scores(
                label=label,
                selection=key[0],
                pruning=key[1],
                dice=dice(ours, theirs),
                hd95=hd95,
                surface_dice=surface,
                volume_error=(int(ours.sum()) - int(theirs.sum())) * millilitres,
                agreement=dice(ours, dense.mask == label),
                missed=bool(theirs.any() and not ours.any()),
                invented=bool(ours.any() and not theirs.any()),
            )
        )
    return rows


def _surface_scores(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[float, float]:
    """95th percentile of the distance between surfaces in mm, and normalised surface Dice.

    If one mask is empty there is no distance (NaN), and surface Dice is 0; if both are, there is none either (NaN).
    """
    if not ours.any() or not theirs.any():
        return float("nan"), 0.0 if ours.any() or theirs.any() else float("nan")
    a, b = (torch.from_numpy(mask)[None, None] for mask in (ours, theirs))
    with warnings.catch_warnings():  # MONAI 1.6 calls a function of its own in a way that it has deprecated
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
        far = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=list(spacing))
        close = compute_surface_dice(a, b, [TOLERANCE_MM], include_background=True, spacing=list(spacing))
    return float(far), float(close)


def _summary_at(key: Key, cases: Sequence[Measured], card: Card) -> dict[str, Any]:
    selection, pruning = key
    runs = [case.runs[key] for case in cases]
    mine = [row for case in cases for row in case.scores if (row.selection, row.pruning) == key]
    measures, counts = ("dice", "hd95", "surface_dice", "volume_error", "agreement"), ("missed", "invented")
    labels: list[dict[str, Any]] = [
        {
            "id": label.id,
            "name": label.name,
            **{name: summary([getattr(r, name) for r in mine if r.label == label.id]) for name in measures},
            **{f"{name}_cases": sum(getattr(r, name) for r in mine if r.label == label.id) for name in counts},
        }
        for label in card.labels
    ]
    means = [label["dice"]["mean"] for label in labels]
    return {
        "selection": selection,
        **pruning.to_json(),
        "mean_dice": float(np.nanmean(means)) if means else float("nan"),
        "labels": labels,
        "confusion": confusion_to_json(np.sum([case.confused[key] for case in cases], axis=0), card.labels),
        "tokens_per_case": np.mean([run.left for run in runs], axis=0).tolist(),
        "gmac_per_case": float(np.mean([run.gmac for run in runs])),
        "seconds_per_case_cached_prefix": float(np.median([run.seconds for run in runs])),
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
