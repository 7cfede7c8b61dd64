"""What a dataset is like, what is wrong with it, and the recipe that follows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.model import SCDConfig
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import open_item
from napari_sparsetok.training.configuration import Preparation, Recipe, TrainingConfig
from napari_sparsetok.training.dataset import Dataset, Item
from napari_sparsetok.weights import Body

_AIR = -500.0  # HU: between air and skin
_PATCH = 4
_WINDOW_VOXELS = 56**3  # of the largest window; more costs attention quadratically
_SMALL_MM = 80.0  # scans no larger than this are crops around something
_SAMPLE = 5000  # grey values that are remembered of each case


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """Of one case.

    shape, spacing : (z, y, x), spacing in mm.
    low, high : its least and greatest grey value, over all channels.
    voxels : how many voxels each of the dataset's numbers has.
    inside : grey values of some labelled voxels of the first channel.
    air : share of the first channel below -500.
    """

    item: Item
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    low: float
    high: float
    voxels: dict[int, int]
    inside: NDArray[np.float32]
    air: float


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Of a dataset.

    problems : a sentence for each thing that is wrong, with the name of the case.
    bad : names of the cases that have one.
    """

    facts: tuple[CaseFacts, ...]
    problems: tuple[str, ...]
    bad: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """Numbers for a person to read."""
        spacing = np.array([f.spacing for f in self.facts])
        shape = np.array([f.shape for f in self.facts])
        count: Counter[int] = Counter()
        for facts in self.facts:
            count.update(facts.voxels.keys())
        return {
            "cases": len(self.facts),
            "shape_median": np.median(shape, axis=0).tolist(),
            "spacing_median": np.median(spacing, axis=0).tolist(),
            "spacing_range": [spacing.min(axis=0).tolist(), spacing.max(axis=0).tolist()],
            "values": [min(f.low for f in self.facts), max(f.high for f in self.facts)],
            "cases_with_label": {str(k): count[k] for k in sorted(count)},
            "problems": list(self.problems),
        }


@dataclass
class _Findings:
    facts: list[CaseFacts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)

    def complain(self, case: str, words: str) -> None:
        self.problems.append(f"{case}: {words}")
        self.bad.add(case)


def fingerprint(dataset: Dataset, on_case: Callable[[int, int], None] = lambda done, total: None) -> Fingerprint:
    """Read every case once, and note all that is wrong instead of stopping at the first.

    Raises
    ------
    ScanError : no case at all can be read.
    """
    findings = _Findings()
    everyone = [item for items in dataset.splits.values() for item in items]
    for done, item in enumerate(everyone):
        on_case(done, len(everyone))
        try:
            facts = _facts(item)
        except ScanError as error:
            findings.complain(item.name, str(error))
            continue
        findings.facts.append(facts)
        for words in _wrong(facts, dataset, item):
            findings.complain(item.name, words)
    on_case(len(everyone), len(everyone))
    for name, words in (*_repeated(dataset).items(), *dataset.absent.items()):
        findings.complain(name, words)
    if not findings.facts:
        raise ScanError("no case of this dataset can be read: " + "; ".join(findings.problems[:3]))
    return Fingerprint(tuple(findings.facts), tuple(findings.problems), frozenset(findings.bad))


