"""The layers of the Inspect tab. They come when they are asked for, and only this file writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points
from napari.utils.colormaps import Colormap, DirectLabelColormap
from numpy.typing import NDArray

from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.scan import AXIS_LABELS, Scan
from napari_sparsetok.state import Prediction, TokenMap
from napari_sparsetok.ui.outline import set_outline
from napari_sparsetok.ui.overlays import OVERLAY, label_colormap
from napari_sparsetok.ui.redraw import redraw
from napari_sparsetok.ui.scan_layer import Frame, placed
from napari_sparsetok.ui.style import stage_color

MUST, NEVER = 1, 2
"""What is painted on tokens."""

_HEAT = Colormap(
    [[0.84, 0.37, 0.0, 0.0], [0.84, 0.37, 0.0, 0.65], [1.0, 0.93, 0.35, 0.95]], name="heat that lets the scan through"
)
HEAT_ENDS = ("#D65E00", "#FFED59")
"""The colours of little and of much, in the layers that have them."""

DIFFERENCE = {
    1: ("#D55E00", "only here"),
    2: ("#56B4E9", "only where all is kept"),
    3: ("#CC79A7", "both, but another label"),
}
"""What the values of the difference layer stand for: colour and words."""


def difference_colors(from_reference: bool) -> list[tuple[str, str]]:
    """Colours and words of the difference layer."""
    (here, words), (there, all_kept), both = DIFFERENCE.values()
    return [(here, words), (there, "only in the reference" if from_reference else all_kept), both]


_FINE = 16  # parts of a token's side that its outline is drawn with
_NAMES = {
    "boxes": "token outlines",
    "stage": "scores of one stage",
    "share": "share of windows that kept it",
    "lowest": "steady from keep ratio",
    "difference": "differs from keeping all",
    "dense": "mask that keeps all",
    "attention": "where the token looked",
    "forced": "tokens chosen by hand",
}


class InspectLayers:
    """Layers by kind, for one scan at a time."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._scan: Scan | None = None
        self._frame: Frame | None = None
        self._layers: dict[str, Layer] = {}
        self._opacity = 0.85

    def set_scan(self, scan: Scan | None, frame: Frame | None) -> None:
        """Take the layers of the scan before away."""
        self.drop(*list(self._layers))
        self._scan, self._frame = scan, frame

    def drop(self, *kinds: str) -> None:
        """Take layers away."""
        for kind in kinds:
            layer = self._layers.pop(kind, None)
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def get(self, kind: str) -> Any:
        """The layer, if it is there; the person may have deleted it."""
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    # What they show

    def show_boxes(self, tokens: TokenMap) -> None:
        """Each token's outline in the slice, in its stage's colour; in 3-D see `_show_points`."""
        if self._viewer.dims.ndisplay == 3:
            self._show_points(tokens)
            return
        across = [axis - (self._viewer.dims.ndim - 3) for axis in self._viewer.dims.displayed][-2:]
        fine = [_FINE if k in across else 1 for k in range(3)]
        stage = tokens.stage
        for k in range(3):
            stage = np.repeat(stage, fine[k], axis=k)
        inner = np.ones(stage.shape, dtype=bool)
        for k in across:
            at = np.arange(stage.shape[k]) % _FINE
            shape = [1, 1, 1]
            shape[k] = -1
            inner &= ((at > 0) & (at < _FINE - 1)).reshape(shape)
        lines = np.where(inner, 0, stage).astype(np.uint8)
        scale = [s / f for s, f in zip(tokens.spacing, fine, strict=True)]
        translate = [o - s / 2 + t / 2 for o, s, t in zip(tokens.origin, tokens.spacing, scale, strict=True)]
        colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
        colors |= {k: stage_color(k, tokens.stages) for k in range(1, tokens.stages + 2)}
        self._labels("boxes", lines, DirectLabelColormap(color_dict=colors), _place(scale, translate), self._opacity)

    def _show_points(self, tokens: TokenMap) -> None:
        """A square for each token that passed the first stage, large if it was kept to the end; one can see through."""
        at = np.argwhere(tokens.stage > min(1, tokens.stages))
        stage = tokens.stage[tuple(at.T)]
        at = at if self._frame is None else np.pad(at, ((0, 0), (1, 0)))
        self._put("boxes", Points(
            at, symbol="square", size=np.where(stage > tokens.stages, 0.75, 0.3), border_width=0,
            face_color=[stage_color(int(k), tokens.stages) for k in stage] or "white",
            opacity=self._opacity, **self._placed(_place(tokens.spacing, tokens.origin)),
        ))  # fmt: skip

    def show_scores(self, tokens: TokenMap, stage: int) -> None:
        """Scores of one stage, counted from 1."""
        self._image("stage", tokens.importance[stage - 1], tokens)

    def show_share(self, tokens: TokenMap) -> None:
        """In which share of the windows that hold it a token was kept to the end; only where more than one does."""
        if tokens.passed is not None and tokens.windows is not None and tokens.stages:
            self._image("share", np.where(tokens.windows > 1, tokens.passed[-1], 0.0), tokens, top=1.0)

    def set_opacity(self, opacity: float) -> None:
        """How strongly the layers that are there, and that come, cover the scan; not the one that is painted on."""
        self._opacity = opacity
        for kind in self._layers:
            layer = self.get(kind)
            if layer is not None and kind not in ("forced", "dense"):
                layer.opacity = opacity

    def show_attention(self, values: NDArray[np.float32], tokens: TokenMap, start: tuple[int, ...], words: str) -> None:
        """Attention (d, h, w) of one window whose first token is `start`."""
        laid = np.full(tokens.stage.shape, np.nan, dtype=np.float32)
        laid[tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))] = values
        self._image("attention", laid, tokens)
        layer = self.get("attention")
        if layer is not None:
            layer.name = words

    def show_lowest(self, found: Sweep) -> None:
        """The lowest keep ratio from which each voxel's label stays; nothing where it does down to the lowest tried."""
        tried = np.float32(found.rungs[-1].keep_ratio)
        values = np.where(found.lowest > tried, found.lowest, 0).astype(np.float32)
        layer = self.get("lowest")
        if layer is not None and layer.data.shape[-3:] == values.shape:
            layer.data[...] = values
            redraw(self._viewer, layer)
            return
        self._put("lowest", Image(
            self._lifted(values), colormap=_HEAT, contrast_limits=(0.0, 1.0),
            blending="translucent_no_depth", opacity=self._opacity,
            interpolation2d="nearest", **self._placed(placed(found.scan.geometry)),
        ))  # fmt: skip

    def show_difference(self, prediction: Prediction, other: NDArray[Any], of_reference: bool = False) -> None:
        """1: only here; 2: only in the other mask (z, y, x); 3: both, as different labels."""
        a, b = prediction.mask, other
        values = np.select([a == b, b == 0, a == 0], [0, 1, 2], 3).astype(np.uint8)
        colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
        colors |= {value: color for value, (color, _) in DIFFERENCE.items()}
        place = placed(prediction.scan.geometry)
        self._labels("difference", values, DirectLabelColormap(color_dict=colors), place, self._opacity)
        name = "differs from the reference" if of_reference else _NAMES["difference"]
        self.get("difference").name = f"{name} · {prediction.scan.name}"

    def show_dense(self, dense: Prediction) -> None:
        """The mask that keeps all tokens, as an outline."""
        self._labels("dense", np.array(dense.mask), label_colormap(dense.labels), placed(dense.scan.geometry), 0.95)
        layer = self.get("dense")
        if layer is not None:
            set_outline(layer, 1)

    def show_forced(self, signs: NDArray[np.int8], tokens: TokenMap) -> Labels:
        """A layer to paint on: `MUST`, `NEVER` or nothing for each token."""
        layer = self.get("forced")
        if layer is not None and layer.data.shape[-3:] == signs.shape:
            return layer
        values = np.where(signs > 0, MUST, np.where(signs < 0, NEVER, 0)).astype(np.uint8)
        colors: dict[int | None, str] = {0: "transparent", None: "transparent", MUST: "#F2E85C", NEVER: "#D55E00"}
        self._labels(
            "forced", values, DirectLabelColormap(color_dict=colors), _place(tokens.spacing, tokens.origin), 0.6, False
        )
        return self.get("forced")

    # Details

    def _image(self, kind: str, values: NDArray[Any], tokens: TokenMap, top: float | None = None) -> None:
        shown = np.nan_to_num(values).astype(np.float32)
        top = top or float(shown.max()) or 1.0
        layer, place = self.get(kind), _place(tokens.spacing, tokens.origin)
        if layer is not None and layer.data.shape[-3:] == shown.shape:
            layer.contrast_limits = (0.0, top)
            self._rewrite(layer, shown, place)
            return
        self._put(kind, Image(
            self._lifted(shown), colormap=_HEAT, contrast_limits=(0.0, top),
            blending="translucent_no_depth", opacity=self._opacity,
            interpolation2d="nearest", **self._placed(place),
        ))  # fmt: skip

    def _labels(
        self,
        kind: str,
        values: NDArray[np.uint8],
        colors: Any,
        place: dict[str, Any],
        opacity: float,
        locked: bool = True,
    ) -> None:
        layer = self.get(kind)
        if layer is not None and layer.data.shape[-3:] == values.shape:
            self._rewrite(layer, values, place)
            return
        layer = Labels(self._lifted(values), colormap=colors, opacity=opacity, **self._placed(place))
        self._put(kind, layer)
        layer.editable = not locked

    def _rewrite(self, layer: Layer, values: NDArray[Any], place: dict[str, Any]) -> None:
        """Other values in a layer of this size, perhaps elsewhere: a box that was moved is as large as before."""
        place = self._placed(place)
        if not (np.allclose(layer.scale, place["scale"]) and np.allclose(layer.translate, place["translate"])):
            layer.scale, layer.translate = place["scale"], place["translate"]
        layer.data[...] = values
        redraw(self._viewer, layer)

    def _put(self, kind: str, layer: Layer) -> None:
        self.drop(kind)
        layer.name = f"{_NAMES[kind]} · {self._scan.name if self._scan else ''}"
        layer.metadata[OVERLAY] = kind
        selected = set(self._viewer.layers.selection)
        self._layers[kind] = layer
        self._viewer.add_layer(layer)
        if selected:
            self._viewer.layers.selection = selected

    def _lifted(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._frame is None else values[None]

    def _placed(self, place: dict[str, Any]) -> dict[str, Any]:
        return place if self._frame is None else self._frame.before(place)


def _place(scale: Any, translate: Any) -> dict[str, Any]:
    return {"scale": tuple(scale), "translate": tuple(translate), "units": ("mm",) * 3, "axis_labels": AXIS_LABELS}
