"""Where the tab "Inspect", its layers and the session meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QFileDialog
from superqt.utils import qthrottled

from napari_sparsetok import batch
from napari_sparsetok.engine.contract import Probing, Segmenter, Watch
from napari_sparsetok.inspection.export import save_sweep
from napari_sparsetok.inspection.ladder import Question, Sweep, sweep
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.session import Session
from napari_sparsetok.state import Forced, Prediction, Reference, Settings, TokenMap
from napari_sparsetok.tokens import LADDER, Lattice, Unseen, unseen
from napari_sparsetok.ui import inspect_words as say
from napari_sparsetok.ui.inspect_layers import MUST, NEVER, InspectLayers
from napari_sparsetok.ui.inspect_panel import InspectPanel, RuleRequest
from napari_sparsetok.ui.overlays import OVERLAY, Overlays
from napari_sparsetok.ui.shortcuts import Shortcut, Shortcuts
from napari_sparsetok.ui.where import is_inside, voxel_at

_EVERY_MS = 50  # while the mouse moves
_BLINK_MS = 500
_PAINT_MS = 400  # after a stroke on tokens
_BUSY = "Something is being computed; ask again when it is done, or cancel it."


class InspectDesk(QObject):
    """Answers questions about tokens.

    Parameters
    ----------
    viewer, session, overlays, panel : what it joins.
    """

    def __init__(self, viewer: ViewerModel, session: Session, overlays: Overlays, panel: InspectPanel) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays, self.panel = viewer, session, overlays, panel
        self.layers = InspectLayers(viewer)
        self.sweep: Sweep | None = None
        self._lattice: Lattice | None = None
        self._tokens: TokenMap | None = None  # of the prediction, not of a preview
        self._pieces: list[Unseen] = []
        self._asked: Shape | None = None
        self._asking = False
        self._references: list[Labels] = []
        self._blink, self._stroke = QTimer(self), QTimer(self)
        self._blink.setInterval(_BLINK_MS)
        self._blink.timeout.connect(self._on_blink)
        self._stroke.setInterval(_PAINT_MS)
        self._stroke.setSingleShot(True)
        self._stroke.timeout.connect(self._on_painted)
        self._soon = qthrottled(self._on_hover, timeout=_EVERY_MS)
        self.shortcuts = Shortcuts(self._keys())
        self.shortcuts.follow(viewer)
        self._connect_panel()
        self._connections = self._connect()
        self._on_scan(session.state.scan)

    def shut_down(self) -> None:
        """Let go."""
        self._blink.stop()
        self._stroke.stop()
        self._soon.cancel()
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)
        self.shortcuts.shut_down()

    # Wiring

    def _connect_panel(self) -> None:
        panel = self.panel
        panel.ask_toggled.connect(self._on_ask)
        panel.attention_requested.connect(self.show_attention)
        panel.piece_chosen.connect(self._on_piece)
        panel.paint_requested.connect(self._on_paint)
        panel.paint_undo_requested.connect(self._on_paint_undo)
        panel.paint_cleared.connect(self._on_paint_cleared)
        panel.sweep_requested.connect(self.compare)
        panel.ratio_chosen.connect(lambda ratio: self._session.set_keep_ratio(ratio))
        panel.auto_requested.connect(self._on_auto)
        panel.export_requested.connect(self._on_export)
        panel.blink_toggled.connect(self._on_blink_toggled)
        panel.layer_toggled.connect(self._on_layer_toggled)
        panel.stage_chosen.connect(lambda stage: self._show_layers())
        panel.rule_chosen.connect(self._on_rule)
        panel.heads_requested.connect(self.weigh_heads)

    def _connect(self) -> list[tuple[Any, Any]]:
        events, viewer = self._session.state.events, self._viewer
        events.scan.connect(self._on_scan)
        events.region.connect(self._on_region)
        events.settings.connect(self._on_settings)
        events.prediction.connect(self._on_prediction)
        connections = [
            (viewer.cursor.events.position, self._on_moved),
            (viewer.dims.events.order, self._on_order),
            (viewer.layers.events.inserted, self._on_layers),
            (viewer.layers.events.removed, self._on_layers),
        ]
        for emitter, slot in connections:
            emitter.connect(slot)
        viewer.mouse_drag_callbacks.append(self._on_mouse)
        return connections

    def _keys(self) -> list[Shortcut]:
        panel = self.panel
        return [
            Shortcut("A", "ask about the token under the mouse", lambda viewer: panel.ask_button.click()),
            Shortcut("O", "token outlines", lambda viewer: panel.toggle_layer("boxes")),
            Shortcut("Y", "from which keep ratio the label is steady", lambda viewer: panel.toggle_layer("lowest")),
            Shortcut("D", "difference from keeping all tokens", lambda viewer: panel.toggle_layer("difference")),
            Shortcut("B", "blink between this mask and that one", lambda viewer: panel.blink_button.click()),
        ]

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        self.layers.set_scan(scan, self._overlays.frame)
        self._forget()
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
        self._on_layers()

    def _on_region(self, region: Region | None) -> None:
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
            self._session.say("The tokens chosen by hand belonged to the region before; they are let go.", "info")
        self.layers.drop("forced")

    def _on_settings(self, settings: Settings) -> None:
        self.panel.plot.set_now(settings.keep_ratio)
        self.panel.set_rule(settings)
        card = self._session.card
        if card is not None:
            config = card.config
            self.panel.set_model(card.stages, int(config.get("depth", 0)), int(config.get("heads", 0)))

    def _on_prediction(self, prediction: Prediction | None) -> None:
        self.panel.set_possible(prediction is not None)
        if prediction is None:
            self._forget()
            return
        if self.sweep is not None and not _same_question(self.sweep, prediction):
            self._set_sweep(None)
        self._tokens = prediction.tokens
        self._lattice = Lattice.of(prediction.tokens, prediction.scan.geometry, prediction.scan.shape)
        self._on_settings(self._session.state.settings)
        self.panel.set_budget(say.budget(prediction.tokens))
        self._show_layers()
        if prediction.complete:
            self._look_for_unseen(prediction)

    def _look_for_unseen(self, prediction: Prediction) -> None:
        lattice = self._lattice
        if lattice is None:
            return

        def found(pieces: list[Unseen]) -> None:
            if self._session.state.prediction is not prediction:
                return
            self._pieces = pieces
            voxels = int(prediction.voxel_counts[1:].sum())
            geometry = prediction.scan.geometry
            lines = [say.unseen_line(piece, prediction.labels, geometry) for piece in pieces[:100]]
            self.panel.set_unseen(say.unseen_summary(pieces, voxels), lines)

        def look() -> list[Unseen]:
            return unseen(prediction.mask, prediction.tokens, lattice)

        self._session.load(look, found, "looking for what was not looked at")

    def _forget(self) -> None:
        self._tokens = self._lattice = self._asked = None
        self._pieces = []
        self._set_sweep(None)
        self.panel.set_possible(self._session.state.prediction is not None)
        self.panel.set_unseen("", [])
        self.panel.set_story("Switch this on and move over the scan.")
        self.panel.set_heads(None, None, "")

    # Point and ask

    def _on_ask(self, on: bool) -> None:
        self._asking = on

    def _on_moved(self, event: Any = None) -> None:
        if self._asking:
            self._soon()

    def _on_hover(self) -> None:
        voxel = self._voxel()
        if self._asking and voxel is not None:
            self.ask(voxel)

    def ask(self, voxel: Shape) -> None:
        """Tell the story of a voxel's token; at once, since the prediction holds it."""
        prediction = self._session.state.prediction
        if prediction is not None and self._tokens is not None and self._lattice is not None:
            self.panel.set_story(say.told(prediction, self._tokens, self._lattice, voxel))

    def _on_mouse(self, viewer: ViewerModel, event: Any) -> Any:
        """A click, not a drag, asks the network as well."""
        if not self._asking or event.button != 1 or self._session.state.prediction is None:
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
        prediction = self._session.state.prediction
        if prediction is None:
            return
        self.ask(voxel)
        self._asked = voxel
        scan, settings, region = prediction.scan, prediction.settings, prediction.region

        def work(segmenter: Segmenter, watch: Watch, show: Callable[[str], None]) -> str:
            probe, place = _probing(segmenter).probe(scan, settings, voxel, region)
            at = _in_window(prediction, probe.box, voxel, probe.probabilities.shape[1:])
            chances = [float(p) for p in probe.probabilities[(slice(None), *at)]]
            show(say.probed(chances, prediction.labels, None, False))
            return say.probed(chances, prediction.labels, probe.kept_from(place), True)

        def then(words: str) -> None:
            if self._asked == voxel and self._session.state.prediction is prediction:
                self.ask(voxel)
                self.panel.set_story(say.told(prediction, prediction.tokens, self._at(prediction), voxel), words)

        self._compute(work, then, "asking the network")

    def show_attention(self, block: int, head: int) -> None:
        """Where the token that was asked for looked, as a layer; -1 is all blocks, or the mean of the heads."""
        prediction, voxel = self._session.state.prediction, self._asked
        if prediction is None or voxel is None:
            self._session.say("Switch on “Ask where I point” and click on the scan first.", "info")
            return

        def work(segmenter: Segmenter, watch: Watch, show: Any) -> tuple[NDArray[np.float32], tuple[int, ...]]:
            probe, place = _probing(segmenter).probe(prediction.scan, prediction.settings, voxel, prediction.region)
            if block < 0:
                return probe.rollout(place), probe.box.start
            return probe.attention(block, place, None if head < 0 else head), probe.box.start

        def then(found: tuple[NDArray[np.float32], tuple[int, ...]]) -> None:
            values, start = found
            if np.isnan(values).all():
                self._session.say("This token was pruned before that block, so it looked nowhere there.", "info")
                return
            name = (
                "all blocks" if block < 0 else f"block {block + 1}, {'all heads' if head < 0 else f'head {head + 1}'}"
            )
            self._make_way()
            self.layers.show_attention(values, prediction.tokens, start, f"where the token looked · {name}")

        self._compute(work, then, "looking at attention")

    def weigh_heads(self) -> None:
        """Silence each head of the asked token's window in turn."""
        prediction = self._session.state.prediction
        if prediction is None:
            return
        voxel = self._asked or _middle(prediction)

        def work(segmenter: Segmenter, watch: Watch, show: Any) -> Any:
            probe, _ = _probing(segmenter).probe(prediction.scan, prediction.settings, voxel, prediction.region)
            return probe.masked_heads(watch.on_progress, watch.should_stop), probe.reach()

        def then(found: Any) -> None:
            loss, reach = found
            block, head = np.unravel_index(int(loss.argmax()), loss.shape)
            self._asked = self._asked or voxel
            self.panel.head_map.set_heads(loss, reach.mean)
            self.panel.set_heads(loss, reach.mean, "Most: " + self.panel.head_map.words(int(block), int(head)))

        self._compute(work, then, "silencing heads")

    # Never looked at

    def _on_piece(self, number: int) -> None:
        scan = self._session.state.scan
        if scan is None or number >= len(self._pieces):
            return
        at = self._pieces[number].at
        geometry = scan.geometry
        world = [o + v * s for o, v, s in zip(geometry.origin, at, geometry.spacing, strict=True)]
        dims = self._viewer.dims
        dims.point = (*dims.point[:-3], *world)
        self._viewer.scene.camera.center = tuple(world)
        self.ask(at)

    # Tokens chosen by hand

    def _on_paint(self, tool: str) -> None:
        tokens, prediction = self._tokens, self._session.state.prediction
        if tokens is None or prediction is None:
            return
        signs = tokens.forced if tokens.forced is not None else np.zeros(tokens.stage.shape, np.int8)
        fresh = self.layers.get("forced") is None
        layer = self.layers.show_forced(signs, tokens)
        if fresh:
            layer.events.paint.connect(lambda event: self._stroke.start())
        self._viewer.layers.selection = {layer}
        layer.selected_label = {"must": MUST, "never": NEVER}.get(tool, 0)
        layer.brush_size = 1
        layer.mode = "paint" if tool != "erase" else "erase"

    def _on_paint_undo(self) -> None:
        layer = self.layers.get("forced")
        if layer is not None:
            layer.undo()
            self._stroke.start()

    def _on_paint_cleared(self) -> None:
        self.layers.drop("forced")
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
            self._session.run()

    def _on_painted(self) -> None:
        layer, prediction = self.layers.get("forced"), self._session.state.prediction
        if layer is None or prediction is None:
            return
        data = np.asarray(layer.data).reshape(layer.data.shape[-3:])
        signs = np.where(data == MUST, 1, np.where(data == NEVER, -1, 0))
        forced = Forced.of(prediction.region, signs)
        if forced != self._session.state.settings.forced:
            self._session.choose(forced=forced)
            self._session.run()

    # Over ratios and rules

    def compare(self) -> None:
        """Segment the scan over the ladder, and show what is known after each ratio."""
        state, card = self._session.state, self._session.card
        if state.scan is None or card is None:
            return
        ladder = tuple(sorted({*LADDER, state.settings.keep_ratio}, reverse=True))
        reference = self._reference()
        question = Question(state.scan, state.settings, card, state.region, reference, ladder)

        def work(segmenter: Segmenter, watch: Watch, show: Callable[[Sweep], None]) -> Sweep:
            return sweep(segmenter, question, watch, show)

        def then(found: Sweep) -> None:
            if found.scan is self._session.state.scan:
                self._set_sweep(found)

        self._compute(work, then, "comparing keep ratios")

    def _set_sweep(self, found: Sweep | None) -> None:
        self.sweep = found
        if found is None:
            self.panel.blink_button.setChecked(False)
            self.layers.drop("lowest", "difference", "dense")
            self.panel.set_rungs((), "")
            return
        self.panel.set_rungs(found.rungs, self._sweep_words(found))
        self._show_layers()

    def _sweep_words(self, found: Sweep) -> str:
        auto, least = found.auto(self.panel.least), self.panel.least
        until = "" if found.complete else " (so far)"
        if auto is None:
            return f"No ratio agrees with keeping all tokens by {least:g}{until}."
        return f"Down to a keep ratio of {auto:g} every label agrees with keeping all tokens by {least:g}{until}."

    def _on_auto(self, least: float) -> None:
        auto = self.sweep.auto(least) if self.sweep is not None else None
        if self.sweep is not None:
            self.panel.set_rungs(self.sweep.rungs, self._sweep_words(self.sweep))
        if auto is None:
            self._session.say(f"No keep ratio that was tried agrees with keeping all tokens by {least:g}.", "info")
        else:
            self._session.set_keep_ratio(auto)

    def _on_export(self) -> None:
        found = self.sweep
        if found is None:
            return
        filters = "Table (*.csv);;All numbers (*.json);;Picture (*.png);;Drawing (*.svg)"
        path, _ = QFileDialog.getSaveFileName(self.panel, "Export the comparison", "keep_ratios.csv", filters)
        if path:
            name = Path(path).name
            self._session.write(
                lambda: save_sweep(found, Path(path)),
                lambda: self._session.say(f"Saved the comparison as {name}.", "info"),
                f"saving {name}",
            )

    def _on_rule(self, request: RuleRequest) -> None:
        try:
            changes = _rule_changes(request)
        except ScanError as error:
            self._session.say(str(error))
            return
        reference = self._reference() if request.selection == "oracle" else None
        if request.selection == "oracle" and reference is None:
            self._session.say("Choose a labels layer on the scan's voxels as the reference first.")
            return
        self._session.choose(selection=request.selection, reference=reference, **changes)
        self._session.run()

    def _on_layers(self, event: Any = None) -> None:
        """Labels layers that may serve as a reference."""
        scan = self._session.state.scan
        shape = None if scan is None else scan.shape
        self._references = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and OVERLAY not in layer.metadata and layer.data.shape == shape
        ]
        self.panel.set_references([layer.name for layer in self._references])

    def _reference(self) -> Reference | None:
        number = self.panel.reference
        if not 0 <= number < len(self._references):
            return None
        return Reference(np.asarray(self._references[number].data).astype(np.uint8))

    # Layers

    def _on_layer_toggled(self, kind: str, on: bool) -> None:
        if on and kind in ("stage", "lowest"):
            self._make_way()
        self._show_layers()

    def _on_order(self, event: Any = None) -> None:
        self._show_layers()

    def _show_layers(self) -> None:
        prediction, tokens, panel, found = self._session.state.prediction, self._tokens, self.panel, self.sweep
        if prediction is None or tokens is None:
            return
        shows: dict[str, Callable[[], None] | None] = {
            "boxes": lambda: self.layers.show_boxes(tokens),
            "stage": (lambda: self.layers.show_scores(tokens, panel.stage)) if tokens.stages else None,
            "lowest": (lambda: self.layers.show_lowest(found.lowest, found.scan)) if found else None,
            "difference": (lambda: self.layers.show_difference(prediction, found.dense)) if found else None,
        }
        for kind, show in shows.items():
            if show is not None and panel.layer_wanted(kind):
                show()
            else:
                self.layers.drop(kind)

    def _on_blink_toggled(self, on: bool) -> None:
        if on and self.sweep is not None:
            self.layers.show_dense(self.sweep.dense)
            self._blink.start()
            return
        self._blink.stop()
        self.layers.drop("dense")
        self._overlays.set_visible("mask", True)

    def _on_blink(self) -> None:
        dense = self.layers.get("dense")
        if dense is None:
            self.panel.blink_button.setChecked(False)
            return
        dense.visible = not dense.visible
        self._overlays.set_visible("mask", not dense.visible)

    # Details

    def _make_way(self) -> None:
        """Hide what would cover a layer of colours; the boxes of the tab Segment bring it back."""
        for kind in ("importance", "tokens"):
            self._overlays.set_visible(kind, False)
            self._overlays.visibility_changed.emit(kind, False)

    def _compute(self, work: Any, then: Any, what: str) -> None:
        if not self._session.inspect(work, then, what):
            self._session.say(_BUSY, "info")

    def _at(self, prediction: Prediction) -> Lattice:
        return Lattice.of(prediction.tokens, prediction.scan.geometry, prediction.scan.shape)

    def _voxel(self) -> Shape | None:
        scan, viewer = self._session.state.scan, self._viewer
        if scan is None or viewer.dims.ndisplay != 2:
            return None
        world = list(viewer.dims.point)
        position: Sequence[float] = viewer.cursor.position
        for axis in viewer.dims.displayed:
            world[axis] = position[axis]
        return voxel_at(world, scan) if is_inside(world, scan) else None


def _same_question(known: Sweep, prediction: Prediction) -> bool:
    """Whether a comparison is of this prediction's scan, model, region and rule."""
    ours, theirs = prediction.settings, known.settings
    same_rule = (ours.model, ours.selection, ours.seed, ours.reference) == (
        theirs.model, theirs.selection, theirs.seed, theirs.reference)  # fmt: skip
    return prediction.scan is known.scan and prediction.region == known.region and same_rule


def _rule_changes(request: RuleRequest) -> dict[str, Any]:
    changes: dict[str, Any] = {"stage_ratios": None, "threshold": None}
    hint = "write numbers, as 0.5, 0.25"
    if request.keep_by == "stages":
        changes["stage_ratios"] = tuple(batch.numbers(request.values, ",", None, hint))
    elif request.keep_by == "threshold":
        changes["threshold"] = batch.numbers(request.values, ",", 1, "write one number as the threshold, as 0.5")[0]
    return changes


def _probing(segmenter: Segmenter) -> Probing:
    if not isinstance(segmenter, Probing):
        raise ScanError("this engine does not let itself be looked into")
    return segmenter


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
