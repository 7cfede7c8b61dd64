"""The training loop: one set of weights for every keep ratio."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from napari_sparsetok.model import SCD, SCDConfig
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training import checkpoint
from napari_sparsetok.training.augmentation import Windows
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.checkpoint import Parts, Place, Terms
from napari_sparsetok.training.configuration import Recipe, TrainingConfig
from napari_sparsetok.training.journal import Journal, Step
from napari_sparsetok.training.loss import label_weights
from napari_sparsetok.training.objective import Losses, Objective, draw_keep_ratios
from napari_sparsetok.training.plot import picture
from napari_sparsetok.training.validation import mean_dice

T = TypeVar("T")

CHECKPOINT = "checkpoint.safetensors"
_GLANCE = 0.25  # keep ratio at which a run is looked at on its way


@dataclass(frozen=True)
class Watch:
    """How a run talks to whoever waits for it.

    on_step : every step that was done.
    on_dice : Dice of each label on the val cases at a keep ratio, after some steps.
    """

    on_step: Callable[[Step], None] = lambda step: None
    on_dice: Callable[[int, float, Sequence[float]], None] = lambda step, keep_ratio, dice: None


class Examples(NamedTuple):
    """What is learnt from, and what Dice is taken of on the way; `digest` tells them from others."""

    train: Sequence[Case]
    val: Sequence[Case]
    digest: str = ""


def train(
    fabric: Fabric,
    recipe: Recipe,
    examples: Examples,
    out: Path,
    *,
    init: Mapping[str, Tensor] | None = None,
    watch: Watch = Watch(),
) -> SCD:
    """Train, or go on with a run that was cut off, saving as it goes.

    Parameters
    ----------
    fabric : on what it runs; launched.
    out : the run's folder; if it holds a checkpoint of the same recipe and cases, the run goes on from there.
    init : weights to start from, by name; those that are missing start at random.

    Returns
    -------
    The network with the averaged weights, ready for inference.

    Raises
    ------
    ScanError : the folder holds a run of another recipe, other cases or another start, the loss is no longer a
        number, or the disk refuses.
    """
    trainer = _Trainer(fabric, recipe, examples, out / CHECKPOINT, init)
    place = trainer.resume()
    with ExitStack() as stack:
        journal = stack.enter_context(closing(Journal(out, place.step))) if fabric.is_global_zero else None
        _go_on(fabric, trainer, place, journal, examples.val, watch)
    fabric.barrier()
    return trainer.averaged


def _go_on(
    fabric: Fabric, trainer: _Trainer, place: Place, journal: Journal | None, val: Sequence[Case], watch: Watch
) -> None:
    started, saved = time.monotonic() - place.seconds, time.monotonic()
    training, step = trainer.training, place.step
    last = _is_last(step, place.seconds, training)
    while not last:
        step += 1
        report = trainer.step(step, _agreed(fabric, time.monotonic() - started))
        last = _agreed(fabric, _is_last(step, report.seconds, training))
        watch.on_step(report)
        if not journal:
            continue
        journal.step(report)
        if step % training.evaluate_every == 0 or last:
            ratio = 1.0 if last else _GLANCE
            found = mean_dice(trainer.averaged, val, ratio)
            journal.look(step, ratio, found, picture(trainer.averaged, val, ratio))
            watch.on_dice(step, ratio, found)
        if last or time.monotonic() - saved > training.checkpoint_seconds:
            trainer.save(step, time.monotonic() - started)
            saved = time.monotonic()


class _Trainer:
    """Network, averaged network and optimiser, a step at a time. A step depends on its number, not on those before."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        examples: Examples,
        path: Path,
        init: Mapping[str, Tensor] | None,
    ) -> None:
        self._fabric, self._recipe, self._cases, self._path = fabric, recipe, examples.train, path
        self._learns_from, self._starts_from = examples.digest, _digest(init or {})
        self.training = recipe.training
        self._windows = Windows(recipe.training, recipe.network.empty)
        torch.manual_seed(recipe.training.seed)
        self._model = SCD(recipe.network).train()
        if init is not None:
            self._model.load_state_dict(self._model.state_dict() | dict(init))
        self.averaged = _copy(self._model, recipe.network).to(fabric.device)
        objective = Objective(self._model, recipe.training, _weights(self._cases, recipe.training.balance))
        self._coarse = objective.coarse
        self._adam = torch.optim.AdamW(
            _groups(objective, recipe.training.weight_decay), lr=recipe.training.rate, betas=(0.9, 0.95)
        )
        self._objective, self._optimiser = fabric.setup(objective, self._adam)

    def resume(self) -> Place:
        """Fill from the checkpoint, if there is one. The first process reads it for all, wherever they run.

        Raises
        ------
        ScanError : it is damaged, or another run's.
        """
        stored, words = None, ""
        if self._fabric.is_global_zero and self._path.exists():
            try:
                stored = checkpoint.read(self._path, self._terms)
            except ScanError as error:
                words = str(error)
        stored, words = _agreed(self._fabric, (stored, words))
        if words:
            raise ScanError(words)
        return checkpoint.fill(stored, self._parts, self._path) if stored else Place(0, 0.0)

    def save(self, step: int, seconds: float) -> None:
        """Write the checkpoint."""
        checkpoint.save(self._path, Place(step, seconds), self._terms, self._parts)

    def step(self, step: int, seconds: float) -> Step:
        """One step, `seconds` after the run began.

        Raises
        ------
        ScanError : the loss is no longer a number.
        """
        training, fabric = self.training, self._fabric
        begun = time.monotonic()
        rate = learning_rate(step, seconds, training)
        for group in self._adam.param_groups:
            group["lr"] = rate
        # One generator for each step and process; the keep ratios are the same on all of them, so that none waits.
        ratios = draw_keep_ratios(training, np.random.default_rng((training.seed, step)))
        rng = np.random.default_rng((training.seed, step, 1 + fabric.global_rank))
        torch.manual_seed(int(rng.integers(2**63)))
        losses = self._gradients(rng, ratios)
        norm = fabric.clip_gradients(self._objective, self._optimiser, max_norm=training.clip, error_if_nonfinite=False)
        # Clipping by an infinite norm makes NaN of every gradient. A scaler leaves such a step out; nobody else does.
        finite = norm is None or bool(torch.isfinite(norm)) or self._scales
        if not (finite and math.isfinite(losses.total.item())):
            words = f"at step {step} the loss or its gradient is no longer a number"
            raise ScanError(f"{words}; lower the rate, and start in a new folder")
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        _average(self.averaged, self._model, min(training.average_decay, step / (step + 10)))
        return _report(step, seconds + time.monotonic() - begun, rate, ratios, losses, training)

    def _gradients(self, rng: np.random.Generator, ratios: Sequence[float]) -> Losses:
        """Losses of one step, as means over its batches; the gradients are left on the network."""
        fabric, turns, found = self._fabric, self.training.accumulate, []
        for turn in range(turns):
            batch = self._windows.draw(self._cases, rng).to(fabric.device)
            with fabric.no_backward_sync(self._objective, enabled=turn + 1 < turns):
                losses: Losses = self._objective(batch.images, batch.labels, batch.known, ratios)
                fabric.backward(losses.total / turns)
            found.append([part.detach() for part in losses])
        return Losses(*(torch.stack(parts).mean() for parts in zip(*found, strict=True)))

    @property
    def _scales(self) -> bool:
        return getattr(self._fabric.strategy.precision, "scaler", None) is not None

    @property
    def _terms(self) -> Terms:
        fabric = self._fabric
        precision = str(fabric.strategy.precision.precision)
        return Terms(self._recipe.digest, precision, fabric.world_size, self._learns_from, self._starts_from)

    @property
    def _parts(self) -> Parts:
        networks: dict[str, nn.Module] = {"model": self._model, "averaged": self.averaged}
        if self._coarse is not None:
            networks["coarse"] = self._coarse
        return Parts(networks, self._adam, self._fabric.strategy.precision)


