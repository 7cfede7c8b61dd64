"""What the program knows, as frozen values, and the one object that holds the current ones.

Only `napari_sparsetok.session.Session` writes `State`; everyone may listen. Values are replaced, never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import SignalGroupDescriptor

from napari_sparsetok.labels import LabelTable, count_labels
from napari_sparsetok.scan import Region, Scan, Shape

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]

Selection = Literal["learned", "random", "norm", "attention", "entropy", "oracle"]


class Reference:
    """A mask to compare with, on the scan's own grid. Two of one type with the same voxels are equal.

    Parameters
    ----------
    mask : (z, y, x) of integers, 0 is background. A copy is kept.
    """

    def __init__(self, mask: NDArray[Any]) -> None:
        if mask.ndim != 3 or mask.dtype.kind not in "biu":
            raise ValueError(f"a reference mask is a volume of whole numbers, not {mask.dtype} of {mask.shape}")
        self.mask: NDArray[Any] = np.array(mask, order="C")
        self.mask.flags.writeable = False
        digest = hashlib.sha256(f"{self.mask.shape}{self.mask.dtype.str}".encode())
        digest.update(self.mask.data)
        self.sha256 = digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


@dataclass(frozen=True)
class Forced:
    """Tokens that a person chose by hand.

    region, grid : the box that was segmented, and its token grid (d, h, w); they mean nothing on another.
    keep, drop : flat places on that grid of tokens that every stage keeps, and that the first stage prunes.
    """

    region: Region
    grid: Shape
    keep: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()

    @classmethod
    def of(cls, region: Region, signs: NDArray[Any]) -> Forced | None:
        """From an array (d, h, w): above 0 must be kept, below 0 must go. None if it says nothing."""
        keep, drop = np.flatnonzero(signs > 0).tolist(), np.flatnonzero(signs < 0).tolist()
        return cls(region, tuple(signs.shape), tuple(keep), tuple(drop)) if keep or drop else None

    def signs(self) -> NDArray[np.int8]:
        """(d, h, w): 1 must be kept, -1 must go, 0 no opinion."""
        signs = np.zeros(int(np.prod(self.grid)), dtype=np.int8)
        signs[list(self.keep)], signs[list(self.drop)] = 1, -1
        return signs.reshape(self.grid)


@dataclass(frozen=True)
class Settings:
    """What a person chose for a run.

    model : the model's id in the registry; empty if none is chosen yet.
    keep_ratio : share of the tokens still left that each stage keeps, in (0, 1].
    device : "auto" takes the fastest there is.
    replace_nonfinite : put this value where the scan holds NaN or infinity; None refuses such a scan.
    selection : what ranks the tokens. "learned": the model's own scores. For comparison on the same network: "random";
        "norm", the length of a token; "attention", the mean attention that a token gets; "entropy", of the image in
        the token's patch; "oracle", nearness to the reference mask.
    stage_ratios : one keep ratio for each stage, instead of `keep_ratio`.
    threshold : keep what scores at least this, instead of a share. In the units of the selection: see `TokenMap`.
    seed : of the random selection.
    reference : for the oracle.
    forced : tokens chosen by hand. They change what is kept, never a score.
    all_pieces : keep what lies far from the largest piece of a structure that is one; see `Card.one_piece`.
    """

    model: str = ""
    keep_ratio: float = 0.25
    device: DeviceChoice = "auto"
    replace_nonfinite: float | None = None
    selection: Selection = "learned"
    stage_ratios: tuple[float, ...] | None = None
    threshold: float | None = None
    seed: int = 0
    reference: Reference | None = None
    forced: Forced | None = None
    all_pieces: bool = False

    @property
    def ratios(self) -> float | tuple[float, ...]:
        """One keep ratio for all stages, or one for each. A threshold overrules them."""
        return self.stage_ratios or self.keep_ratio

    def to_json(self) -> dict[str, Any]:
        """Plain values. Of a reference only its hash: it is a picture of a patient."""
        document = {x.name: getattr(self, x.name) for x in fields(self)}
        if self.reference is not None:
            document["reference"] = {"sha256": self.reference.sha256}
        if self.forced is not None:
            f = self.forced
            region = {"start": f.region.start, "stop": f.region.stop}
            document["forced"] = {"region_zyx": region, "grid_zyx": f.grid, "keep": f.keep, "drop": f.drop}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any], reference: Reference | None = None) -> Settings:
        """The way back.

        Raises
        ------
        ValueError : a reference mask was used, and it is not this one.
        """
        given = dict(document)
        then = given.pop("reference", None)
        if then is not None and (reference is None or reference.sha256 != then["sha256"]):
            raise ValueError("the tokens were ranked by a reference mask; give the same one to make it again")
        forced, ratios = given.pop("forced", None), given.pop("stage_ratios", None)
        if forced is not None:
            region = Region(*(tuple(forced["region_zyx"][key]) for key in ("start", "stop")))
            forced = Forced(region, *(tuple(forced[key]) for key in ("grid_zyx", "keep", "drop")))
        ratios = None if ratios is None else tuple(ratios)
        return cls(**given, stage_ratios=ratios, forced=forced, reference=reference if then else None)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """What happened to the tokens of a scan, on the token grid that all windows share.

    Where windows overlap, a token's values are those of the window in whose middle it lies.

    importance : (stages, d, h, w) float32, the scores that ranked the tokens at each stage; NaN where a token was gone,
        or not in the region. Learned: probabilities, 0 … 1. Random, oracle: 0 … 1, and the oracle's is 0.5 or more
        where a token touches the reference. Entropy: share of the most that there can be, 0 … 1. Attention: the mean
        that a token gets, times the number of tokens, so 1 is an even share. Norm: length of the token.
    stage : (d, h, w) uint8. k: pruned at stage k, counted from 1; stages + 1: kept to the end; 0: not looked at, as no
        window was run that holds it, or as it is empty and the model takes in no such patch; see `covered`.
    rank : (d, h, w) int32, place in its window in the order in which the first stage keeps, 0 the first: by score, but
        tokens chosen by hand come first or last; -1 not looked at.
    window_tokens : tokens in one window, of which a stage keeps its share, or less if some are empty.
    left : tokens before the first stage and after each, over all windows. Where the number differs between windows and
        some are still to come, as many as it would be if those were like the ones that were run.
    spacing, origin : millimetres along the viewer's axes between tokens, and the middle of token (0, 0, 0).
    selection : what the scores are; see `Settings`.
    window_grid : tokens of one window along each axis; None if nobody said.
    forced : (d, h, w) int8, 1 must be kept, -1 must go, as a person said; None if nobody did.
    windows : (d, h, w) uint16, how many of the windows that were run hold the token; None if nobody counted.
    passed : (stages, d, h, w) float32, the share of those windows in which the token passed a stage: where windows
        overlap they may differ. NaN where there is none; None if nobody counted.
    entered : (d, h, w) int32, of how many tokens of its window a token is one; None if `window_tokens` in all of them.
    left_by_window : (windows that were run, 1 + stages), what `left` is the sum of; None if nobody counted.
    """

    importance: NDArray[np.float32]
    stage: NDArray[np.uint8]
    rank: NDArray[np.int32]
    window_tokens: int
    left: tuple[int, ...]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    selection: Selection = "learned"
    forced: NDArray[np.int8] | None = None
    window_grid: Shape | None = None
    windows: NDArray[np.uint16] | None = None
    passed: NDArray[np.float32] | None = None
    entered: NDArray[np.int32] | None = None
    left_by_window: NDArray[np.int64] | None = None

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(d, h, w): a window was run that holds the token, whether or not it was taken in."""
        return (self.stage if self.windows is None else self.windows) > 0

    @property
    def empty(self) -> int:
        """How many patches never entered because they are empty, over all windows; see `left`."""
        entered = 0 if self.left_by_window is None else int(self.left_by_window[:, 0].sum())
        if self.left_by_window is None or not entered:
            return 0
        return round(self.left[0] * self.window_tokens * len(self.left_by_window) / entered) - self.left[0]

    @property
    def stages(self) -> int:
        """How many times tokens were pruned."""
        return int(self.importance.shape[0])


