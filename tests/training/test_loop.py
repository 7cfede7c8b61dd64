"""A few steps of training on made-up cases: what is learnt, what is written, and what a kill leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import labelled
import numpy as np
import pytest
import tiny
import torch
from labelled import make_case
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_sparsetok.model import SCD
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.augmentation import Windows
from napari_sparsetok.training.configuration import TrainingConfig, read_recipe
from napari_sparsetok.training.loop import CHECKPOINT, Examples, Watch, learning_rate, train
from napari_sparsetok.training.objective import Objective, draw_keep_ratios
from napari_sparsetok.training.run import _best_precision
from napari_sparsetok.training.validation import mean_dice, predict

CASES = [make_case(k) for k in range(3)]


def run(out: Path, recipe=None, watch=Watch(), **kwargs):  # noqa: B008 - frozen
    fabric = Fabric(accelerator="cpu", devices=1)
    return train(fabric, recipe or labelled.recipe(), Examples(CASES, CASES[:1]), out, watch=watch, **kwargs)


def same(a: SCD, b: SCD) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "log.csv").read_text().splitlines()))


def test_a_short_run_leaves_a_table_pictures_events_and_a_checkpoint(tmp_path):
    model = run(tmp_path)
    assert not model.training
    steps = [row for row in rows(tmp_path) if row["loss"]]
    assert [int(row["step"]) for row in steps] == [1, 2, 3]
    assert all(np.isfinite(float(row["loss"])) for row in steps)
    assert [row["dice_keep_ratio"] for row in rows(tmp_path) if row["dice"]] == ["0.25", "1.0"]
    assert [p.name for p in sorted((tmp_path / "samples").glob("*.png"))] == ["step_000002.png", "step_000003.png"]
    assert list((tmp_path / "tensorboard").iterdir())
    stored = load_file(tmp_path / CHECKPOINT)
    assert torch.equal(stored["averaged.norm.weight"], model.norm.weight)


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    assert same(first, again)
    assert not same(first, run(tmp_path / "c", labelled.recipe(seed=1)))


class _Cut(Exception):
    """The run ends here, as if the power went."""


@pytest.mark.parametrize("deep_supervision", [0.0, 0.5])
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, deep_supervision):
    recipe = labelled.recipe(steps=5, checkpoint_seconds=0.0, deep_supervision=deep_supervision)
    whole = run(tmp_path / "whole", recipe)

    def cut(step):
        if step.step == 4:  # after the step, before its checkpoint
            raise _Cut

    with pytest.raises(_Cut):
        run(tmp_path / "cut", recipe, Watch(on_step=cut))
    with (tmp_path / "cut" / "log.csv").open("a") as file:
        file.write("4,12")  # a row that a kill cut in half
    assert same(whole, run(tmp_path / "cut", recipe))
    assert [int(r["step"]) for r in rows(tmp_path / "cut") if r["loss"]] == [1, 2, 3, 4, 5]


def test_a_finished_run_is_not_trained_further(tmp_path):
    first = run(tmp_path)
    seen = []
    assert same(first, run(tmp_path, watch=Watch(on_step=seen.append)))
    assert seen == []


def test_a_folder_with_a_run_of_another_recipe_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ScanError, match="another recipe"):
        run(tmp_path, labelled.recipe(rate=1e-3))


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_damaged_checkpoint_is_refused_in_words(tmp_path, keep):
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ScanError, match="choose another folder"):
        run(tmp_path)


def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path):
    """The command itself, killed without warning in the middle, and run again to the end."""
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    config = tmp_path / "config.json"
    config.write_text(json.dumps(labelled.recipe(steps=400, checkpoint_seconds=0.0, evaluate_every=400).to_json()))
    command = [sys.executable, "-m", "napari_sparsetok.cli", "train", str(root), "--out", str(out)]
    process = subprocess.Popen([*command, "--config", str(config)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert (out / CHECKPOINT).exists(), said
    done = len([row for row in rows(out) if row["loss"]])
    assert 0 < done < 400
    seen = []

    def stop(step):
        seen.append(step.step)
        raise _Cut

    # Going on in this process, on the same precision as the command chose, for one step.
    fabric = Fabric(accelerator="cpu", devices=1, precision=_best_precision("cpu"))
    with pytest.raises(_Cut):
        train(fabric, read_recipe(config), Examples(CASES, CASES[:1]), out, watch=Watch(on_step=stop))
    assert seen[0] in (done, done + 1)
    assert len([row for row in rows(out) if row["loss"]]) in (done - 1, done)


def test_training_finds_the_box_and_the_scores_learn_where_it_is(tmp_path):
    """Eighty steps on one easy case: enough to see both losses do their work."""
    case = make_case(0, (16, 20, 16))
    recipe = labelled.recipe(
        steps=80, batch=1, rate=3e-3, warmup=5, windows=((16,), (20,), (16,)), average_decay=0.5, evaluate_every=80
    )
    model = train(Fabric(accelerator="cpu", devices=1), recipe, Examples([case], [case]), tmp_path)
    assert mean_dice(model, [case], 1.0)[0] > 0.3
    with torch.inference_mode():
        _, record = model(torch.from_numpy(case.image)[None], 0.5)
    touches = torch.nn.functional.max_pool3d(torch.from_numpy(case.labels[None] > 0).float(), 4)[0] > 0
    scores = record.scores[0][0]
    assert scores[touches].mean() > scores[~touches].mean()


def objective(**training) -> tuple[Objective, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    config = replace(labelled.SHORT, **training)
    batch = Windows(config).draw(CASES, np.random.default_rng(0))
    return Objective(SCD(tiny.CONFIG).train(), config), (batch.images, batch.labels, batch.known)


def test_the_segmentation_loss_alone_reaches_the_score_networks():
    """Through the straight-through estimator: no other path leads from the mask to the scores."""
    made, batch = objective(score_weight=0.0)
    made(*batch, (0.5,)).total.backward()
    for network in made.model.scores:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_sandwich_is_the_mean_over_its_ratios_and_teaches_the_sparse_ones():
    made, batch = objective(ratios="sandwich", distillation=0.5, score_weight=0.0)
    torch.manual_seed(1)
    found = made(*batch, (1.0, 0.05, 0.3))
    assert found.distillation > 0
    assert found.total.item() == pytest.approx((found.segmentation + 0.5 * found.distillation).item(), rel=1e-5)
    alone = made(*batch, (1.0,))
    assert alone.distillation == 0


def test_deep_supervision_is_a_loss_of_the_features_at_half_resolution():
    made, batch = objective(deep_supervision=0.5)
    found, felt = {}, []
    made.model.decoder.ups[1].register_forward_hook(lambda module, given, half: found.setdefault("half", half))
    made.model.decoder.out.register_forward_hook(lambda module, given, logits: found.setdefault("logits", logits))
    losses = made(*batch, (0.5,))
    images, labels, known = batch
    coarse = torch.nn.functional.interpolate(made.coarse(found["half"]), images.shape[2:], mode="trilinear")
    expected = made._loss(found["logits"], labels, known) + 0.5 * made._loss(coarse, labels, known)
    torch.testing.assert_close(losses.segmentation, expected / 1.5)
    found["half"].register_hook(felt.append)
    losses.segmentation.backward()
    assert made.coarse.weight.grad.abs().sum() > 0
    assert felt[0].abs().sum() > 0


def test_the_layer_of_deep_supervision_learns_and_is_forgotten(tmp_path):
    model = run(tmp_path / "deep", labelled.recipe(deep_supervision=0.5))
    plain = run(tmp_path / "plain")
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not same(model, plain)
    stored = load_file(tmp_path / "deep" / CHECKPOINT)
    assert any(key.startswith("coarse.") for key in stored)
    torch.manual_seed(0)
    untrained = Objective(SCD(tiny.CONFIG), replace(labelled.SHORT, deep_supervision=0.5)).coarse
    assert not torch.equal(stored["coarse.weight"], untrained.weight)


def test_a_run_from_before_deep_supervision_goes_on():
    assert "deep_supervision" not in labelled.recipe().to_json()["training"]
    deep = labelled.recipe(deep_supervision=0.5)
    assert type(deep).from_json(json.loads(json.dumps(deep.to_json()))).training.deep_supervision == 0.5


def test_keep_ratios_are_drawn_as_the_recipe_says():
    rng = np.random.default_rng(0)
    drawn = [draw_keep_ratios(TrainingConfig(dense_share=0.3, min_keep=0.1), rng) for _ in range(400)]
    assert 0.2 < sum(r == (1.0,) for r in drawn) / 400 < 0.4
    assert all(0.1 <= r[0] <= 1 for r in drawn)
    dense, least, between = draw_keep_ratios(TrainingConfig(ratios="sandwich", min_keep=0.1), rng)
    assert (dense, least) == (1.0, 0.1)
    assert draw_keep_ratios(TrainingConfig(ratios="fixed", min_keep=0.25), rng) == (0.25,)
    assert 0.1 <= between <= 1


def test_gradients_of_several_batches_make_one_step(tmp_path):
    recipe = labelled.recipe(steps=1, accumulate=3, warmup=0)
    assert not same(run(tmp_path / "a", recipe), run(tmp_path / "b", labelled.recipe(steps=1, warmup=0)))


def test_the_rate_rises_then_falls_by_steps_or_by_the_clock():
    training = TrainingConfig(steps=1000, warmup=10, rate=1.0, minutes=10)
    assert learning_rate(5, 0, training) == 0.5
    assert learning_rate(10, 0, training) == 1.0
    assert learning_rate(1000, 0, training) == pytest.approx(0.01)
    assert learning_rate(50, 600, training) == pytest.approx(0.01)
    assert learning_rate(50, 300, training) == pytest.approx(0.505)


def test_a_loss_that_is_no_number_ends_the_run_in_words(tmp_path):
    with pytest.raises(ScanError, match="no longer a number"):
        run(tmp_path, labelled.recipe(rate=1e18, steps=50, clip=1e18, warmup=0))


class _Poison(torch.autograd.Function):
    """Its value is fine, and its gradient is not."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_a_gradient_that_is_no_number_ends_the_run_before_it_reaches_weights_or_checkpoint(tmp_path, monkeypatch):
    recipe, forward = labelled.recipe(steps=4, checkpoint_seconds=0.0), Objective.forward
    calls = []

    def poisoned(self, *batch):
        calls.append(None)
        losses = forward(self, *batch)
        return losses._replace(total=_Poison.apply(losses.total)) if len(calls) == 3 else losses

    monkeypatch.setattr(Objective, "forward", poisoned)
    with pytest.raises(ScanError, match="at step 3 .* no longer a number"):
        run(tmp_path / "cut", recipe)
    stored = load_file(tmp_path / "cut" / CHECKPOINT)
    assert all(bool(torch.isfinite(value).all()) for value in stored.values())
    monkeypatch.undo()
    assert same(run(tmp_path / "whole", recipe), run(tmp_path / "cut", recipe))  # from step 2, as if nothing had been


