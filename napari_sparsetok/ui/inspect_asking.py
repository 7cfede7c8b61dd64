"""Pointing at the scan and asking what became of the token there; where it looked; which heads matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject
from superqt.utils import qthrottled

from napari_sparsetok.engine.contract import Probing, Reach, Segmenter, Watch
from napari_sparsetok.inspection.heads import in_a_window
from napari_sparsetok.scan import Region, ScanError, Shape
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction
from napari_sparsetok.tokens import Lattice
from napari_sparsetok.ui import inspect_words as say
from napari_sparsetok.ui.gaze import put_tools_down
from napari_sparsetok.ui.inspect_layers import InspectLayers
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.where import is_inside, voxel_at

Found = tuple[NDArray[np.float32] | None, Reach]
"""Of each head what its silence costs, once that is known, and how far it looks."""

if TYPE_CHECKING:  # it loads torch
    from napari_sparsetok.engine.probe import Probe

BUSY = "Something is being computed; ask again when it is done, or cancel it."
_EVERY_MS = 50  # while the mouse moves
_REST_MS = 150  # where it rests, the network's answer is got ready


class Asking(QObject):
    """Answers about single tokens. What the prediction holds is said at once; the network is asked on a click."""

    def __init__(
        self, viewer: ViewerModel, session: Session, overlays: Overlays, layers: InspectLayers, panel: InspectPanel
    ) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays = viewer, session, overlays
        self._layers, self.panel = layers, panel
        self._prediction: Prediction | None = None
        self._lattice: Lattice | None = None
        self._asked: Shape | None = None  # of the network
        self._told: Shape | None = None  # whose story stands in the panel
        self._looked: tuple[int, int] | None = None  # block and head of the attention that is shown
        self._asking = False
        self._soon = qthrottled(self._on_hover, timeout=_EVERY_MS)
        self._rest = later(self, self._get_ready, _REST_MS)
        panel.ask_toggled.connect(self._on_ask)
        panel.heads.attention_requested.connect(self.show_attention)
        panel.heads.heads_requested.connect(self.weigh_heads)
        viewer.cursor.events.position.connect(self._on_moved)
        viewer.mouse_drag_callbacks.append(self._on_mouse)

    def shut_down(self) -> None:
        """Let go."""
        self._soon.cancel()
        self._rest.stop()
        self._viewer.cursor.events.position.disconnect(self._on_moved)
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)

    def set_prediction(self, prediction: Prediction | None, lattice: Lattice | None) -> None:
        """What is asked about."""
        if prediction is None or self._prediction is None or prediction.scan is not self._prediction.scan:
            self._asked = self._told = None
            self.panel.heads.set_heads(None, None)
            self.panel.set_story("Switch this on and move over the scan.")
        if prediction is not None and self._prediction is not None and prediction.region != self._prediction.region:
            self._layers.drop("attention")  # of another grid
        self._prediction, self._lattice = prediction, lattice
        if self._told is not None:
            self.ask(self._told)  # the story of the mask before is over
        self._rest.start()

    def _on_ask(self, on: bool) -> None:
        self._asking = on
        if on:
            put_tools_down(self._viewer)
        self._rest.start()

    def _on_moved(self, event: Any = None) -> None:
        if self._asking:
            self._soon()

    def _on_hover(self) -> None:
        if self._asking and self._viewer.dims.ndisplay == 3:
            self._told = None
            self.panel.set_story("Pointing works in slices: leave the 3-D view (Ctrl+Y) first.")
        voxel = self._voxel()
        if self._asking and voxel is not None:
            self.ask(voxel)
            self._rest.start()

    def _get_ready(self) -> None:
        """Open the window under the mouse while nothing else is to be done, so that a click is answered at once."""
        prediction, voxel = self._prediction, self._voxel() or self._shown_voxel()
        if not self._asking or voxel is None or prediction is None or not prediction.complete:
            return

        def work(segmenter: Segmenter, should_stop: Callable[[], bool]) -> None:
            if isinstance(segmenter, Probing):
                probe, _ = segmenter.probe(prediction.scan, prediction.settings, voxel, prediction.region)
                probe.get_ready(should_stop)

        self._session.prepare(work)

    def ask(self, voxel: Shape) -> None:
        """Tell the story of a voxel's token; at once, since the prediction holds it."""
        prediction, lattice = self._prediction, self._lattice
        if prediction is not None and lattice is not None:
            self._told = voxel
            self.panel.set_story(say.told(prediction, prediction.tokens, lattice, voxel))

    def _on_mouse(self, viewer: ViewerModel, event: Any) -> Any:
        """A click, not a drag, asks the network as well."""
        if not self._asking or event.button != 1 or self._prediction is None:
            return
        active = viewer.layers.selection.active
        if active is not None and str(active.mode) != "pan_zoom":
            return
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        voxel = self._voxel()
        if not moved and voxel is not None:
            self.ask_network(voxel)

    def ask_network(self, voxel: Shape) -> None:
        """What only the network knows: class probabilities of a voxel, then from which ratio its token is kept."""
        prediction, lattice = self._prediction, self._lattice
        if prediction is None or lattice is None:
            return
        self.ask(voxel)
        self._asked = voxel
        if not self._may_know(prediction, lattice, voxel):
            return  # the network did not look there, as the story says
        scan, settings, region = prediction.scan, prediction.settings, prediction.region
        looked = self._looked if self._layers.get("attention") is not None else None
        looks: list[tuple[NDArray[np.float32], tuple[int, ...]]] = []

        def work(segmenter: Segmenter, watch: Watch, show: Callable[[str], None]) -> str:
            probe, place = _probing(segmenter).probe(scan, settings, voxel, region)
            at = _in_window(prediction, probe.box, voxel, probe.probabilities.shape[1:])
            chances = [float(p) for p in probe.probabilities[(slice(None), *at)]]
            show(say.probed(chances, prediction.labels, None, False))
            words = say.probed(chances, prediction.labels, probe.kept_from(place), True)
            show(words)
            if looked is not None:  # the layer follows, after the words
                looks.append((_attention(probe, place, *looked), probe.box.start))
            return words

        def then(words: str) -> None:
            if self._asked == voxel and self._prediction is prediction:
                self.ask(voxel)
                self.panel.set_story(say.told(prediction, prediction.tokens, lattice, voxel), words)
                while looks and looked is not None:
                    self._show_attention(prediction, *looks.pop(), *looked)

        self._compute(work, then, "asking the network")

    def show_attention(self, block: int, head: int) -> None:
        """Where the token that was asked for looked, as a layer; -1 is all blocks, or the mean of the heads."""
        prediction, voxel = self._prediction, self._asked
        if prediction is None or voxel is None:
            self._session.say("Switch on “Ask where I point” and click on the scan first.", "info")
            return
        if self._lattice is None or not self._may_know(prediction, self._lattice, voxel):
            self._session.say("The network did not look at the token that you clicked, so it looked nowhere.", "info")
            return

        def work(segmenter: Segmenter, watch: Watch, show: Any) -> tuple[NDArray[np.float32], tuple[int, ...]]:
            probe, place = _probing(segmenter).probe(prediction.scan, prediction.settings, voxel, prediction.region)
            return _attention(probe, place, block, head), probe.box.start

        def then(found: tuple[NDArray[np.float32], tuple[int, ...]]) -> None:
            if not self._is_of_now(prediction):
                return
            self._looked = (block, head)
            self._overlays.make_way()
            self._show_attention(prediction, *found, block, head)

        self._compute(work, then, "looking at attention")

    def _show_attention(
        self, prediction: Prediction, values: NDArray[np.float32], start: tuple[int, ...], block: int, head: int
    ) -> None:
        if np.isnan(values).all():
            self._session.say("This token did not get as far as that block, so it looked nowhere there.", "info")
            return
        name = "all blocks" if block < 0 else f"block {block + 1}, {'all heads' if head < 0 else f'head {head + 1}'}"
        words = f"where the token looked · {name}, {say.share(prediction.settings)}"
        self._layers.show_attention(values, prediction.tokens, start, words)

    def weigh_heads(self) -> None:
        """Silence each head of the asked token's window in turn."""
        prediction = self._prediction
        if prediction is None:
            return
        voxel = in_a_window(prediction, self._asked or _middle(prediction))

        def work(segmenter: Segmenter, watch: Watch, show: Callable[[Found], None]) -> Found:
            probe, _ = _probing(segmenter).probe(prediction.scan, prediction.settings, voxel, prediction.region)
            reach = probe.reach(watch.on_progress)
            show((None, reach))  # how far they look is known long before what they are good for
            return probe.masked_heads(watch.on_progress, watch.should_stop), reach

        def then(found: Found) -> None:
            if self._is_of_now(prediction):
                self._asked = self._asked or voxel
                self.panel.heads.set_heads(*found, say.share(prediction.settings))

        self._compute(work, then, "silencing heads")

    # Details

    def _may_know(self, prediction: Prediction, lattice: Lattice, voxel: Shape) -> bool:
        """Whether the network looked at a voxel's token, or may have, as windows are still to come."""
        token = lattice.token(voxel)
        return token is not None and (not prediction.complete or bool(prediction.tokens.stage[token]))

    def _is_of_now(self, prediction: Prediction) -> bool:
        """Whether what was asked of a prediction is of the scan, the model and the part that are shown by now."""
        now = self._prediction
        if now is None or now.scan is not prediction.scan or now.region != prediction.region:
            return False
        return now.settings.model == prediction.settings.model

    def _compute(self, work: Any, then: Any, what: str) -> None:
        if not self._session.inspect(work, then, what):
            self._session.say(BUSY, "info")

    def _voxel(self) -> Shape | None:
        scan, viewer = self._session.state.scan, self._viewer
        if scan is None or viewer.dims.ndisplay != 2:
            return None
        world = list(viewer.dims.point)
        position: Sequence[float] = viewer.cursor.position
        for axis in viewer.dims.displayed:
            world[axis] = position[axis]
        return voxel_at(world, scan) if is_inside(world, scan) else None

    def _shown_voxel(self) -> Shape | None:
        """Where the slices meet."""
        scan, world = self._session.state.scan, list(self._viewer.dims.point)
        return voxel_at(world, scan) if scan is not None and is_inside(world, scan) else None


