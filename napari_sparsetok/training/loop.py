"""The training loop: one set of weights for every keep ratio."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from safetensors.torch import save_file
from torch import Tensor

from napari_sparsetok.metrics import dice
from napari_sparsetok.model import SCD, SCDConfig, TokenRecord
from napari_sparsetok.training import augmentation
from napari_sparsetok.training.dataset import Case


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how hard to train.

    windows : sides that a window may have along z, y, x; each step draws one of each.
    min_keep : smallest keep ratio that training meets.
    dense_share : share of the steps that keep every token.
    score_weight : weight of the cross-entropy between a token's score and whether it touches a label.
        The published loss has none of it; see docs/experiments.md for why it is here.
    """

    steps: int = 4000
    batch: int = 4
    rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 150
    windows: tuple[tuple[int, ...], ...] = ((32, 36, 40), (44, 48, 52), (32, 36, 40))
    min_keep: float = 0.05
    dense_share: float = 0.2
    score_weight: float = 0.1
    average_decay: float = 0.998
    mirror: bool = False
    seed: int = 0
    evaluate_every: int = 400


def score_loss(record: TokenRecord, labels: Tensor, patch: int) -> Tensor:
    """Cross-entropy of every stage's scores against "this token touches a labelled structure".

    Parameters
    ----------
    record : of one forward pass, with its gradient.
    labels : (B, 1, D, H, W).
    patch : voxels along the edge of a patch.
    """
    touches = F.max_pool3d((labels > 0).float(), patch)[:, 0]  # B d h w
    losses = []
    for scores in record.scores:
        there = ~scores.isnan()
        log_yes = scores[there].clamp(max=-1e-6)
        log_no = torch.log(-torch.expm1(log_yes))
        target = touches[there]
        losses.append(-(target * log_yes + (1 - target) * log_no.clamp(min=-20)).mean())
    return torch.stack(losses).mean()


def train(config: SCDConfig, training: TrainingConfig, cases: Sequence[Case], val: Sequence[Case], out: Path) -> SCD:
    """Train, logging to `out`/log.csv and saving the averaged weights as it goes.

    Returns
    -------
    The network with the averaged weights, ready for inference.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps({"model": asdict(config), "training": asdict(training)}, indent=1))
    torch.manual_seed(training.seed)
    trainer = _Trainer(config, training, cases)
    started = time.monotonic()
    with (out / "log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "seconds", "rate", "keep_ratio", "loss", "score_loss", "val_keep_ratio", "val_dice"])
        for step in range(1, training.steps + 1):
            row = [step, f"{time.monotonic() - started:.1f}", *trainer.step(step)]
            if step % training.evaluate_every == 0 or step == training.steps:
                ratio = 1.0 if step == training.steps else 0.25
                row += [ratio, " ".join(f"{d:.4f}" for d in mean_dice(trainer.averaged, val, ratio))]
                save_file(trainer.averaged.state_dict(), out / "weights.safetensors")
            log.writerow(row)
            file.flush()
    return trainer.averaged


class _Trainer:
    """Network, averaged network and optimiser, a step at a time."""

    def __init__(self, config: SCDConfig, training: TrainingConfig, cases: Sequence[Case]) -> None:
        self._training, self._cases, self._patch = training, cases, config.patch
        self._rng = np.random.default_rng(training.seed)
        self._augment = augmentation.build(training.mirror)
        self._augment.set_random_state(training.seed)
        self._model = SCD(config).train()
        self.averaged = SCD(config).eval()
        self.averaged.load_state_dict(self._model.state_dict())
        self._optimiser = torch.optim.AdamW(
            _groups(self._model, training.weight_decay), lr=training.rate, betas=(0.9, 0.95)
        )
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)

    def step(self, step: int) -> list[str]:
        """One step; what the log says of it: rate, keep ratio, loss and score loss."""
        training = self._training
        rate = _schedule(step, training)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        images, labels = _draw(self._cases, training, self._rng, self._augment)
        keep = self._keep_ratio()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, record = self._model(images, keep)
        of_scores = score_loss(record, labels, self._patch)
        loss = self._loss(logits.float(), labels) + training.score_weight * of_scores
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        _average(self.averaged, self._model, min(training.average_decay, step / (step + 10)))
        return [f"{rate:.2e}", f"{keep:.3f}", f"{loss.item():.4f}", f"{of_scores.item():.4f}"]

    def _keep_ratio(self) -> float:
        if self._rng.random() < self._training.dense_share:
            return 1.0
        return math.exp(self._rng.uniform(math.log(self._training.min_keep), 0))


@torch.inference_mode()
def mean_dice(model: SCD, cases: Sequence[Case], keep_ratio: float) -> list[float]:
    """Dice of each label, averaged over cases; each case is one window, padded to whole patches."""
    model.eval()
    rows = []
    for case in cases:
        shape = case.labels.shape
        pads = [(-side) % model.config.patch for side in shape]
        padded = np.pad(case.image, [(0, 0), *((0, p) for p in pads)], mode="edge")
        logits, _ = model(torch.from_numpy(padded)[None], keep_ratio)
        predicted = logits[0].argmax(0).numpy()[: shape[0], : shape[1], : shape[2]]
        rows.append([dice(predicted == k, case.labels == k) for k in range(1, model.config.out_channels)])
    return [float(v) for v in np.nanmean(np.asarray(rows), axis=0)]


def _draw(
    cases: Sequence[Case], training: TrainingConfig, rng: np.random.Generator, augment: Any
) -> tuple[Tensor, Tensor]:
    z, y, x = (int(rng.choice(sides)) for sides in training.windows)
    picked = rng.choice(len(cases), size=training.batch, replace=False)
    return augmentation.batch([cases[i] for i in picked], (z, y, x), augment)


def _schedule(step: int, training: TrainingConfig) -> float:
    if step <= training.warmup:
        return training.rate * step / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    return training.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def _groups(model: SCD, weight_decay: float) -> list[dict[str, object]]:
    """Only matrices and kernels decay; norms, biases and tokens do not."""
    decayed = [p for p in model.parameters() if p.ndim > 1 and p.shape[0] != 1]
    plain = [p for p in model.parameters() if p.ndim <= 1 or p.shape[0] == 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def _average(averaged: SCD, model: SCD, decay: float) -> None:
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