def test_the_loss_of_a_step_is_of_all_its_batches(tmp_path, monkeypatch):
    found, forward = [], Objective.forward

    def watched(self, *batch):
        losses = forward(self, *batch)
        found.append(losses.total.item())
        return losses

    monkeypatch.setattr(Objective, "forward", watched)
    run(tmp_path, labelled.recipe(steps=1, accumulate=3))
    assert len(found) == 3
    logged = [float(row["loss"]) for row in rows(tmp_path) if row["loss"]]
    assert logged == [pytest.approx(np.mean(found), rel=1e-4)]


def test_a_loss_that_is_no_number_in_any_batch_ends_the_run(tmp_path, monkeypatch):
    calls, forward = [], Objective.forward

    def broken(self, *batch):
        calls.append(None)
        losses = forward(self, *batch)
        return losses._replace(total=losses.total * float("nan")) if len(calls) == 1 else losses

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(ScanError, match="at step 1 .* no longer a number"):
        run(tmp_path, labelled.recipe(accumulate=3))


def test_what_the_loss_is_scaled_by_goes_on_too(tmp_path):
    """The scaler of 16-bit floats needs no GPU for its state to be kept."""
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    recipe = labelled.recipe(steps=2)
    train(Fabric(accelerator="cpu", devices=1, plugins=precision), recipe, Examples(CASES, []), tmp_path)
    kept = json.loads(safe_open(tmp_path / CHECKPOINT, "pt").metadata()["precision_state"])
    assert kept["scale"] == precision.state_dict()["scale"]
    other = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0))
    train(Fabric(accelerator="cpu", devices=1, plugins=other), recipe, Examples(CASES, []), tmp_path)
    assert other.state_dict() == precision.state_dict()