@dataclass(frozen=True)
class DeviceReport:
    """What computes, in words. `warning` says loudly that something faster lies idle, and what to do."""

    name: str
    warning: str = ""


@dataclass(frozen=True)
class Timing:
    """What a run cost.

    first : seconds until the first part of the mask was there.
    total : seconds for all of it.
    cached : share of the windows whose prefix was not computed again, 0 … 1.
    windows : how many windows were run.
    device : where, in words.
    entered, passed : tokens of the windows that were run, and those that the first stage let on.
    memory : bytes that the program held at its end, on the GPU if that computed; 0 if nobody looked.
    recalled : whether it was there already when it was asked for; the seconds are those of when it was computed.
    """

    first: float
    total: float
    cached: float
    windows: int
    device: str
    entered: int = 0
    passed: int = 0
    memory: int = 0
    recalled: bool = False


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a scan.

    mask : (z, y, x) uint8 on the scan's own grid; 0 is background.
    region : the box that was segmented; outside it the mask is 0.
    changed : the box in which the mask may differ from the prediction that it builds on.
    complete : False while windows are still to come.
    serial : a number of its own.
    builds_on : serial of that earlier prediction; 0 if there is none, so that all of the mask is new.
    left_out : label and voxels of each piece that was found, and is not in the mask; see `Card.one_piece`.
    by_token : (labels of one piece, d, h, w) voxels of them that the mask has in each token; None if nobody counted.
    """

    scan: Scan
    settings: Settings
    labels: LabelTable
    region: Region
    mask: NDArray[np.uint8]
    tokens: TokenMap
    changed: Region
    complete: bool
    timing: Timing
    serial: int = 0
    builds_on: int = 0
    left_out: tuple[tuple[int, int], ...] = ()
    by_token: NDArray[np.int32] | None = None

    @cached_property
    def voxel_counts(self) -> NDArray[np.int64]:
        """How many voxels have each of the numbers 0 to 255. Slow once for a large mask, so not on the GUI thread."""
        counts = count_labels(self.mask[self.region.slices])
        counts[0] += self.mask.size - counts.sum()  # all that lies outside the region
        return counts


@dataclass(frozen=True)
class Busy:
    """What is being done, in words, and how far it is. `total` 0 means that nobody knows.

    brief : mostly done before a person could read of it.
    """

    what: str
    done: int = 0
    total: int = 0
    can_cancel: bool = True
    unit: str = "windows"
    brief: bool = False


@dataclass(frozen=True, eq=False)
class Message:
    """A sentence for the person. Two of the same words are two messages, so both are shown."""

    text: str
    severity: Literal["info", "warning", "error"] = "info"


@dataclass(eq=False)
class State:
    """The current values. `events` emits the new value under the field's name.

    looking_ahead : whether keep ratios that nobody asked for are computed on idle.
    """

    events: ClassVar[Any] = SignalGroupDescriptor()

    scan: Scan | None = None
    settings: Settings = field(default_factory=Settings)
    region: Region | None = None
    focus: Shape | None = None
    tokens: TokenMap | None = None
    prediction: Prediction | None = None
    device: DeviceReport | None = None
    message: Message | None = None
    busy: Busy | None = None
    looking_ahead: bool = False
