"""The three overlays on the scan: importance, tokens, mask. The only file that adds or writes their layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap, ensure_colormap
from numpy.typing import NDArray
from psygnal import Signal

from napari_sparsetok.correction import compose
from napari_sparsetok.labels import LabelTable, count_labels
from napari_sparsetok.scan import AXIS_LABELS, Region, Scan
from napari_sparsetok.state import Prediction, TokenMap
from napari_sparsetok.ui.outline import set_outline
from napari_sparsetok.ui.redraw import redraw
from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN, Frame, placed
from napari_sparsetok.ui.style import stage_color

# The outline of the mask is one of slices; in 3-D napari fills the mask, as it should, and need not say so each time.
warnings.filterwarnings("ignore", message="Contours are not displayed during 3D rendering", category=UserWarning)

KINDS = ("importance", "tokens", "mask")
"""From bottom to top."""

VEIL = 0.4
"""Opacity of the tokens layer: pruned tissue darkens, kept tissue stays in the light."""

_TINT = 0.3
"""How much of it the tokens have that were kept, in slices: what is in them is what a person looks at."""

_WHOLE = (slice(None),) * 3

OVERLAY = "sparsetok_overlay"
"""Key of the metadata of every layer that is ours, so that nobody takes it for a scan."""


class Overlays:
    """Keeps the overlay layers of the current scan in step with what is computed.

    A layer that the person deletes comes back with the next result; layers of an earlier scan are left alone, and
    used again when that scan is chosen again.
    """

    visibility_changed = Signal(str, bool)
    mask_changed = Signal(Region)  # the box that was written anew

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        viewer.dims.events.ndisplay.connect(self._on_ndisplay)
        self._stages = 0  # of the token map that is drawn
        self._drawn: TokenMap | None = None  # whose scores are to be seen
        self._scan: Scan | None = None
        self._frame: Frame | None = None
        self._layers: dict[str, Layer] = {}
        self._of_scans: WeakKeyDictionary[Scan, dict[str, Layer]] = WeakKeyDictionary()
        self._visible = dict.fromkeys(KINDS, True)
        self._region: Layer | None = None
        self._shown = 0  # serial number of the prediction whose mask is drawn
        self._prediction: Prediction | None = None  # the last one that was drawn for this scan
        self._corrections: NDArray[np.uint8] | None = None
        self._counts: NDArray[np.int64] | None = None

    def set_scan(self, scan: Scan | None, frame: Frame | None = None) -> None:
        """From now on lay over this scan, which is a frame of a layer with a time axis if `frame` is given."""
        self._scan, self._frame = scan, frame
        self._shown = 0
        self._prediction = self._corrections = self._counts = self._drawn = None
        for layers in self._of_scans.values():  # those that were deleted would hold their scan
            for kind in [kind for kind, layer in layers.items() if layer not in self._viewer.layers]:
                del layers[kind]
        self._layers = {} if scan is None else self._of_scans.setdefault(scan, {})
        self.show_region(None)

    @property
    def frame(self) -> Frame | None:
        """Which frame of a layer with a time axis the scan is, if it is one."""
        return self._frame

    def retire(self) -> None:
        """Another model was chosen: what the old one said, of any scan, is hidden and left to the person."""
        for layers in [self._layers, *self._of_scans.values()]:
            self._set_aside(layers, "earlier model")
        self._shown = 0
        self._prediction = self._counts = self._drawn = None

    def retire_scan(self, scan: Scan) -> None:
        """A scan is no more what it was: what was found in it is hidden and left to the person."""
        self._set_aside(self._of_scans.get(scan, {}), "earlier voxels")

    def _set_aside(self, layers: dict[str, Layer], of_what: str) -> None:
        for layer in layers.values():
            if layer in self._viewer.layers:
                layer.events.visible.disconnect(self._on_visible)
                layer.visible = False
                layer.name = f"{layer.name} ({of_what})"
        layers.clear()

    def let_go(self) -> None:
        """Stop listening to the layers, which stay."""
        for layers in self._of_scans.values():
            for layer in layers.values():
                layer.events.visible.disconnect(self._on_visible)
        self._of_scans.clear()
        self._layers = {}
        self._viewer.dims.events.ndisplay.disconnect(self._on_ndisplay)

    def set_visible(self, kind: str, visible: bool) -> None:
        """Show or hide one overlay, now and when it comes back."""
        self._visible[kind] = visible
        layer = self._present(kind)
        if layer is not None:
            layer.visible = visible

    def make_way(self) -> None:
        """Hide what would cover another layer of colours; whoever shows toggles is told."""
        for kind in ("importance", "tokens"):
            self.set_visible(kind, False)
            self.visibility_changed.emit(kind, False)

    def layer(self, kind: str) -> Layer | None:
        """The layer of one overlay, if there is one now."""
        return self._present(kind)

    def show_tokens(self, tokens: TokenMap) -> None:
        """Draw the token map: cheap enough for every step of the slider."""
        if self._scan is None:
            return
        self._stages = tokens.stages
        # While the slider moves the first scores stay the same, and drawing them again would double the work.
        if tokens.stages and (not self._shows(tokens) or self._present("importance") is None):
            scores = self._lifted(np.nan_to_num(tokens.importance[0]))
            if not self._write_tokens("importance", scores, tokens):
                self._add("importance", self._importance_layer(scores, tokens))
            self._layers["importance"].contrast_limits = _limits(tokens)
        self._drawn = tokens if tokens.stages else None
        stages = self._lifted(tokens.stage.copy())
        if not self._write_tokens("tokens", stages, tokens):
            self._add("tokens", self._tokens_layer(stages, tokens))

    def _shows(self, tokens: TokenMap) -> bool:
        """Whether the scores of the first stage that are drawn are these, in this place."""
        drawn = self._drawn
        if drawn is None:
            return False
        if (tokens.spacing, tokens.origin, tokens.selection) != (drawn.spacing, drawn.origin, drawn.selection):
            return False
        new, old = tokens.importance, drawn.importance
        return new is old or np.array_equal(new[0], old[0], equal_nan=True)

    def show_mask(self, prediction: Prediction) -> None:
        """Draw the mask: only the box that changed is written and redrawn."""
        if prediction.scan is not self._scan:
            return
        # A box is enough only if the layer shows the very mask that the new one was made from.
        follows = prediction.builds_on and prediction.builds_on == self._shown
        self._shown = prediction.serial
        self._prediction = prediction
        if self._present("mask") is None:
            mask = np.array(prediction.mask) if self._corrections is None else self._composed(prediction, _WHOLE)
            self._counts = count_labels(mask) if self._corrections is not None else prediction.voxel_counts
            self._add("mask", self._mask_layer(prediction, mask))
            self.mask_changed.emit(Region.whole(mask.shape))
            return
        self.recompose(prediction.changed if follows else Region.whole(prediction.mask.shape))
        if self._corrections is None:
            self._counts = prediction.voxel_counts

    def set_corrections(self, corrections: NDArray[np.uint8] | None) -> None:
        """From now on the mask is the prediction with these corrections (z, y, x), which others may write to."""
        self._corrections = corrections
        if self._prediction is not None:
            self.recompose(Region.whole(self._prediction.mask.shape))

    def recompose(self, region: Region) -> None:
        """Write the mask anew in a box, after the corrections or the prediction changed there."""
        layer = self._present("mask")
        if layer is None or self._prediction is None:
            return
        box = (..., *region.slices)
        new = self._composed(self._prediction, region.slices)
        if self._corrections is not None:
            before = self._counts if self._counts is not None else count_labels(layer.data)
            self._counts = before - count_labels(layer.data[box]) + count_labels(new)
        layer.data[box] = new
        redraw(self._viewer, layer)
        self.mask_changed.emit(region)

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """What is seen: the prediction with the corrections, (z, y, x). Not to be written.

        None also back at a scan, until it is segmented: what was drawn meanwhile is not in the layer of before.
        """
        layer = self._present("mask")
        return None if layer is None or self._prediction is None else layer.data.reshape(layer.data.shape[-3:])

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """Voxels of every label in the mask, by id."""
        return self._counts if self.mask is not None else None

    def _composed(self, prediction: Prediction, box: Any) -> NDArray[np.uint8]:
        if self._corrections is None:
            return prediction.mask[box]
        return compose(prediction.mask[box], np.asarray(self._corrections)[box])

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
        place = {"scale": tuple(size), "translate": tuple(middle), "units": ("mm",) * 3, "axis_labels": AXIS_LABELS}
        self._region = Labels(
            self._lifted(np.ones((1, 1, 1), dtype=np.uint8)),
            name=f"region · {self._scan.name}",
            colormap=DirectLabelColormap(color_dict={0: "transparent", None: "transparent", 1: "#56B4E9"}),
            opacity=0.18,
            metadata={OVERLAY: "region"},
            **self._placed(place),
        )
        _lock(self._region)
        self._insert(self._region, [k for k in KINDS if self._present(k) is not None])

    # Details

    def _present(self, kind: str) -> Any:
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _write_tokens(self, kind: str, values: NDArray[Any], tokens: TokenMap) -> bool:
        """Write into the layer that is there; False if there is none that fits."""
        layer = self._present(kind)
        if layer is None:
            return False
        if layer.data.shape != values.shape:
            self._viewer.layers.remove(layer)
            return False
        place = self._on_grid(tokens)
        if not np.allclose(layer.scale, place["scale"]) or not np.allclose(layer.translate, place["translate"]):
            layer.scale, layer.translate = place["scale"], place["translate"]
        layer.data[...] = values
        redraw(self._viewer, layer)
        return True

    def _lifted(self, values: NDArray[Any]) -> NDArray[Any]:
        """With a time axis of one frame, if the scan is a frame."""
        return values if self._frame is None else values[None]

    def _placed(self, place: dict[str, Any]) -> dict[str, Any]:
        return place if self._frame is None else self._frame.before(place)

    def _add(self, kind: str, layer: Layer) -> None:
        layer.visible = self._visible[kind]
        layer.metadata[OVERLAY] = kind
        layer.events.visible.connect(self._on_visible)
        self._layers[kind] = layer
        self._insert(layer, KINDS[KINDS.index(kind) + 1 :])

    def _insert(self, layer: Layer, above: Sequence[str]) -> None:
        """Put a layer below the overlays of these kinds, and leave the person's selection as it is."""
        selected = set(self._viewer.layers.selection)
        present = [other for other in map(self._present, above) if other is not None]
        places = [self._viewer.layers.index(other) for other in present]
        self._viewer.layers.insert(min(places, default=len(self._viewer.layers)), layer)
        if selected:
            self._viewer.layers.selection = selected

    def _name(self, kind: str) -> str:
        return f"{kind} · {self._scan.name if self._scan else ''}"

    def _on_visible(self, event: Any) -> None:
        """The person may also use the eye in napari's list."""
        for kind, layer in self._layers.items():
            if layer is event.source and self._visible[kind] != layer.visible:
                self._visible[kind] = bool(layer.visible)
                self.visibility_changed.emit(kind, bool(layer.visible))

    def _on_ndisplay(self, event: Any = None) -> None:
        in_3d = self._viewer.dims.ndisplay == 3
        tokens, importance = self._present("tokens"), self._present("importance")
        if tokens is not None:
            tokens.colormap = token_colormap(self._stages, in_3d)
        if importance is not None:
            importance.blending = _blending(in_3d)

    def _on_grid(self, tokens: TokenMap) -> dict[str, Any]:
        place = {
            "scale": tokens.spacing,
            "translate": tokens.origin,
            "units": ("mm",) * 3,
            "axis_labels": AXIS_LABELS,
        }
        return self._placed(place)

    def _importance_layer(self, scores: Any, tokens: TokenMap) -> Layer:
        return Image(
            scores,
            name=self._name("importance"),
            colormap=_glow(),
            contrast_limits=(0.0, 1.0),
            blending=_blending(self._viewer.dims.ndisplay == 3),
            opacity=0.2,
            interpolation2d="nearest",
            **self._on_grid(tokens),
            rgb=False,
        )

    def _tokens_layer(self, stages: Any, tokens: TokenMap) -> Layer:
        layer = Labels(
            stages,
            name=self._name("tokens"),
            colormap=token_colormap(tokens.stages, in_3d=self._viewer.dims.ndisplay == 3),
            opacity=VEIL,
            **self._on_grid(tokens),
        )
        _lock(layer)
        return layer

    def _mask_layer(self, prediction: Prediction, mask: NDArray[np.uint8]) -> Layer:
        layer = Labels(
            self._lifted(mask),
            name=self._name("mask"),
            colormap=label_colormap(prediction.labels),
            features=label_features(prediction.labels),
            opacity=0.95,
            metadata={SCAN: prediction.scan, MASK_LABELS: prediction.labels},
            **self._placed(placed(prediction.scan.geometry)),
        )
        set_outline(layer, 1)  # so that tokens and scan stay in sight
        _lock(layer)
        return layer