def test_a_run_goes_on_in_its_own_precision_only(tmp_path):
    run(tmp_path)
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    with pytest.raises(ScanError, match=r"--precision 32-true"):
        train(half, labelled.recipe(), Examples(CASES, []), tmp_path)


def test_a_checkpoint_from_before_precision_was_noted_goes_on(tmp_path):
    first = run(tmp_path)
    path = tmp_path / CHECKPOINT
    with safe_open(path, "pt") as file:
        about = {key: file.metadata()[key] for key in ("step", "seconds", "digest")}
    save_file(load_file(path), path, metadata=about)
    assert same(first, run(tmp_path))


def test_dice_is_taken_where_a_label_was_drawn_only():
    case = make_case(0, (17, 21, 15), known=(True, False, True))
    first, second = mean_dice(SCD(tiny.CONFIG).eval(), [case], 0.5)
    assert np.isnan(first)
    assert 0 <= second <= 1


def test_a_prediction_knows_where_tokens_were_pruned():
    case = make_case(0, (17, 21, 15))
    seen = predict(SCD(tiny.CONFIG).eval(), case, 0.25)
    assert seen.labels.shape == seen.stage.shape == case.labels.shape
    assert set(np.unique(seen.stage)) == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"min_keep": 0},
        {"ratios": "burger"},
        {"distillation": 1.0},
        {"batch": -1},
        {"deep_supervision": -0.5},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="must|is “random”|needs"):
        TrainingConfig(**wrong)
