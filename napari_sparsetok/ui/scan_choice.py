"""Which layers of the viewer are the scan, and the scan that they make."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from numpy.typing import NDArray
from psygnal import Signal

from napari_sparsetok.files import OpeningStopped, resampled_to
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.scan import OtherGridError, Scan, ScanError, stack_channels
from napari_sparsetok.session import Session
from napari_sparsetok.ui.layer_watch import LayerWatch
from napari_sparsetok.ui.overlays import OVERLAY
from napari_sparsetok.ui.place import Place
from napari_sparsetok.ui.scan_layer import SCAN, Frame, frame_at, is_at_hand, scan_of

Taken = Callable[[Scan | None, Frame | None, str], None]


class ScanChoice:
    """Chooses one image layer for each channel of the model, and says which scan they make.

    other_grid : the layers do not have the same voxels, in words; `resample` brings them together if somebody agrees.
    replaced : a layer that makes the scan got other voxels, or another place; with the scans that it made before,
        one for each frame. Told before what it makes now is taken.

    Parameters
    ----------
    viewer : whose layers there are.
    session : reads voxels that are not in memory, in the background.
    taken : called with the scan, its frame if its layers have a time axis, and why there is none.
    """

    other_grid = Signal(str)
    replaced = Signal(list, Layer)

    def __init__(self, viewer: ViewerModel, session: Session, taken: Taken) -> None:
        self._viewer, self._session, self._taken = viewer, session, taken
        self._scans: dict[tuple[Any, ...], tuple[Any, Place, Scan]] = {}
        self._stamps: dict[Layer, tuple[Any, int]] = {}  # voxels, and what told them from others when last looked at
        self._written: set[Layer] = set()  # whose voxels are no more what their scan's file held
        self._watch = LayerWatch(self._on_replaced, self._on_held, self._on_drawn_anew)
        self._wanted: object = None  # the newest request; older ones that are read later are dropped
        self._frame: Frame | None = None
        self._agreed: list[Layer | None] = []  # layers that may be resampled to the first of them
        self._refused = False  # whether the chosen layers made no scan because somebody said no, or stopped it
        self._by_hand = False  # whether a person said which scan is which channel
        self.layers: list[Layer] = []
        self.chosen: list[Layer | None] = []

    def update(self, channels: Sequence[str], newest: Layer | None = None) -> None:
        """Layers came or went, or the model takes others; a scan that was just opened is taken.

        Of several channels each gets the layer that has its name, until a person chooses.
        """
        self.layers = scan_layers(self._viewer)
        ids = {layer.unique_id for layer in self.layers}
        self._scans = {key: kept for key, kept in self._scans.items() if key[0] in ids}
        self._stamps = {layer: stamp for layer, stamp in self._stamps.items() if layer in self.layers}
        self._written &= set(self.layers)
        was_opened = newest is not None and newest in self.layers and SCAN in newest.metadata
        self._by_hand &= len(channels) == len(self.chosen)
        if len(channels) == 1 and was_opened:
            self.choose([newest])
            return
        before = [x if x in self.layers else None for x in [*self.chosen, *[None] * len(channels)][: len(channels)]]
        named = [None if self._by_hand or len(channels) == 1 else _named(name, self.layers) for name in channels]
        named = [x if named.count(x) == 1 else None for x in named]  # one layer with the names of both is neither
        chosen = [own or (old if old not in named else None) for own, old in zip(named, before, strict=True)]
        free = [x for x in [*filter(None, before), *self.layers] if x not in chosen]
        free = list(dict.fromkeys(free))
        self.choose([layer or (free.pop(0) if free else None) for layer in chosen])

    def choose_by_hand(self, layers: Sequence[Layer | None]) -> None:
        """As `choose`; and layers that come later change nothing of it."""
        self._by_hand = True
        self.choose(layers)

    def choose(self, layers: Sequence[Layer | None]) -> None:
        """Take these layers, one for each channel; the same anew only if they made no scan before."""
        if list(layers) != self.chosen or self._refused:
            self.chosen = list(layers)
            self._watch.watch(layer for layer in layers if layer is not None)
            self._take()

    def shut_down(self) -> None:
        """Stop listening to layers."""
        self._watch.stop()

    def resample(self) -> None:
        """Bring the chosen scans to the voxels of the first; the person agreed. Their layers stay as they are."""
        self._agreed = list(self.chosen)
        self._take()

    def on_step(self) -> None:
        """The viewer's sliders moved; with a time axis that may be another scan."""
        if self._frame is not None and self._frame_now() != self._frame:
            self._take()

    def were_written(self) -> bool:
        """Whether voxels were written in place since this was last asked; then they are taken anew, as another scan.

        napari tells nobody of it. Looking through 100 MB takes some 50 ms.
        """
        written = [layer for layer in self.chosen if layer is not None and self._was_written(layer)]
        for layer in written:
            self._written.add(layer)
            self._on_replaced(layer)
        return bool(written)

    def _was_written(self, layer: Layer) -> bool:
        data = layer.data
        if type(data) is not np.ndarray:  # what lies on disk would have to be read
            return False
        before, stamp = self._stamps.get(layer), _stamp(data)
        self._stamps[layer] = data, stamp
        return before is not None and before[0] is data and before[1] != stamp

    def _on_drawn_anew(self, layer: Layer) -> None:
        if layer in self._stamps:
            self.were_written()

    def _on_replaced(self, layer: Layer) -> None:
        now = self._session.state.scan
        scans = {kept[2]: None for key, kept in self._scans.items() if key[0] == layer.unique_id}  # one for each frame
        if now is not None or scans:
            self.replaced.emit(list(scans | ({} if now is None else {now: None})), layer)
        self._scans = {key: kept for key, kept in self._scans.items() if key[0] != layer.unique_id}
        self._take()

    def _on_held(self, layer: Layer) -> None:
        # The first words are all that napari shows of a notice before it is unfolded.
        self._session.say(f"The scan was put back to its place: masks lie where the file of “{layer.name}” says.")

    def _frame_now(self) -> Frame | None:
        frames = [frame_at(layer, self._viewer.dims.point) for layer in self.chosen if layer is not None]
        return next((frame for frame in frames if frame is not None), None)

    def _take(self) -> None:
        self._wanted = wanted = object()
        self._frame = frame = self._frame_now()
        layers = [layer for layer in self.chosen if layer is not None]
        self._refused = False
        if not layers or len(layers) < len(self.chosen):
            missing = f"This model needs {len(self.chosen)} scans, one for each channel; open the others too."
            self._taken(None, None, missing if layers else "")
        elif len(layers) == 1 and is_at_hand(layers[0]):
            self._hand_over(wanted, frame, _tried(lambda: self._read(layers, frame, Watch())))
        else:
            self._taken(None, None, "")
            self._session.follow(
                lambda watch: self._read_if_wanted(wanted, layers, frame, watch),
                lambda found: self._hand_over(wanted, frame, found),
                f"resampling to {layers[0].name}" if layers == self._agreed else f"reading {layers[0].name}",
                otherwise=lambda: self._on_nothing(wanted, layers[0].name),
            )

    def _hand_over(self, wanted: object, frame: Frame | None, found: Scan | ScanError) -> None:
        if wanted is not self._wanted:
            return
        if isinstance(found, OtherGridError):
            problem = str(found).partition(";")[0]
            self._refused = True
            self._taken(None, None, f"{problem}. Choose one of them here again to be asked whether to resample.")
            self.other_grid.emit(problem)
        elif isinstance(found, ScanError):
            self._taken(None, None, str(found))
        else:
            self._taken(found, frame, "")

    def _on_nothing(self, wanted: object, name: str) -> None:
        """It failed, or was stopped, even before it began."""
        if wanted is self._wanted:
            self._refused = True
            self._taken(None, None, f"“{name}” was not read. Choose it here again to try once more.")

    def _read_if_wanted(
        self, wanted: object, layers: Sequence[Layer], frame: Frame | None, watch: Watch
    ) -> Scan | ScanError:
        if wanted is not self._wanted:  # another was chosen while this one waited
            raise OpeningStopped
        return _tried(lambda: self._read(layers, frame, watch))

    def _read(self, layers: Sequence[Layer], frame: Frame | None, watch: Watch) -> Scan:
        scans = [self._one(layer, frame.index if frame else 0) for layer in layers]
        if len(scans) > 1 and list(layers) == self._agreed:
            scans = [scans[0], *(resampled_to(scan, scans[0].geometry, watch) for scan in scans[1:])]
        made = scans[0] if len(scans) == 1 else stack_channels(scans)
        if made.is_lazy:
            _ = made.sample  # read here, so that windows need not be read for on the GUI thread
        return made

    def _one(self, layer: Layer, frame: int) -> Scan:
        """One object for one frame, so that results find their scan again; another for other voxels or place."""
        key, data = (layer.unique_id, frame, *map(str, layer.units)), layer.data
        kept = self._scans.get(key)
        if kept is None or kept[0] is not data or not kept[1].is_of(layer):
            scan = scan_of(layer, frame)
            made = replace(scan) if layer in self._written else scan  # what is known of the voxels is known anew
            kept = self._scans[key] = (data, Place.of(layer), made)
        return kept[2]


def scan_layers(viewer: ViewerModel) -> list[Layer]:
    """The layers that may be scans, from bottom to top."""
    images = [layer for layer in viewer.layers if isinstance(layer, Image) and OVERLAY not in layer.metadata]
    return [image for image in images if not image.rgb and image.ndim in (3, 4)]


def _stamp(voxels: NDArray[Any]) -> int:
    """A number that is another, most likely, once any voxel is."""
    stamp, turned = 1, voxels.transpose(np.argsort([-abs(step) for step in voxels.strides]))  # as they lie in memory
    for part in turned:
        stamp = zlib.adler32(np.ascontiguousarray(part).data, stamp)
    return stamp


def _named(channel: str, layers: Sequence[Layer]) -> Layer | None:
    """The one layer whose name holds all words of a channel's."""
    found = [layer for layer in layers if _words(channel) <= _words(layer.name)]
    return found[0] if len(found) == 1 else None


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", name.casefold()))


def _tried(read: Callable[[], Scan]) -> Scan | ScanError:
    try:
        return read()
    except ScanError as error:
        return error