def _limits(tokens: TokenMap) -> tuple[float, float]:
    """From no to full colour; some rules score beyond 1."""
    beyond = tokens.selection in ("norm", "attention") and np.isfinite(tokens.importance[0]).any()
    return (0.0, float(np.nanmax(tokens.importance[0]))) if beyond else (0.0, 1.0)


@cache
def _glow() -> Colormap:
    """From nothing over red to yellow: what does not matter is not darkened."""
    colors = ensure_colormap("inferno").colors.copy()
    colors[:, 3] = np.linspace(0, 1, len(colors))
    return Colormap(colors, name="importance")


def _blending(in_3d: bool) -> str:
    """How the importance is laid on the scan. Adding would turn bright tissue white; in 3-D anything else hides it."""
    return "additive" if in_3d else "translucent_no_depth"


def _lock(layer: Layer) -> None:
    """No brush may write here; napari unlocks a layer after each visit to 3-D."""

    def lock(event: Any = None) -> None:
        if layer.editable:
            layer.editable = False

    lock()
    layer.events.editable.connect(lock)


@lru_cache(maxsize=8)
def token_colormap(stages: int, in_3d: bool) -> DirectLabelColormap:
    """The stages' colours. In slices a kept token leaves its tissue in sight; in 3-D tokens of the first stage are not
    drawn, as they would hide all others.
    """
    colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
    colors |= {k: stage_color(k, stages) for k in range(1, stages + 2)}
    if in_3d and stages:
        colors[1] = "transparent"
    elif stages:
        colors[stages + 1] = f"{stage_color(stages + 1, stages)}{round(255 * _TINT):02X}"
    return DirectLabelColormap(color_dict=colors)


def label_colormap(labels: LabelTable) -> DirectLabelColormap:
    """The table's colours; anything else is not drawn."""
    colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
    return DirectLabelColormap(color_dict=colors | {label.id: label.color for label in labels})


def label_features(labels: LabelTable) -> dict[str, list[Any]]:
    """The table's names, so that napari's status bar says them."""
    return {"index": [0, *(label.id for label in labels)], "label": ["background", *(label.name for label in labels)]}
