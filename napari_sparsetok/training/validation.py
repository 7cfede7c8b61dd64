"""A quick look at cases in memory while training; the honest measure, from file to mask, is in `evaluation`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor

from napari_sparsetok.metrics import dice
from napari_sparsetok.model import SCD, Rule
from napari_sparsetok.model.scd import LEARNED
from napari_sparsetok.training.case import Case


class Seen(NamedTuple):
    """What a network makes of a case: labels (z, y, x), and what became of each voxel's token, as in `TokenMap`."""

    labels: NDArray[np.uint8]
    stage: NDArray[np.uint8]


def mean_dice(model: SCD, cases: Sequence[Case], keep_ratio: float) -> list[float]:
    """Dice of each label, averaged over the cases in which it was drawn; NaN if it was in none."""
    rows = []
    for case in cases:
        predicted = predict(model, case, keep_ratio).labels
        known = [(k, bool(case.known[k])) for k in range(1, model.config.out_channels)]
        rows.append([dice(predicted == k, case.labels == k) if drawn else math.nan for k, drawn in known])
    columns = np.asarray(rows).T
    return [float(c[~np.isnan(c)].mean()) if not np.isnan(c).all() else math.nan for c in columns]


@torch.inference_mode()
def predict(model: SCD, case: Case, keep_ratio: float, rule: Callable[[int], Rule] = lambda tokens: LEARNED) -> Seen:
    """Run a network over one case, by overlapping windows as large as its own.

    `rule` says what ranks the tokens of a window, from how many it has.
    """
    shape, patch = case.labels.shape, model.config.patch
    pads = [(-side) % patch for side in shape]
    padded = np.pad(case.image, [(0, 0), *((0, p) for p in pads)], mode="edge")
    window = [min(w, n) for w, n in zip(model.config.window, padded.shape[1:], strict=True)]

    def run(image: Tensor) -> Tensor:
        logits, record = model(image, keep_ratio, rule(math.prod(n // patch for n in image.shape[2:])))
        stage = record.stage[:, None].float()
        for axis in (2, 3, 4):
            stage = stage.repeat_interleave(patch, axis)
        return torch.cat([logits.float(), stage], dim=1)

    # Windows go to the model's device one by one. All classes of a whole scan are summed up in main memory.
    device = next(model.parameters()).device
    image = torch.from_numpy(padded)[None]
    found = sliding_window_inference(
        image, window, 1, run, overlap=0.25, mode="gaussian", sw_device=device, device="cpu"
    )[0]
    box = tuple(slice(0, n) for n in shape)
    stage = found[-1].round().to(torch.uint8).numpy()[box]
    return Seen(found[:-1].argmax(0).to(torch.uint8).numpy()[box], stage)
