"""What fixes a network's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Grid = tuple[int, int, int]
Completion = Literal["assembly", "mask"]
Positions = Literal["learned", "sincos"]

_CHOICES = {"completion": get_args(Completion), "positions": get_args(Positions)}
_SIZES = (
    *("in_channels", "out_channels", "window", "patch", "features"),
    *("dim", "depth", "heads", "completion_dim", "completion_heads"),
)


@dataclass(frozen=True)
class SCDConfig:
    """Everything that fixes the weights' shapes. The keep ratio is not among it.

    Parameters
    ----------
    in_channels, out_channels : channels of the image; classes with background.
    window : voxels (z, y, x) of the input that the network was made for, multiples of `patch`.
    patch : voxels along the edge of a patch: 4, 8 or 16.
    dim, depth, heads, mlp_ratio : the encoder's width, blocks, heads, and its MLPs' widening.
    prune_after : a pruning stage follows these blocks, counted from 1.
    completion_dim, completion_depth, completion_heads : the same for token completion.
    completion : "assembly" brings pruned tokens back as they were when pruned, "mask" with nothing but their place.
    features : the decoder's channels at full resolution.
    pooled_decoder : see `UnetrDecoder`.
    positions : "learned" codes fit one window only, "sincos" codes any.
    class_token : carry one more token that is never pruned, as published.
    shared_scores : one score network for all stages.
    drop_path : stochastic depth of the last block; earlier blocks have less.
    empty : a patch whose voxels are all at most this, as the intensity rule gives them, never enters; None lets all in.
        See `napari_sparsetok.model.scd.SCD`.
    """

    in_channels: int
    out_channels: int
    window: Grid
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    prune_after: tuple[int, ...] = (3, 6, 9)
    completion_dim: int = 768
    completion_depth: int = 1
    completion_heads: int = 12
    completion: Completion = "assembly"
    features: int = 16
    pooled_decoder: bool = False
    positions: Positions = "sincos"
    class_token: bool = False
    shared_scores: bool = False
    drop_path: float = 0.0
    empty: float | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        if any(w % self.patch for w in self.window):
            raise ValueError(f"the window {self.window} must be a multiple of the patch, {self.patch} voxels")
        if self.pooled_decoder and any(side % 2 or side < 4 for side in self.grid()):
            raise ValueError(
                f"with a pooled decoder a window has an even number of patches, at least 4, not {self.grid()}"
            )
        if self.dim % self.heads or self.completion_dim % self.completion_heads:
            raise ValueError("the width must be a multiple of the number of heads")
        if not self.prune_after:
            raise ValueError("“prune_after” names one block at least; a keep ratio of 1 prunes nothing")
        ordered = list(self.prune_after) == sorted(set(self.prune_after))
        if not ordered or not all(1 <= b <= self.depth for b in self.prune_after):
            raise ValueError(f"prune_after {self.prune_after} must rise and lie within 1 … {self.depth}")
        if self.empty is not None and self.positions == "learned":
            raise ValueError("a network with learned positions takes in every patch: leave “empty” out")

    def _check_kinds(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            sides = value if name == "window" else (value,)
            if not all(isinstance(n, int) and n > 0 for n in sides):
                raise ValueError(f"“{name}” counts something, so it is a whole number above 0, not {value!r}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"“{name}” is one of {', '.join(known)}, not {getattr(self, name)!r}")

    @property
    def stages(self) -> int:
        """How many times tokens are pruned."""
        return len(self.prune_after)

    def grid(self, window: Sequence[int] | None = None) -> Grid:
        """The token grid of a window of voxels, of this config's own if none is given."""
        d, h, w = (side // self.patch for side in (window or self.window))
        return d, h, w
