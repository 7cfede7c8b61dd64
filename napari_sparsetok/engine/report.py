"""What a run did, as plain values for a JSON file. Free of patient data: no names, no paths."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok import __version__
from napari_sparsetok.correction import PLANES, compose, slices_with
from napari_sparsetok.labels import NOT_TISSUE, count_labels
from napari_sparsetok.state import Prediction
from napari_sparsetok.tokens import Lattice
from napari_sparsetok.weights import Card

_PACKAGES = ("torch", "monai", "numpy", "nibabel", "scipy")


def report(prediction: Prediction, card: Card, corrections: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    """Everything needed to say later how a mask came about, and to make the prediction again.

    Parameters
    ----------
    prediction : the result.
    card : of the model that made it.
    corrections : (z, y, x), what a person said instead, if anyone did.
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
        "settings": prediction.settings.to_json(),
        "region_zyx": {"start": prediction.region.start, "stop": prediction.region.stop},
        "complete": prediction.complete,
        "device": timing.device,
        "tokens": {
            "ranked_by": tokens.selection,
            "per_window": tokens.window_tokens,
            "left_after_each_stage": tokens.left,
            "empty": tokens.empty,
            "kept_share": tokens.left[-1] / tokens.left[0],
            "grid_zyx": tokens.stage.shape,
            "spacing_mm_zyx": tokens.spacing,
            **_by_stage(prediction),
        },
        "prediction_sha256": mask_hash(prediction.mask),
        "labels": label_volumes(prediction.mask, prediction),
        "left_out": _left_out(prediction),
        **({} if corrections is None else _corrected(prediction, corrections)),
        "seconds": {"first_part": round(timing.first, 4), "total": round(timing.total, 4)},
        "windows": timing.windows,
    }


def mask_hash(mask: NDArray[np.uint8]) -> str:
    """SHA-256 of a mask (z, y, x): its shape and its voxels."""
    digest = hashlib.sha256(str(mask.shape).encode())
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


def _by_stage(prediction: Prediction) -> dict[str, list[int]]:
    """Voxels, and those of the mask, in tokens that were not looked at, pruned at stage 1, …, and kept."""
    tokens, lattice = prediction.tokens, _lattice(prediction)
    stages = tokens.stages + 2
    voxels = lattice.sizes()
    of_mask = lattice.count(prediction.mask > 0)
    counted = [np.bincount(tokens.stage.ravel(), n.ravel(), minlength=stages).astype(int) for n in (voxels, of_mask)]
    return {"voxels_by_stage": counted[0].tolist(), "mask_voxels_by_stage": counted[1].tolist()}


def _lattice(prediction: Prediction) -> Lattice:
    lattice = Lattice.of(prediction.tokens, prediction.scan.geometry, prediction.scan.shape)
    return lattice.within(prediction.region)


def _corrected(prediction: Prediction, corrections: NDArray[np.uint8]) -> dict[str, Any]:
    mask = compose(prediction.mask, corrections)
    tokens = prediction.tokens
    changed = _lattice(prediction).count(mask != prediction.mask)
    by_stage = np.bincount(tokens.stage.ravel(), changed.ravel(), minlength=tokens.stages + 2).astype(int)
    return {
        "corrections": {
            "voxels_with_an_opinion": int(np.count_nonzero(corrections)),
            "voxels_changed": int(np.count_nonzero(mask != prediction.mask)),
            "not_tissue": int(np.count_nonzero(corrections == NOT_TISSUE)),
            "slices_corrected": dict(zip(PLANES, map(len, slices_with(corrections)), strict=True)),
            "voxels_changed_by_stage": by_stage.tolist(),
        },
        "labels_corrected": label_volumes(mask, prediction),
        "mask_sha256": mask_hash(mask),
    }


def label_volumes(mask: NDArray[np.uint8], prediction: Prediction) -> list[dict[str, Any]]:
    """Voxels and millilitres of each label of a mask on the prediction's grid."""
    counts = count_labels(mask)
    millilitres = float(np.prod(prediction.scan.geometry.spacing)) / 1000
    return [
        {"id": x.id, "name": x.name, "voxels": int(counts[x.id]), "ml": round(float(counts[x.id]) * millilitres, 4)}
        for x in prediction.labels
    ]


def _left_out(prediction: Prediction) -> list[dict[str, Any]]:
    """The pieces that were found far from the structure that they were taken for, and are not in the mask."""
    millilitres = float(np.prod(prediction.scan.geometry.spacing)) / 1000
    names = {label.id: label.name for label in prediction.labels}
    return [
        {"id": label, "name": names[label], "voxels": voxels, "ml": round(voxels * millilitres, 4)}
        for label, voxels in prediction.left_out
    ]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
