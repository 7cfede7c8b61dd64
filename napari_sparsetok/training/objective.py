"""One training step's loss: which keep ratios it meets, and what is asked of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sparsetok.model import SCD
from napari_sparsetok.training.configuration import TrainingConfig
from napari_sparsetok.training.loss import PartialDiceCE, distillation_loss, score_loss


class Losses(NamedTuple):
    """Of one step: the sum that is minimised, and its parts, as means over the step's keep ratios."""

    total: Tensor
    segmentation: Tensor
    scores: Tensor
    distillation: Tensor


class Objective(nn.Module):
    """A network and what it is trained for. `forward` does all the computing, so that it can be wrapped as a whole.

    With deep supervision (Lee et al., "Deeply-supervised nets", 2015) the decoder's features at half resolution have
    to tell the labels too, by a layer that is forgotten after training.

    weights : (K,) of the labels in the cross-entropy, see `loss.label_weights`.
    coarse : that layer; None without deep supervision.
    """

    def __init__(self, model: SCD, training: TrainingConfig, weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self._training = training
        self._loss = PartialDiceCE(weights)
        width, classes = 2 * model.config.features, model.config.out_channels
        self.coarse = nn.Conv3d(width, classes, kernel_size=1) if training.deep_supervision else None

    def forward(self, images: Tensor, labels: Tensor, known: Tensor, keep_ratios: Sequence[float]) -> Losses:
        """Losses of a batch, as in `augmentation.Batch`, at each of some keep ratios.

        With distillation the first ratio's prediction teaches the others, so it should be 1. What does not depend on
        the ratio is computed once.
        """
        prefixes, skip = self.model.prefixes(images), self.model.image_skip(images)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        teacher: Tensor | None = None
        for ratio in keep_ratios:
            completed, record = self.model.completed(prefixes, ratio)
            half = self.model.decoder.halfway(completed)
            logits = self.model.decoder.finest(half, skip).float()
            of_scores = score_loss(record, labels, self.model.config.patch, _unsure(logits, known))
            taught = logits.new_zeros(()) if teacher is None else distillation_loss(logits, teacher)
            parts.append((self._segmentation(logits, half, labels, known), of_scores, taught))
            teacher = logits if teacher is None else teacher
        segmentation, of_scores, taught = (torch.stack(each).mean() for each in zip(*parts, strict=True))
        total = segmentation + self._training.score_weight * of_scores + self._training.distillation * taught
        return Losses(total, segmentation, of_scores, taught)

    def _segmentation(self, logits: Tensor, half: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        loss = cast(Tensor, self._loss(logits, labels, known))
        if self.coarse is None:
            return loss
        # Brought to the voxels, not the labels to half of them: those of thin structures would be lost.
        coarse = F.interpolate(self.coarse(half).float(), logits.shape[2:], mode="trilinear")
        share = self._training.deep_supervision
        return (loss + share * self._loss(coarse, labels, known)) / (1 + share)


def draw_keep_ratios(training: TrainingConfig, rng: np.random.Generator) -> tuple[float, ...]:
    """The keep ratios of one step.

    "random" is one of them: 1 in `dense_share` of the steps, else log-uniform down to `min_keep`. "sandwich" (Yu and
    Huang, "Universally slimmable networks and improved training techniques", 2019) is the dense network, the
    smallest ratio and a random one, all on the same windows. "fixed" is always `min_keep`, as published.
    """
    between = math.exp(rng.uniform(math.log(training.min_keep), 0))
    if training.ratios == "fixed":
        return (training.min_keep,)
    if training.ratios == "sandwich":
        return 1.0, training.min_keep, between
    return (1.0 if rng.random() < training.dense_share else between,)


@torch.no_grad()
def _unsure(logits: Tensor, known: Tensor) -> Tensor | None:
    """Voxels (B, D, H, W) where the network sees a label that nobody drew."""
    if bool(known.all()):
        return None
    seen = logits.argmax(dim=1)  # B D H W
    return ~known.gather(1, seen.flatten(1)).unflatten(1, seen.shape[1:])
