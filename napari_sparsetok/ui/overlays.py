"""The three overlays on the scan: importance, tokens, mask. The only file that adds or writes their layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import AXIS_LABELS, Region, Scan
from napari_sparsetok.state import Prediction, TokenMap
from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN, placed
from napari_sparsetok.ui.style import stage_color

KINDS = ("importance", "tokens", "mask")
"""From bottom to top."""

VEIL = 0.4
"""Opacity of the tokens layer: pruned tissue darkens, kept tissue stays in the light."""


class Overlays:
    """Keeps the overlay layers of the current scan in step with what is computed.

    A layer that the person deletes comes back with the next result; layers of an earlier scan are left alone.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._scan: Scan | None = None
        self._layers: dict[str, Layer] = {}
        self._visible = dict.fromkeys(KINDS, True)
        self._region: Layer | None = None
        self._shown = 0  # serial number of the prediction whose mask is drawn

    def set_scan(self, scan: Scan | None) -> None:
        """From now on lay over this scan."""
        self._scan = scan
        self._layers = {}
        self.show_region(None)

    def set_visible(self, kind: str, visible: bool) -> None:
        """Show or hide one overlay, now and when it comes back."""
        self._visible[kind] = visible
        layer = self._present(kind)
        if layer is not None:
            layer.visible = visible

    def layer(self, kind: str) -> Layer | None:
        """The layer of one overlay, if there is one now."""
        return self._present(kind)

    def show_tokens(self, tokens: TokenMap) -> None:
        """Draw the token map: cheap enough for every step of the slider."""
        if self._scan is None:
            return
        stages = self._array("tokens", tokens.stage)
        scores = self._array("importance", np.nan_to_num(tokens.importance[0]) if tokens.stages else None)
        if scores is not None:
            self._put("importance", scores, lambda: self._importance_layer(scores, tokens))
        if stages is not None:
            self._put("tokens", stages, lambda: self._tokens_layer(stages, tokens))

    def show_mask(self, prediction: Prediction) -> None:
        """Draw the mask: only the box that changed is written and redrawn."""
        if prediction.scan is not self._scan:
            return
        layer = self._present("mask")
        if layer is None:
            self._add("mask", self._mask_layer(prediction))
            self._shown = prediction.serial
            return
        # A box is enough only if the layer shows the very mask that the new one was made from.
        follows = prediction.builds_on and prediction.builds_on == self._shown
        box = (prediction.changed if follows else Region.whole(prediction.mask.shape)).slices
        self._shown = prediction.serial
        layer.data[box] = prediction.mask[box]
        layer.refresh(extent=False, thumbnail=False)

    def show_region(self, region: Region | None) -> None:
        """Tint the box that will be segmented; None takes the tint away."""
        old, self._region = self._region, None
        if old is not None and old in self._viewer.layers:
            self._viewer.layers.remove(old)
        if region is None or self._scan is None:
            return
        geometry = self._scan.geometry
        spacing = np.asarray(geometry.spacing)
        size = np.asarray(region.shape) * spacing
        middle = np.asarray(geometry.origin) + (np.asarray(region.start) - 0.5) * spacing + size / 2
        self._region = Labels(
            np.ones((1, 1, 1), dtype=np.uint8),
            name=f"region · {self._scan.name}",
            colormap=DirectLabelColormap(color_dict={0: "transparent", None: "transparent", 1: "#56B4E9"}),
            opacity=0.18,
            scale=tuple(size),
            translate=tuple(middle),
            units=("mm",) * 3,
            axis_labels=AXIS_LABELS,
        )
        self._region.editable = False
        self._viewer.add_layer(self._region)

    # Details

    def _present(self, kind: str) -> Any:
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _array(self, kind: str, values: Any) -> Any:
        """A writable copy for a layer of its own, or None if there is nothing to draw."""
        return None if values is None else np.array(values)

    def _put(self, kind: str, values: Any, make: Any) -> None:
        layer = self._present(kind)
        if layer is not None and layer.data.shape == values.shape:
            layer.data[...] = values
            layer.refresh(extent=False, thumbnail=False)
            return
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._add(kind, make())

    def _add(self, kind: str, layer: Layer) -> None:
        layer.visible = self._visible[kind]
        self._layers[kind] = layer
        selected = set(self._viewer.layers.selection)
        above = [self._present(k) for k in KINDS[KINDS.index(kind) + 1 :]]
        places = [self._viewer.layers.index(other) for other in above if other is not None]
        self._viewer.layers.insert(min(places, default=len(self._viewer.layers)), layer)
        if selected:  # adding a layer must not take the person's own choice away
            self._viewer.layers.selection = selected

    def _name(self, kind: str) -> str:
        return f"{kind} · {self._scan.name if self._scan else ''}"

    def _on_grid(self, tokens: TokenMap) -> dict[str, Any]:
        return {
            "scale": tokens.spacing,
            "translate": tokens.origin,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
        }

    def _importance_layer(self, scores: Any, tokens: TokenMap) -> Layer:
        return Image(
            scores,
            name=self._name("importance"),
            colormap="inferno",
            contrast_limits=(0.0, 1.0),
            blending="additive",
            opacity=0.3,
            interpolation2d="nearest",
            **self._on_grid(tokens),
        )

    def _tokens_layer(self, stages: Any, tokens: TokenMap) -> Layer:
        colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
        colors |= {k: stage_color(k, tokens.stages) for k in range(1, tokens.stages + 2)}
        layer = Labels(
            stages,
            name=self._name("tokens"),
            colormap=DirectLabelColormap(color_dict=colors),
            opacity=VEIL,
            **self._on_grid(tokens),
        )
        layer.editable = False
        return layer

    def _mask_layer(self, prediction: Prediction) -> Layer:
        layer = Labels(
            np.array(prediction.mask),
            name=self._name("mask"),
            colormap=label_colormap(prediction.labels),
            features=label_features(prediction.labels),
            opacity=0.95,
            metadata={SCAN: prediction.scan, MASK_LABELS: prediction.labels},
            **placed(prediction.scan.geometry),
        )
        layer.contour = 1  # an outline, so that tokens and scan stay in sight
        layer.editable = False
        return layer


def label_colormap(labels: LabelTable) -> DirectLabelColormap:
    """The table's colours; anything else is not drawn."""
    colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
    return DirectLabelColormap(color_dict=colors | {label.id: label.color for label in labels})


def label_features(labels: LabelTable) -> dict[str, list[Any]]:
    """The table's names, so that napari's status bar says them."""
    return {"index": [0, *(label.id for label in labels)], "label": ["background", *(label.name for label in labels)]}
