"""What the attention heads of one window do: how far each looks, and what changes without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.engine.contract import Probing, Reach, Segmenter
from napari_sparsetok.scan import Shape
from napari_sparsetok.state import Prediction
from napari_sparsetok.tokens import Lattice

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Heads:
    """Of one window.

    at : the voxel (z, y, x) whose window it is.
    reach : how far heads look.
    loss : (blocks, heads) what changes in the window's labels without a head; None if nobody asked.
    """

    at: Shape
    reach: Reach
    loss: NDArray[np.float32] | None

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A row for each head."""
        edges = self.reach.edges
        head = ["block", "head", "mean_mm", "loss_without"]
        head += [f"attention_{a:.1f}_to_{b:.1f}_mm" for a, b in pairwise(edges)]
        rows = []
        for block, number in np.ndindex(self.reach.mean.shape):
            loss = float("nan") if self.loss is None else round(float(self.loss[block, number]), 6)
            row = [block + 1, number + 1, round(float(self.reach.mean[block, number]), 3), loss]
            rows.append([*row, *(round(float(v), 6) for v in self.reach.share[block, number])])
        return head, rows

    def figure(self) -> Figure:
        """Attention against distance: a panel for each block, a line for each head, dashed if it were spread evenly."""
        from napari_sparsetok.inspection.plot import figure_of  # brings matplotlib, which is slow to load

        blocks, heads = self.reach.mean.shape
        columns = min(4, blocks)
        rows = -(-blocks // columns)
        figure = figure_of(8.6, 0.6 + 1.6 * rows)
        middles = (self.reach.edges[1:] + self.reach.edges[:-1]) / 2
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for block, axis in enumerate(panels.flat):
            axis.set_visible(block < blocks)
            if block >= blocks:
                continue
            axis.plot(middles, self.reach.even, "k--", linewidth=1)
            for head in range(heads):
                far = float(self.reach.mean[block, head])
                words = f"head {head + 1}: {far:.0f} mm" if np.isfinite(far) else f"head {head + 1}: no token left"
                axis.plot(middles, self.reach.share[block, head], linewidth=1, label=words)
            axis.set_title(f"block {block + 1}", fontsize=8)
            axis.tick_params(labelsize=7)
            if heads <= 6:
                axis.legend(fontsize=6)
        figure.supxlabel("distance, mm", fontsize=8)
        figure.supylabel("share of the attention", fontsize=8)
        return figure


def in_a_window(prediction: Prediction, voxel: Shape) -> Shape:
    """A voxel, or the middle of the nearest token that a window holds: no window lies in the air around a body."""
    geometry, tokens = prediction.scan.geometry, prediction.tokens
    place = Lattice.of(tokens, geometry, prediction.scan.shape).token(voxel)
    if place is not None and tokens.covered[place]:
        return voxel
    held = np.argwhere(tokens.covered) * tokens.spacing + tokens.origin
    nearest = held[np.square(held - (np.asarray(voxel) * geometry.spacing + geometry.origin)).sum(axis=1).argmin()]
    at = np.round((nearest - geometry.origin) / geometry.spacing).astype(int)
    z, y, x = np.clip(at, prediction.region.start, np.asarray(prediction.region.stop) - 1).tolist()
    return z, y, x


def heads_of(
    segmenter: Segmenter,
    prediction: Prediction,
    weigh: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Heads | None:
    """The heads of the window around the middle of the mask, or of the region if it is empty.

    Parameters
    ----------
    weigh : silence each head in turn as well, which takes a run of the network for each.

    Returns
    -------
    None if the segmenter does not let itself be looked into.
    """
    if not isinstance(segmenter, Probing):
        return None
    inside = np.argwhere(prediction.mask > 0)
    region = prediction.region
    middle = inside.mean(axis=0) if len(inside) else (np.asarray(region.start) + region.stop) / 2
    at = in_a_window(prediction, (int(middle[0]), int(middle[1]), int(middle[2])))
    probe, _ = segmenter.probe(prediction.scan, prediction.settings, at, prediction.region)
    return Heads(at, probe.reach(), probe.masked_heads(on_progress) if weigh else None)
