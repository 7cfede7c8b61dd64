"""The deletion test: do the scores name the tokens that the mask rests on?

Tokens are taken away before the first stage's end, worst-scored first, best-scored first or at random, and the mask is
compared with the dense network's. If scores mean something, it changes least in the first case and most in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.engine.contract import Segmenter
from napari_sparsetok.metrics import dice
from napari_sparsetok.state import Forced, Prediction

Order = Literal["worst", "random", "best"]
ORDERS: tuple[Order, ...] = ("worst", "random", "best")


@dataclass(frozen=True)
class Deleted:
    """One case without a share of its tokens.

    agreement : Dice against the dense prediction, mean over the labels that this one has.
    """

    share: float
    order: Order
    agreement: float


def delete_tokens(segmenter: Segmenter, dense: Prediction, shares: Sequence[float]) -> list[Deleted]:
    """Segment again without each share of the tokens, in each order.

    Parameters
    ----------
    dense : at keep ratio 1, on all of a scan.
    shares : 0 … 1, of the tokens that were looked at.
    """
    scores = dense.tokens.importance[0]
    found = []
    for share in shares:
        for order in ORDERS:
            signs = -taken(scores, share, order).astype(np.int8)
            settings = replace(dense.settings, forced=Forced.of(dense.region, signs))
            prediction = segmenter.segment(dense.scan, settings, region=dense.region)
            there = [label.id for label in dense.labels if (dense.mask == label.id).any()]
            agreement = [dice(prediction.mask == k, dense.mask == k) for k in there]
            found.append(Deleted(share, order, float(np.mean(agreement)) if agreement else float("nan")))
    return found


def taken(scores: NDArray[np.float32], share: float, order: Order) -> NDArray[np.bool_]:
    """Which tokens (d, h, w) go; those without a score were not looked at, and stay."""
    there = np.flatnonzero(~np.isnan(scores))
    by_score = there[np.argsort(scores.ravel()[there], kind="stable")]
    ordered = {"worst": by_score, "best": by_score[::-1], "random": np.random.default_rng(0).permutation(there)}[order]
    gone = np.zeros(scores.size, dtype=bool)
    gone[ordered[: round(share * there.size)]] = True
    return gone.reshape(scores.shape)


def deletion_summary(
    found: Sequence[Deleted], summary: Callable[[Sequence[float]], dict[str, float]]
) -> list[dict[str, Any]]:
    """For every share the mean agreement with its interval, by the order in which tokens went."""
    rows: list[dict[str, Any]] = []
    for share in sorted({d.share for d in found}):
        by_order = {order: [d.agreement for d in found if (d.share, d.order) == (share, order)] for order in ORDERS}
        rows.append({"share": share, **{order: summary(values) for order, values in by_order.items()}})
    return rows
