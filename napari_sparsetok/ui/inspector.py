"""Where the tab "Inspect", its layers and the session meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QFileDialog

from napari_sparsetok.engine.contract import Segmenter, Watch
from napari_sparsetok.inspection.export import save_sweep
from napari_sparsetok.inspection.ladder import Question, Sweep, sweep
from napari_sparsetok.review import Doubt
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction, Reference, Settings, TokenMap
from napari_sparsetok.tokens import LADDER, Lattice, Unseen, unseen
from napari_sparsetok.ui import inspect_words as say
from napari_sparsetok.ui.export_formats import EXPORTS, with_ending_of
from napari_sparsetok.ui.inspect_asking import BUSY, Asking
from napari_sparsetok.ui.inspect_layers import InspectLayers
from napari_sparsetok.ui.inspect_painting import TokenPainting
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.inspect_rule import Ruling, ratio_of, rung_of, same_question, same_rule
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.overlays import OVERLAY, Overlays
from napari_sparsetok.ui.scan_layer import lies_on
from napari_sparsetok.ui.shortcuts import Shortcut, Shortcuts

_BLINK_MS = 500
_REST_MS = 400  # after the last mask; while the slider moves nothing is gone through


class InspectDesk(QObject):
    """Shows what the network looked at, and what other keep ratios would give.

    Parameters
    ----------
    viewer, session, overlays, panel : what it joins.
    """

    doubt_changed = Signal(object)  # a `Doubt` about the current scan, or None

    def __init__(self, viewer: ViewerModel, session: Session, overlays: Overlays, panel: InspectPanel) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays, self.panel = viewer, session, overlays, panel
        self.layers = InspectLayers(viewer)
        self.sweep: Sweep | None = None
        self._lattice: Lattice | None = None
        self._tokens: TokenMap | None = None  # of the prediction, not of a preview
        self._pieces: list[Unseen] = []
        self._references: list[Labels] = []
        self._doubted: tuple[Sweep, float] | None = None  # what was last told to be in doubt, and above which ratio
        self._mask_was_shown = True  # before blinking
        self._blink, self._rest = QTimer(self), later(self, self._look_for_unseen, _REST_MS)
        self._blink.setInterval(_BLINK_MS)
        self._blink.timeout.connect(self._on_blink)
        self.asking = Asking(viewer, session, overlays, self.layers, panel)
        self.painting = TokenPainting(viewer, session, self.layers, panel)
        self.ruling = Ruling(session, panel, self._reference)
        self.shortcuts = Shortcuts(self._keys())
        self.shortcuts.follow(viewer)
        self._connect_panel()
        self._connections = self._connect()
        self._on_scan(session.state.scan)

    def shut_down(self) -> None:
        """Let go."""
        self.panel.sweep.blink_button.setChecked(False)
        self._rest.stop()
        self.asking.shut_down()
        self.painting.shut_down()
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self.shortcuts.shut_down()

    # Wiring

    def _connect_panel(self) -> None:
        panel = self.panel
        panel.piece_chosen.connect(self._on_piece)
        panel.unfolded.connect(self._rest.start)
        panel.sweep.compare_requested.connect(self.compare)
        panel.sweep.ratio_chosen.connect(self._take)
        panel.sweep.auto_requested.connect(self._on_auto)
        panel.sweep.export_requested.connect(self._on_export)
        panel.sweep.blink_toggled.connect(self._on_blink_toggled)
        panel.shown.layer_toggled.connect(self._on_layer_toggled)
        panel.shown.stage_chosen.connect(lambda stage: self._show_layers())
        panel.shown.against_chosen.connect(self._show_layers)
        panel.shown.opacity_chosen.connect(self.layers.set_opacity)

    def _connect(self) -> list[tuple[Any, Any]]:
        events, viewer = self._session.state.events, self._viewer
        events.scan.connect(self._on_scan)
        events.settings.connect(self._on_settings)
        events.prediction.connect(self._on_prediction)
        connections = [
            (viewer.dims.events.order, self._on_order),
            (viewer.dims.events.ndisplay, self._on_order),
            (viewer.layers.events.inserted, self._on_layers),
            (viewer.layers.events.removed, self._on_layers),
            (viewer.layers.events.renamed, self._on_layers),
        ]
        for emitter, slot in connections:
            emitter.connect(slot)
        return connections

    def _keys(self) -> list[Shortcut]:
        panel = self.panel
        return [
            Shortcut("A", "ask about the token under the mouse", lambda viewer: panel.ask_button.click()),
            Shortcut("O", "token outlines", lambda viewer: panel.shown.toggle("boxes")),
            Shortcut("Shift-S", "scores of one stage", lambda viewer: panel.shown.toggle("stage")),
            Shortcut("Shift-O", "tokens by how many windows kept them", lambda viewer: panel.shown.toggle("share")),
            Shortcut("Y", "from which keep ratio the label is steady", lambda viewer: panel.shown.toggle("lowest")),
            Shortcut("D", "difference from keeping all tokens", lambda viewer: panel.shown.toggle("difference")),
            Shortcut(
                "Shift-B", "blink between this mask and that one", lambda viewer: panel.sweep.blink_button.click()
            ),
        ]

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        self.layers.set_scan(scan, self._overlays.frame)
        self._forget()
        self._on_layers()

    def _on_settings(self, settings: Settings) -> None:
        self._show_sweep()
        now = ratio_of(settings)
        self.panel.sweep.plot.set_now(math.nan if now is None else now)
        self._tell_doubt()
        self.panel.set_rule(settings)
        card = self._session.card
        if card is not None:
            config = card.config
            self.panel.set_labels([label.name for label in card.labels])
            self.panel.set_model(card.stages, int(config.get("depth", 0)), int(config.get("heads", 0)))

    def _on_prediction(self, prediction: Prediction | None) -> None:
        self.panel.set_possible(prediction is not None)
        if prediction is None:
            self._forget()
            return
        if self.sweep is not None and not same_question(self.sweep, prediction):
            self._set_sweep(None)
        self._tokens = prediction.tokens
        self._lattice = Lattice.of(prediction.tokens, prediction.scan.geometry, prediction.scan.shape)
        self.asking.set_prediction(prediction, self._lattice)
        self._on_settings(self._session.state.settings)
        self.panel.set_budget(say.budget(prediction.tokens))
        self.panel.shown.set_overlapping(_overlap(prediction.tokens))
        self._show_layers()
        if prediction.complete:
            self._rest.start()

    def _look_for_unseen(self) -> None:
        prediction, lattice = self._session.state.prediction, self._lattice
        if prediction is None or lattice is None or not prediction.complete or not self.panel.isVisible():
            return

        at, drawn = self.panel.unseen_of
        given, label = self._drawn(drawn), prediction.labels.labels[at] if at >= 0 else None
        of = "the reference" if given is not None else "the mask" if label is None else label.name

        def found(known: tuple[list[Unseen], int, int]) -> None:
            if self._session.state.prediction is not prediction:
                return
            self._pieces, voxels, beside = known
            geometry = prediction.scan.geometry
            lines = [say.unseen_line(piece, prediction.labels, geometry) for piece in self._pieces[:100]]
            self.panel.set_unseen(say.unseen_summary(self._pieces, voxels, of, beside), lines)

        def look() -> tuple[list[Unseen], int, int]:
            mask = prediction.mask if given is None else given
            if label is not None:
                mask = np.where(mask == label.id, mask, 0)
            voxels = int(lattice.count(mask > 0)[prediction.tokens.covered].sum())
            return unseen(mask, prediction.tokens, lattice), voxels, int(np.count_nonzero(mask)) - voxels

        self._session.load(look, found, "looking for what was not looked at")

    def _forget(self) -> None:
        self._tokens = self._lattice = None
        self._pieces = []
        self._set_sweep(None)
        self.layers.drop("boxes", "stage", "share", "attention")  # of tokens that are no more
        self.panel.set_possible(self._session.state.prediction is not None)
        self.panel.set_unseen("", [])
        self.asking.set_prediction(None, None)

    # Never looked at

    def _on_piece(self, number: int) -> None:
        scan = self._session.state.scan
        if scan is None or number >= len(self._pieces):
            return
        at = self._pieces[number].at
        geometry = scan.geometry
        world = [o + v * s for o, v, s in zip(geometry.origin, at, geometry.spacing, strict=True)]
        dims = self._viewer.dims
        point = (*dims.point[:-3], *world)
        dims.point = point
        self._viewer.scene.camera.center = (0.0, *(point[axis] for axis in dims.displayed))[-3:]
        self.asking.ask(at)

    # Over ratios and rules

    def compare(self) -> None:
        """Segment the scan over the ladder, and show what is known after each ratio."""
        state, card = self._session.state, self._session.card
        if state.scan is None or card is None:
            return
        shown = state.prediction
        if shown is not None and not same_rule(shown.settings, state.settings):
            self._session.say("Segment the scan by the rule that is set first; then compare its keep ratios.", "info")
            return
        ladder = tuple(sorted({*LADDER, state.settings.keep_ratio}, reverse=True))
        reference = self._reference()
        region = state.region if shown is None else shown.region
        question = Question(state.scan, state.settings, card, region, reference, ladder)

        def work(segmenter: Segmenter, watch: Watch, show: Callable[[Sweep], None]) -> Sweep:
            return sweep(segmenter, question, watch, show)

        def then(found: Sweep) -> None:
            if found.scan is self._session.state.scan and same_rule(found.settings, self._session.state.settings):
                self._set_sweep(found)

        if not self._session.inspect(work, then, "comparing keep ratios"):
            self._session.say(BUSY, "info")

    def _set_sweep(self, found: Sweep | None) -> None:
        self.sweep = found
        if found is None:
            self.panel.sweep.blink_button.setChecked(False)
            self.layers.drop("lowest", "difference", "dense")
            self._show_sweep()
        else:
            self._show_sweep()
            self._show_layers()
        self._tell_doubt()

    def _tell_doubt(self) -> None:
        """What changes at the ratio that is set, or above it, is in doubt. What is known so far takes nothing back."""
        found, ratio = self.sweep, ratio_of(self._session.state.settings)
        if found is not None and not found.complete:
            return
        doubted = None if found is None or ratio is None else (found, ratio)
        if doubted != self._doubted:
            self._doubted = doubted
            self.doubt_changed.emit(Doubt(doubted[0].lowest, above=doubted[1]) if doubted else None)

    def _show_sweep(self) -> None:
        found = self.sweep
        self.panel.shown.set_compared(found is not None)
        if found is None:
            self.panel.sweep.set_rungs((), (), "")
            return
        rung = rung_of(found, self._session.state.settings)
        here = "" if rung is None else say.against_dense(rung)
        self.panel.sweep.set_rungs(found.rungs, found.settled, self._sweep_words(found) + here)

    def _sweep_words(self, found: Sweep) -> str:
        least = self.panel.sweep.least
        auto = found.auto(least)
        until = "" if found.complete else " (so far)"
        if auto == 1.0 and found.complete:
            return f"No ratio below 1 that was tried agrees with keeping all tokens by {least:g}."
        if auto is None:
            return f"No ratio agrees with keeping all tokens by {least:g}{until}."
        return f"Down to a keep ratio of {auto:g} every label agrees with keeping all tokens by {least:g}{until}."

    def _on_auto(self, least: float) -> None:
        auto = self.sweep.auto(least) if self.sweep is not None else None
        self._show_sweep()
        if auto is None:
            self._session.say(f"No keep ratio that was tried agrees with keeping all tokens by {least:g}.", "info")
        else:
            self._take(auto)

    def _take(self, ratio: float) -> None:
        """One ratio for all stages; also if it is the one that was set before a threshold, or a ratio for each."""
        self._session.choose(stage_ratios=None, threshold=None)
        self._session.set_keep_ratio(ratio)

    def _on_export(self) -> None:
        found = self.sweep
        if found is None:
            return
        filters = ";;".join(EXPORTS)
        path, chosen = QFileDialog.getSaveFileName(self.panel, "Export the comparison", "keep_ratios.csv", filters)
        if not path:
            return
        target = Path(with_ending_of(path, chosen))
        if target != Path(path) and target.exists():  # of which the dialog did not ask
            self._session.say(f"There is a {target.name} already; write that name in the dialog to replace it.")
            return
        self._session.write(
            lambda: save_sweep(found, target),
            lambda: self._session.say(f"Saved the comparison as {target.name}.", "info"),
            f"saving {target.name}",
        )

    def _on_layers(self, event: Any = None) -> None:
        """Labels layers that may serve as a reference."""
        scan, before = self._session.state.scan, self._references
        self._references = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and OVERLAY not in layer.metadata and lies_on(layer, scan)
        ]
        self.panel.set_references([layer.name for layer in self._references])
        if self._references != before:  # not of every layer: one that the person deletes stays away for now
            self._show_layers()

    def _drawn(self, number: int) -> NDArray[Any] | None:
        """The voxels of one of the labels layers that may serve as a reference."""
        if not 0 <= number < len(self._references):
            return None
        drawn = np.asarray(self._references[number].data)
        drawn = drawn.reshape(drawn.shape[-3:])  # a mask of one frame has an axis of this frame before
        return np.clip(drawn, 0, 255).astype(np.uint8)  # no label is beyond

    def _reference(self) -> Reference | None:
        drawn = self._drawn(self.panel.rule.reference)
        return None if drawn is None else Reference(drawn)

    # Layers

    def _on_layer_toggled(self, kind: str, on: bool) -> None:
        if on and kind in ("stage", "share", "lowest"):
            self._overlays.make_way()
        self._show_layers()

    def _on_order(self, event: Any = None) -> None:
        self._show_layers()

    def _show_layers(self) -> None:
        prediction, tokens, panel, found = self._session.state.prediction, self._tokens, self.panel, self.sweep
        if prediction is None or tokens is None:
            return
        shows: dict[str, Callable[[], None] | None] = {
            "boxes": lambda: self.layers.show_boxes(tokens),
            "stage": (lambda: self.layers.show_scores(tokens, panel.shown.stage)) if tokens.stages else None,
            "share": (lambda: self.layers.show_share(tokens)) if _overlap(tokens) else None,
            "lowest": (lambda: self.layers.show_lowest(found)) if found else None,
            "difference": self._difference(prediction),
        }
        for kind, show in shows.items():
            if show is not None and panel.shown.wanted(kind):
                show()
            else:
                self.layers.drop(kind)

    def _difference(self, prediction: Prediction) -> Callable[[], None] | None:
        """Shows where a prediction differs from the mask that was chosen; None if there is none."""
        number = self.panel.shown.against
        drawn = self._drawn(number)
        other = drawn if drawn is not None else None if self.sweep is None else self.sweep.dense.mask
        return None if other is None else lambda: self.layers.show_difference(prediction, other, drawn is not None)

    def _on_blink_toggled(self, on: bool) -> None:
        if on and self.sweep is not None:
            mask = self._overlays.layer("mask")
            self._mask_was_shown = mask is None or bool(mask.visible)
            self.layers.show_dense(self.sweep.dense)
            self._blink.start()
            return
        self._blink.stop()
        self.layers.drop("dense")
        self._overlays.set_visible("mask", self._mask_was_shown)

    def _on_blink(self) -> None:
        dense = self.layers.get("dense")
        if dense is None:
            self.panel.sweep.blink_button.setChecked(False)
            return
        dense.visible = not dense.visible
        self._overlays.set_visible("mask", not dense.visible)


def _overlap(tokens: TokenMap) -> bool:
    """Whether a token lies in more than one window."""
    return tokens.windows is not None and bool((tokens.windows > 1).any())
