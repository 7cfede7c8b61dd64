"""What training minimises, for cases of which only some labels were drawn too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from napari_sparsetok.model import TokenRecord


class PartialDiceCE(nn.Module):
    """Dice + cross-entropy where some labels of a case may be unknown.

    A label that nobody drew may hide in what the case calls background. So there its probability counts as
    background's (the marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised
    multi-organ segmentation", 2021), and its Dice is left out. Dice is taken over the batch, and only of labels that
    the batch holds: of the others the cross-entropy speaks.

    weights : (K,) what a voxel of each label counts in the cross-entropy, None for all alike.
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self._dice = DiceLoss(include_background=False, batch=True, reduction="none")

    def forward(self, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        logits : (B, K, D, H, W), background first.
        labels : (B, 1, D, H, W) int64.
        known : (B, K) bool, the labels that were drawn in each case; background is always known.
        """
        log_p = marginal_log_probability(logits, known)
        entropy = F.nll_loss(log_p, labels[:, 0], weight=self.weights)
        target = torch.zeros_like(log_p).scatter_(1, labels, 1.0)
        held = target.sum(dim=(0, 2, 3, 4))[1:] > 0  # K-1
        if not bool(held.any()):
            return entropy
        each = self._dice(log_p.exp(), target).flatten()  # K-1
        return entropy + each[held].mean()


def label_weights(voxels: Tensor, known: Tensor, balance: float) -> Tensor:
    """Weights (K,) of the labels in the cross-entropy: the share of voxels of a label, to the power of -`balance`.

    At 0 all are alike; at 1 a label counts as much as any other however small it is. Background has weight 1.

    Parameters
    ----------
    voxels : (cases, K) how many of each label a case has.
    known : (cases, K) bool, what was drawn; a label's share is of the cases where it was.
    """
    total = (voxels.sum(dim=1, keepdim=True) * known).sum(dim=0)  # K
    share = (voxels * known).sum(dim=0) / total.clamp(min=1)
    weights = torch.where(share > 0, share.clamp(min=1e-9) ** -balance, 1.0)
    return weights / weights[0]


def marginal_log_probability(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities (B, K, D, H, W) with those of unknown labels (B, K) moved to background."""
    log_p = F.log_softmax(logits, dim=1)
    hidden = ~known[:, :, None, None, None]  # B K 1 1 1
    merged = log_p.masked_fill(~hidden, -torch.inf)
    background = torch.logsumexp(torch.cat([log_p[:, :1], merged[:, 1:]], dim=1), dim=1, keepdim=True)
    # Minus a large number, not infinity: exp() of it is 0, and its gradient is too.
    return torch.cat([background, log_p[:, 1:].masked_fill(hidden[:, 1:], -1e4)], dim=1)


def score_loss(record: TokenRecord, labels: Tensor, patch: int, unsure: Tensor | None = None) -> Tensor:
    """Cross-entropy of every stage's scores against "this token touches a labelled structure".

    Parameters
    ----------
    record : of one forward pass, with its gradient.
    labels : (B, 1, D, H, W).
    patch : voxels along the edge of a patch.
    unsure : (B, D, H, W) bool, voxels that may belong to a label nobody drew; their tokens teach nothing unless they
        touch a label as well.
    """
    touches = F.max_pool3d((labels > 0).float(), patch)[:, 0]  # B d h w
    counts = torch.ones_like(touches, dtype=torch.bool)
    if unsure is not None:
        counts = (F.max_pool3d(unsure.float()[:, None], patch)[:, 0] == 0) | (touches > 0)
    losses = []
    for scores in record.scores:
        there = ~scores.isnan() & counts
        log_yes = scores[there].clamp(max=-1e-6)
        log_no = torch.log(-torch.expm1(log_yes))
        target = touches[there]
        losses.append(-(target * log_yes + (1 - target) * log_no.clamp(min=-20)).mean())
    return torch.stack(losses).nan_to_num().mean()


def distillation_loss(sparse: Tensor, dense: Tensor) -> Tensor:
    """Kullback-Leibler divergence of sparse logits (B, K, D, H, W) from the dense network's, which get no gradient."""
    student, teacher = F.log_softmax(sparse, dim=1), F.log_softmax(dense.detach(), dim=1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()
