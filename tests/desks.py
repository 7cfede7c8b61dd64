"""The tab Inspect on a viewer without a window, and an engine that lets itself be looked into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fakes import PATCH, FakeSegmenter, Mailbox, make_registry, make_scan
from napari.components import ViewerModel

from napari_sparsetok.engine.contract import Reach
from napari_sparsetok.scan import Region
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.inspector import InspectDesk
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.scan_layer import layer_data

GRID = (4, 5, 3)  # tokens of the fake's scan


class FakeProbe:
    """Says what can be checked: the voxel's number as its probability, the block as its attention."""

    box = Region((0, 0, 0), GRID)
    probabilities = np.stack([np.full((16, 20, 12), p, np.float32) for p in (0.25, 0.75, 0.0)])

    def get_ready(self, should_stop: Any) -> None:
        pass

    def kept_from(self, place: Any) -> float:
        return 0.3

    def attention(self, block: int, place: Any, head: int | None) -> np.ndarray:
        values = np.full(GRID, np.nan, np.float32)
        if block < 2:
            values[0] = block + 1
        return values

    def rollout(self, place: Any) -> np.ndarray:
        return np.full(GRID, 1 / np.prod(GRID), np.float32)

    def masked_heads(self, on_progress: Any, should_stop: Any) -> np.ndarray:
        on_progress(1, 2)
        return np.array([[0.1, 0.0], [0.3, 0.2]], np.float32)

    def reach(self, on_progress: Any) -> Reach:
        share = np.array([[[0.7, 0.3], [0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]]], np.float32)
        edges, even = np.array([0, 10, 30], np.float32), np.array([0.4, 0.6], np.float32)
        return Reach(edges, share, np.full((2, 2), 9, np.float32), even)


@dataclass
class Probed(FakeSegmenter):
    """The fake, which lets itself be looked into."""

    probed: list[Any] = field(default_factory=list)

    def probe(self, scan: Any, settings: Settings, voxel: Any, region: Any = None) -> tuple[FakeProbe, Any]:
        self.probed.append((settings, tuple(voxel)))
        return FakeProbe(), tuple(v // PATCH for v in voxel)


class Desk:
    def __init__(self, qtbot: Any, engine: FakeSegmenter) -> None:
        self.engine, self.mail = engine, Mailbox()
        self.session = Session(lambda: engine, make_registry(), Settings(keep_ratio=0.3), deliver=self.mail.deliver)
        self.viewer = ViewerModel()
        self.overlays = Overlays(self.viewer)
        self.panel = InspectPanel()
        qtbot.addWidget(self.panel)
        self.desk = InspectDesk(self.viewer, self.session, self.overlays, self.panel)
        self.scan = make_scan()
        for data, arguments, _ in layer_data(self.scan):
            self.viewer.add_image(data, **arguments)
        events = self.session.state.events
        events.tokens.connect(self._on_tokens)
        events.prediction.connect(self._on_prediction)
        self.overlays.set_scan(self.scan)
        self.session.set_scan(self.scan)

    def _on_tokens(self, tokens: Any) -> None:
        if tokens is not None:
            self.overlays.show_tokens(tokens)

    def _on_prediction(self, prediction: Any) -> None:
        if prediction is not None:
            self.overlays.show_mask(prediction)

    def let_go(self) -> None:
        self.desk.shut_down()
        self.overlays.let_go()
        self.session.close()

    def settle(self) -> None:
        assert self.session.wait(20)
        self.mail.empty()
        assert self.session.wait(20)
        self.mail.empty()

    def segment(self) -> None:
        self.session.run()
        self.settle()

    def shown(self, kind: str) -> Any:
        return self.desk.layers.get(kind)
