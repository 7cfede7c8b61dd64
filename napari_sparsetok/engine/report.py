"""What a run did, as plain values for a JSON file. Free of patient data: no names, no paths."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_sparsetok import __version__
from napari_sparsetok.state import Prediction
from napari_sparsetok.weights import Card

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "scipy")


def report(prediction: Prediction, card: Card) -> dict[str, Any]:
    """Everything needed to say later how a mask came about.

    Parameters
    ----------
    prediction : the result.
    card : of the model that made it.
    """
    scan, tokens, timing = prediction.scan, prediction.tokens, prediction.timing
    return {
        "software": {"napari-sparsetok": __version__, "python": platform.python_version(), **_versions()},
        "model": {"id": card.id, "title": card.title, "sha256": card.sha256},
        "scan": {
            "sha256": scan.content_hash,
            "voxels_zyx": scan.shape,
            "spacing_mm_zyx": scan.geometry.spacing,
            "oblique_degrees": round(scan.geometry.obliqueness, 2),
        },
        "settings": vars(prediction.settings),
        "region_zyx": {"start": prediction.region.start, "stop": prediction.region.stop},
        "device": timing.device,
        "tokens": {
            "per_window": tokens.window_tokens,
            "left_after_each_stage": tokens.left,
            "kept_share": tokens.left[-1] / tokens.left[0],
            "grid_zyx": tokens.stage.shape,
            "spacing_mm_zyx": tokens.spacing,
        },
        "labels": label_volumes(prediction),
        "seconds": {"first_part": round(timing.first, 4), "total": round(timing.total, 4)},
        "windows": timing.windows,
    }


def label_volumes(prediction: Prediction) -> list[dict[str, Any]]:
    """Voxels and millilitres of each label."""
    counts = np.bincount(prediction.mask.ravel(), minlength=256)
    millilitres = float(np.prod(prediction.scan.geometry.spacing)) / 1000
    return [
        {"id": x.id, "name": x.name, "voxels": int(counts[x.id]), "ml": round(float(counts[x.id]) * millilitres, 4)}
        for x in prediction.labels
    ]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