def _facts(item: Item) -> CaseFacts:
    channels, drawn = open_item(item)
    first = np.asarray(channels[0].voxels)
    ends = [_ends(first), *(_ends(np.asarray(scan.voxels)) for scan in channels[1:])]
    labels = np.asarray(drawn.voxels)
    if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
        raise ScanError(f"{item.label.name} holds fractions; labels are whole numbers")
    numbers, counts = np.unique(labels, return_counts=True)
    inside = first[labels > 0].astype(np.float32)
    return CaseFacts(
        item=item,
        shape=channels[0].shape,
        spacing=channels[0].geometry.spacing,
        low=min(low for low, _ in ends),
        high=max(high for _, high in ends),
        voxels={int(n): int(c) for n, c in zip(numbers, counts, strict=True) if n},
        inside=inside[:: max(1, len(inside) // _SAMPLE)],
        air=float((first < _AIR).mean()),
    )


def _ends(voxels: NDArray[Any]) -> tuple[float, float]:
    with np.errstate(invalid="ignore"):
        low, high = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # one NaN makes both ends NaN
        raise ScanError("some voxels are not numbers (NaN or infinity)")
    return low, high


def _wrong(facts: CaseFacts, dataset: Dataset, item: Item) -> list[str]:
    words = []
    unnamed = sorted(set(facts.voxels) - set(dataset.labels)) if dataset.labels else []
    if unnamed:
        words.append(
            f"holds the label number(s) {', '.join(map(str, unnamed))}, which neither the dataset nor the recipe names"
        )
    if not facts.voxels:
        words.append("has no labelled voxel")
    elif item.drawn is not None and (missing := sorted(item.drawn - set(facts.voxels))):
        words.append(f"is said to have label(s) {', '.join(map(str, missing))}, but not one voxel has")
    if facts.low == facts.high:
        words.append("all its voxels have the same value")
    return words


def _repeated(dataset: Dataset) -> dict[str, str]:
    """What to say of each case that comes more than once, by its name."""
    places: dict[str, list[str]] = {}
    for split, items in dataset.splits.items():
        for item in items:
            places.setdefault(item.name, []).append(split)
    return {
        name: "is in more than one split" if len(set(splits)) > 1 else "is listed more than once"
        for name, splits in sorted(places.items())
        if len(splits) > 1
    }


def propose(dataset: Dataset, found: Fingerprint, name: str) -> Recipe:
    """A recipe for a dataset: a start that a person can edit.

    CT is told by its Hounsfield units of air. Left and right are only exchanged if every label named for a side
    has its counterpart.
    """
    spacing = tuple(round(float(s), 2) for s in np.median([f.spacing for f in found.facts], axis=0))
    is_ct = "CT" in {c.upper() for c in dataset.channels} or float(np.median([f.air for f in found.facts])) > 0.02
    extent = np.median([np.multiply(f.shape, f.spacing) for f in found.facts], axis=0)
    window = _window(extent / np.asarray(spacing))
    numbers = sorted(dataset.labels) or sorted({n for f in found.facts for n in f.voxels})
    names = [dataset.labels.get(n, f"label {n}") for n in numbers]
    pairs = _pairs(names)
    own = [] if dataset.labels or numbers == [*range(1, len(numbers) + 1)] else numbers
    return Recipe(
        about={
            "id": name,
            "title": name,
            "purpose": f"Outlines {', '.join(names)}.",
            "modality": "CT" if is_ct else " ".join(dataset.channels),
            "training_data": f"{dataset.root.name}: {len(dataset['train'])} scans.",
            "licence": "Not stated.",
            "limits": "Not stated. Not a medical device.",
        },
        channels=dataset.channels,
        labels=LabelTable.of(names),
        preparation=Preparation(
            spacing=spacing,  # type: ignore[arg-type]
            intensity=_intensity(found) if is_ct else {"name": "standardise", "low": 0.5, "high": 99.5},
            body=Body(_AIR, 8.0) if is_ct else None,
        ),
        # On a CT most of a body's box is air, at the lower end of the intensity rule: it need not enter.
        network=replace(_network(len(dataset.channels), len(names), window), empty=-1.0 if is_ct else None),
        training=TrainingConfig(
            windows=tuple(_sides(side) for side in window),  # type: ignore[arg-type]
            batch=2,
            foreground_share=0.75,
            mirror=bool(pairs),
            swap=pairs,
        ),
        needs_region=bool((extent <= _SMALL_MM).all()),
        numbers={number: label for label, number in enumerate(own, start=1)},
    )


def _network(channels: int, labels: int, window: tuple[int, int, int]) -> SCDConfig:
    """The bundled models' network: 4.5 M parameters, pruned early, any window."""
    return SCDConfig(
        in_channels=channels,
        out_channels=labels + 1,
        window=window,
        patch=_PATCH,
        dim=192,
        depth=8,
        heads=3,
        prune_after=(1, 4),
        completion_dim=192,
        completion_depth=1,
        completion_heads=3,
        features=16,
        drop_path=0.05,
    )


def _window(voxels: NDArray[np.float64]) -> tuple[int, int, int]:
    """As much of a median scan as the largest window may hold, with its sides cut down from the longest."""
    sides = np.maximum(_PATCH * 4, np.ceil(voxels / _PATCH) * _PATCH)
    while math.prod(sides) > _WINDOW_VOXELS:
        sides[int(sides.argmax())] -= _PATCH
    z, y, x = (int(s) for s in sides)
    return z, y, x


def _sides(side: int) -> tuple[int, ...]:
    """Three sizes, so that the network learns to do with less than its largest window."""
    return tuple(sorted({max(_PATCH * 4, side - 4 * _PATCH), max(_PATCH * 4, side - 2 * _PATCH), side}))


def _intensity(found: Fingerprint) -> dict[str, Any]:
    values = np.concatenate([f.inside for f in found.facts])
    low, high = np.percentile(values, [0.5, 99.5]) if values.size else (-1000.0, 1000.0)
    return {"name": "window", "low": 10 * math.floor(low / 10), "high": 10 * math.ceil(high / 10)}


def _pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Labels (from 1) that are each other's left and right; none if one lacks its counterpart."""
    plain = [name.casefold() for name in names]
    pairs = []
    for number, name in enumerate(plain, start=1):
        if "left" not in name and "right" not in name:
            continue
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in plain:
            return ()
        pairs.append(tuple(sorted((number, plain.index(other) + 1))))
    return tuple(sorted(set(pairs)))  # type: ignore[arg-type]