def _probing(segmenter: Segmenter) -> Probing:
    if not isinstance(segmenter, Probing):
        raise ScanError("this engine does not let itself be looked into")
    return segmenter


def _attention(probe: Probe, place: Shape, block: int, head: int) -> NDArray[np.float32]:
    """Where a token looked; a block of -1 is all of them, a head of -1 their mean."""
    return probe.rollout(place) if block < 0 else probe.attention(block, place, None if head < 0 else head)


def _middle(prediction: Prediction) -> Shape:
    region = prediction.region
    z, y, x = ((a + b) // 2 for a, b in zip(region.start, region.stop, strict=True))
    return z, y, x


def _in_window(prediction: Prediction, box: Region, voxel: Shape, size: Sequence[int]) -> Shape:
    """The model's voxel of a window that lies where a voxel of the scan does."""
    tokens, geometry = prediction.tokens, prediction.scan.geometry
    at = np.asarray(geometry.origin) + np.asarray(voxel) * geometry.spacing
    token = (at - tokens.origin) / np.asarray(tokens.spacing) + 0.5 - box.start
    patch = [n / (b - a) for n, a, b in zip(size, box.start, box.stop, strict=True)]
    z, y, x = (int(np.clip(t * p, 0, n - 1)) for t, p, n in zip(token, patch, size, strict=True))
    return z, y, x
