"""The loss, where all labels were drawn and where some were not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from napari_sparsetok.model import TokenRecord
from napari_sparsetok.training.loss import (
    PartialDiceCE,
    distillation_loss,
    label_weights,
    marginal_log_probability,
    score_loss,
)


def batch(seed: int = 0, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 5, 6, generator=generator)
    labels = torch.randint(0, classes, (2, 1, 4, 5, 6), generator=generator)
    return logits, labels, torch.ones(2, classes, dtype=torch.bool)


def test_with_all_labels_drawn_it_is_monai_s_dice_and_cross_entropy():
    logits, labels, known = batch()
    theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    # MONAI leaves background out of the cross-entropy too if it is left out of Dice, which is not meant here.
    dice = theirs.dice(logits, labels)
    entropy = F.cross_entropy(logits, labels[:, 0])
    assert PartialDiceCE()(logits, labels, known).item() == pytest.approx((dice + entropy).item(), rel=1e-5)


def test_probabilities_still_sum_to_one_and_unknown_labels_have_none():
    logits, _, known = batch()
    known[0, 2] = False
    p = marginal_log_probability(logits, known).exp()
    assert torch.allclose(p.sum(1), torch.ones(2, 4, 5, 6), atol=1e-6)
    assert p[0, 2].max() == 0
    whole = F.softmax(logits, dim=1)
    assert torch.allclose(p[0, 0], whole[0, 0] + whole[0, 2], atol=1e-6)
    assert torch.allclose(p[1], whole[1], atol=1e-6)


def test_seeing_an_undrawn_label_in_background_costs_nothing():
    logits = torch.zeros(1, 3, 4, 4, 4)
    labels = torch.zeros(1, 1, 4, 4, 4, dtype=torch.long)
    labels[..., 0] = 1
    seen = logits.clone()
    seen[:, 1, ..., 0] = 20  # the drawn label, where it was drawn
    seen[:, 2, ..., 1:] = 20  # the undrawn one everywhere else
    known = torch.tensor([[True, True, False]])
    assert PartialDiceCE()(seen, labels, known).item() < 1e-3
    assert PartialDiceCE()(seen, labels, torch.ones_like(known)).item() > 5


def test_an_undrawn_label_where_another_was_drawn_is_an_error():
    labels = torch.ones(1, 1, 4, 4, 4, dtype=torch.long)
    seen = torch.zeros(1, 3, 4, 4, 4)
    seen[:, 2] = 10
    assert PartialDiceCE()(seen, labels, torch.tensor([[True, True, False]])).item() > 5


def test_gradients_are_finite_with_unknown_labels_and_windows_of_background():
    logits, labels, known = batch()
    known[:, 1:] = False
    logits.requires_grad_(True)
    PartialDiceCE()(logits, torch.zeros_like(labels), known).backward()
    assert torch.isfinite(logits.grad).all()


def scores_of(logits: torch.Tensor) -> TokenRecord:
    return TokenRecord((F.logsigmoid(logits),), torch.zeros(1, 2, 2, 2, dtype=torch.uint8))


def corner() -> torch.Tensor:
    labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.long)
    labels[..., :4, :4, :4] = 1  # the first token, and nothing else
    return labels


def test_the_score_loss_teaches_the_scores_where_the_labels_are():
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = score_loss(scores_of(logits), corner(), patch=4)
    assert loss.item() == pytest.approx(np.log(2))
    loss.backward()
    gradient = logits.grad.flatten()
    assert gradient[0] < 0  # up with the score of the token that touches the label
    assert (gradient[1:] > 0).all()


def test_tokens_that_may_hold_an_undrawn_label_teach_nothing():
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    unsure = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    unsure[..., :4, :4, :4] = True  # touches a label too, so it counts
    unsure[:, 7, 7, 7] = True
    score_loss(scores_of(logits), corner(), patch=4, unsure=unsure).backward()
    gradient = logits.grad.flatten()
    assert gradient[0] < 0
    assert gradient[7] == 0
    assert (gradient[1:7] > 0).all()


def test_tokens_that_were_gone_teach_nothing():
    labels = torch.ones(1, 1, 8, 8, 8, dtype=torch.long)
    scores = torch.full((1, 2, 2, 2), -0.1)
    scores[0, 0, 0, 0] = float("nan")
    loss = score_loss(TokenRecord((scores,), torch.zeros(1, 2, 2, 2)), labels, patch=4)
    assert loss.item() == pytest.approx(0.1)


def test_the_teacher_is_not_taught():
    logits, _, _ = batch()
    sparse, dense = logits.clone().requires_grad_(True), (logits + 1).requires_grad_(True)
    assert distillation_loss(sparse, dense).item() == pytest.approx(0, abs=1e-6)
    distillation_loss(sparse, dense * torch.arange(4.0)[None, :, None, None, None]).backward()
    assert dense.grad is None
    assert sparse.grad.abs().sum() > 0


def test_a_rare_label_counts_more_by_its_share_where_it_was_drawn():
    voxels = torch.tensor([[900, 90, 10], [1000, 0, 0]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    weights = label_weights(voxels, known, 0.5)
    # Background: 1900 of 2000; the second label: 90 of 2000; the third: 10 of the 1000 voxels in which it was sought.
    shares = torch.tensor([0.95, 0.045, 0.01])
    assert torch.allclose(weights, (shares[0] / shares) ** 0.5)
    assert torch.equal(label_weights(voxels, known, 0.0), torch.ones(3))


def test_a_label_that_no_case_holds_has_a_finite_weight():
    weights = label_weights(torch.tensor([[10, 0]]), torch.tensor([[True, True]]), 1.0)
    assert torch.isfinite(weights).all()


def test_weights_raise_what_it_costs_to_miss_a_rare_label():
    logits, labels, known = batch()
    labels[:] = 0
    labels[..., 0, 0, 0] = 3
    missed = logits.clone().fill_(0)
    missed[:, 0] = 5
    weights = torch.tensor([1.0, 1.0, 1.0, 20.0])
    assert PartialDiceCE(weights)(missed, labels, known) > PartialDiceCE()(missed, labels, known) + 0.1
