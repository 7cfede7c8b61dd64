"""Pictures of a sweep and of slices, by matplotlib, without a window."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.state import Prediction
from napari_sparsetok.tokens import Lattice

STAGE_COLORS = ("#14163F", "#B5488A", "#EE8866", "#99DDFF")
KEPT_COLOR = "#F2E85C"
_PLANES = ("axial", "coronal", "sagittal")


def figure_of(width: float, height: float) -> Figure:
    """An empty figure that needs no display, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, kind: Literal["png", "svg"] = "png", dpi: int = 110) -> bytes:
    """A figure as a file's bytes."""
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def sweep_figure(sweep: Sweep) -> Figure:
    """Agreement above, cost below, against the keep ratio."""
    figure = figure_of(6.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    ratios = [rung.keep_ratio for rung in sweep.rungs]
    for k, label in enumerate(sweep.dense.labels):
        colour = label.color
        upper.plot(ratios, [r.agreement[k].dice for r in sweep.rungs], "o-", color=colour, label=f"dense: {label.name}")
        if sweep.rungs[0].reference:
            found = [r.reference[k].dice for r in sweep.rungs]
            upper.plot(ratios, found, "s--", color=colour, alpha=0.7, label=f"reference: {label.name}")
    upper.set_ylabel("Dice with")
    for text in upper.legend(fontsize=7).get_texts():
        text.set_parse_math(False)  # a name of a label is no formula
    full = sweep.rungs[0]
    lower.plot(
        ratios, [r.left[-1] / r.left[0] for r in sweep.rungs], "o-", color="#009E73", label="tokens kept to the end"
    )
    lower.plot(ratios, [r.gmac / full.gmac for r in sweep.rungs], "s-", color="#0072B2", label="operations")
    lower.plot(ratios, [r.seconds / full.seconds for r in sweep.rungs], "^-", color="#D55E00", label="time")
    lower.set_ylabel("share of the dense run")
    lower.set_xlabel(f"keep ratio at each stage (tokens ranked by: {sweep.settings.selection})")
    lower.legend(fontsize=7)
    lower.set_xscale("log")
    lower.xaxis.set_major_locator(FixedLocator(ratios))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(ScalarFormatter())
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    return figure


def slice_figure(prediction: Prediction, sweep: Sweep) -> Figure:
    """Three slices through the mask, four ways: mask, where tokens died, scores, what still changes."""
    scan, region, tokens = prediction.scan, prediction.region, prediction.tokens
    lattice = Lattice.of(tokens, scan.geometry, scan.shape)
    voxels = scan.voxels if not scan.leading else scan.voxels[0]
    image, mask = np.asarray(voxels[region.slices], dtype=np.float32), prediction.mask[region.slices]
    finite = image[np.isfinite(image)]  # the network was given something else where it is not
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    at = [int(v) for v in np.argwhere(mask > 0).mean(axis=0)] if mask.any() else [n // 2 for n in region.shape]
    colors = ["#00000000", *(STAGE_COLORS[k % 4] for k in range(tokens.stages)), KEPT_COLOR]
    first = np.nan_to_num(tokens.importance[0]) if tokens.stages else np.zeros(tokens.stage.shape)
    lowest = sweep.lowest[region.slices]
    overlays: list[tuple[str, NDArray[Any] | None, dict[str, Any]]] = [
        ("mask", None, {}),
        (
            "where tokens were pruned",
            lattice.spread(tokens.stage)[region.slices],
            {"cmap": ListedColormap(colors), "alpha": 0.45, "vmin": 0, "vmax": len(colors) - 1},
        ),
        ("first scores", lattice.spread(first)[region.slices], {"cmap": "inferno", "alpha": 0.55}),
        (
            "lowest steady keep ratio",
            np.where(lowest > np.float32(sweep.rungs[-1].keep_ratio), lowest, np.nan),
            {"cmap": "cividis", "vmin": 0, "vmax": 1, "alpha": 0.8},
        ),
    ]
    figure = figure_of(8.6, 6.6)
    for plane, axes in enumerate(figure.subplots(3, 4)):
        pick: Any = tuple(at[plane] if k == plane else slice(None) for k in range(3))
        sides = [s for k, s in enumerate(scan.geometry.spacing) if k != plane]
        show = {"origin": "upper" if plane == 0 else "lower", "aspect": sides[0] / sides[1], "interpolation": "nearest"}
        axes[0].set_ylabel(_PLANES[plane], fontsize=8)
        for axis, (name, overlay, look) in zip(axes, overlays, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.set_title(name if plane == 0 else "", fontsize=8)
            axis.imshow(image[pick], cmap="gray", vmin=low, vmax=high, **show)
            if overlay is not None:
                axis.imshow(overlay[pick], **look, **show)
            _outline(axis, mask[pick], prediction)
    return figure


def histogram_figure(sweep: Sweep) -> Figure:
    """How many voxels settle at each ratio; those that never change are not drawn, they would hide the others."""
    ratios = [rung.keep_ratio for rung in reversed(sweep.rungs)]
    counts = sweep.settled[::-1]
    figure = figure_of(6.4, 2.4)
    axis = figure.subplots()
    axis.bar([f"{ratio:g}" for ratio in ratios[1:]], counts[1:], color="#0072B2")
    axis.set_xlabel(f"lowest keep ratio from which the label stays ({counts[0]} voxels stay down to {ratios[0]:g})")
    axis.set_ylabel("voxels")
    return figure


def _outline(axis: Any, mask: NDArray[np.uint8], prediction: Prediction) -> None:
    for label in prediction.labels:
        if (mask == label.id).any() and min(mask.shape) > 1:
            axis.contour(mask == label.id, levels=[0.5], colors=[label.color], linewidths=1)