def is_finished(out: Path, training: TrainingConfig) -> bool:
    """Whether a run's folder holds one that has nothing more to do.

    Raises
    ------
    ScanError : its checkpoint is damaged.
    """
    if not (out / CHECKPOINT).exists():
        return False
    place = checkpoint.place(out / CHECKPOINT)
    return _is_last(place.step, place.seconds, training)


def learning_rate(step: int, seconds: float, training: TrainingConfig) -> float:
    """A linear start, then half a cosine down to a hundredth, over the steps or the minutes, whichever end first."""
    if step <= training.warmup:
        return training.rate * step / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    if training.minutes:
        done = max(done, seconds / 60 / training.minutes)
    return training.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def _is_last(step: int, seconds: float, training: TrainingConfig) -> bool:
    return step >= training.steps or bool(training.minutes and seconds > training.minutes * 60)


def _agreed(fabric: Fabric, value: T) -> T:
    """What the first process says; clocks and disks differ, and all must take the same steps at the same rate."""
    return fabric.broadcast(value) if fabric.world_size > 1 else value


def _report(
    step: int, seconds: float, rate: float, ratios: Sequence[float], losses: Losses, training: TrainingConfig
) -> Step:
    left = seconds / step * (training.steps - step)
    if training.minutes:
        left = max(0.0, min(left, training.minutes * 60 - seconds))
    cuda = torch.cuda.is_available()
    memory = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    return Step(
        step=step,
        steps=training.steps,
        seconds=seconds,
        left=left,
        rate=rate,
        keep_ratio=ratios[-1],
        loss=losses.total.item(),
        segmentation=losses.segmentation.item(),
        scores=losses.scores.item(),
        distillation=losses.distillation.item(),
        memory=memory,
    )


def _weights(cases: Sequence[Case], balance: float) -> Tensor | None:
    """Of the labels in the cross-entropy, by how rare they are."""
    if not balance:
        return None
    voxels = [np.bincount(case.labels.ravel(), minlength=len(case.known)) for case in cases]
    known = [case.known for case in cases]
    return label_weights(torch.from_numpy(np.stack(voxels)), torch.from_numpy(np.stack(known)), balance).float()


def _groups(objective: Objective, weight_decay: float) -> list[dict[str, object]]:
    """Only matrices and kernels decay; norms, biases and tokens do not."""
    decayed = [p for p in objective.parameters() if p.ndim > 1 and p.shape[0] != 1]
    plain = [p for p in objective.parameters() if p.ndim <= 1 or p.shape[0] == 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest() if weights else ""


def _copy(model: SCD, config: SCDConfig) -> SCD:
    copy = SCD(config).eval().requires_grad_(False)
    copy.load_state_dict(model.state_dict())
    return copy


@torch.no_grad()
def _average(averaged: SCD, model: SCD, decay: float) -> None:
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
