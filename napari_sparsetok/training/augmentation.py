"""Windows of training cases, with random changes that leave their meaning alone. MONAI's transforms do the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai import transforms as mt
from numpy.typing import NDArray
from torch import Tensor

from napari_sparsetok.training.case import Case
from napari_sparsetok.training.configuration import TrainingConfig

KEYS = ("image", "labels")
_PLAIN = "plain"
"""The image after it was turned and sheared, before its values were changed."""

_TRIES = 8
"""Places of a case that are tried until one is not empty."""

_BARELY = 1e-3
"""Interpolation between voxels of one value does not give it back to the last digit."""

_MARGIN = 1.25
"""A window is cut this much larger before it is turned and sheared, so that its corners are real voxels."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows for one step.

    images : (B, channels, D, H, W) float32.
    labels : (B, 1, D, H, W) int64.
    known : (B, labels with background) bool, what was drawn in each case.
    """

    images: Tensor
    labels: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(self.images.to(device), self.labels.to(device), self.known.to(device))


class Windows:
    """Draws windows. What it draws depends on its generator alone, so that a run can go on where it was killed.

    Parameters
    ----------
    empty : the network's `SCDConfig.empty`. Where nothing is above it, no noise is laid and no window is drawn for its
        own sake, and nothing else is brought down to it: patches are empty in training where they are in use.
    """

    def __init__(self, training: TrainingConfig, empty: float | None = None) -> None:
        self._training, self._empty = training, empty
        self._augment = _transforms()
        self._rng = np.random.default_rng()

    def draw(self, cases: Sequence[Case], rng: np.random.Generator) -> Batch:
        """A batch of windows of one size.

        A window around a label is drawn by label first and by case then, so that a label that few cases have is seen as
        often as one that all have.
        """
        self._rng = rng
        self._augment.set_random_state(int(rng.integers(2**31)))
        sides = [int(rng.choice(choice)) for choice in self._training.windows]
        samples = [self._sample(*self._place(cases, sides), sides) for _ in range(self._training.batch)]
        return Batch(
            torch.stack([torch.as_tensor(s["image"]).float() for s, _ in samples]),
            torch.stack([torch.as_tensor(s["labels"]).long() for s, _ in samples]),
            torch.stack([known for _, known in samples]),
        )

    def _place(self, cases: Sequence[Case], sides: Sequence[int]) -> tuple[Case, list[int]]:
        """A case, and a voxel for the window's middle: a labelled one within its middle half, or any."""
        rng, labels = self._rng, sorted({label for case in cases for label in case.places})
        if labels and rng.random() < self._training.foreground_share:
            label = int(rng.choice(labels))
            holders = [case for case in cases if label in case.places]
            case = holders[int(rng.integers(len(holders)))]
            at = case.places[label][rng.integers(len(case.places[label]))]
            return case, [int(a + rng.integers(-(s // 4), s // 4 + 1)) for a, s in zip(at, sides, strict=True)]
        case = cases[int(rng.integers(len(cases)))]
        for _ in range(_TRIES):
            at = [int(rng.integers(n + 1)) for n in case.labels.shape]
            if self._empty is None or self._is_something(case, at, self._empty):
                break
        return case, at

    def _is_something(self, case: Case, at: Sequence[int], empty: float) -> bool:
        near = tuple(min(a, n - 1) for a, n in zip(at, case.labels.shape, strict=True))
        return bool((case.image[(slice(None), *near)] > empty).any())

    def _sample(self, case: Case, at: Sequence[int], sides: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        middle = _within(case, at, sides)
        wide = [round(side * _MARGIN) for side in sides]
        starts = [m - w // 2 for m, w in zip(middle, wide, strict=True)]
        image = np.stack([cut(channel, starts, wide, edge=True) for channel in case.image])
        labels, known = cut(case.labels, starts, wide)[None], case.known
        if self._training.mirror and self._rng.random() < 0.5:
            image, labels = image[..., ::-1].copy(), labels[..., ::-1].copy()
            labels, known = swap_sides(labels, known, self._training.swap)
        sample = self._augment({"image": image, "labels": labels})
        if self._empty is not None:
            sample["image"] = _empty_as_before(sample["image"], sample[_PLAIN], self._empty)
        crop = mt.CenterSpatialCropd(KEYS, roi_size=sides)
        return crop({key: sample[key] for key in KEYS}), torch.from_numpy(known)


def _empty_as_before(image: Tensor, plain: Tensor, empty: float) -> Tensor:
    """An image (channels, D, H, W) that is empty exactly where it was before its values were changed."""
    return torch.where(plain <= empty + _BARELY, empty, image.clamp(min=empty + 2 * _BARELY))


def _within(case: Case, at: Sequence[int], sides: Sequence[int]) -> list[int]:
    """A middle from which the window reaches beyond the case no farther than it must."""
    middle = []
    for place, side, n in zip(at, sides, case.labels.shape, strict=True):
        half = side // 2
        middle.append(int(np.clip(place, min(half, n // 2), max(n - (side - half), n // 2))))
    return middle


def cut(voxels: NDArray, starts: Sequence[int], sides: Sequence[int], edge: bool = False) -> NDArray:  # type: ignore[type-arg]
    """A box that may reach beyond the array, where its nearest voxels go on (`edge`), or 0."""
    slices, pads = [], []
    for start, side, n in zip(starts, sides, voxels.shape, strict=True):
        slices.append(slice(min(max(start, 0), n - 1), max(min(start + side, n), 1)))
        pads.append((max(0, -start), max(0, start + side - n)))
    return np.pad(voxels[tuple(slices)], pads, mode="edge" if edge else "constant")


def swap_sides(
    labels: NDArray[np.uint8], known: NDArray[np.bool_], pairs: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Exchange the labels of each pair, and what is known of them."""
    table, order = np.arange(256, dtype=np.uint8), np.arange(len(known))
    for a, b in pairs:
        table[[a, b]] = b, a
        order[[a, b]] = b, a
    return table[labels], known[order]


def _transforms() -> mt.Compose:
    """Rotation, scaling and shift of image and labels; noise, blur and contrast of the image."""
    return mt.Compose(
        [
            mt.RandAffined(
                KEYS,
                prob=0.8,
                rotate_range=(0.26, 0.26, 0.26),
                shear_range=(0.08,) * 6,
                scale_range=(0.15, 0.15, 0.15),
                translate_range=(3, 3, 3),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            mt.CopyItemsd("image", names=_PLAIN),
            mt.RandGaussianNoised("image", prob=0.25, std=0.15),
            mt.RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.3, 0.9), sigma_y=(0.3, 0.9), sigma_z=(0.3, 0.9)),
            mt.RandScaleIntensityd("image", factors=0.2, prob=0.4),
            mt.RandShiftIntensityd("image", offsets=0.2, prob=0.4),
            mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            mt.ToTensord((*KEYS, _PLAIN), track_meta=False),
        ]
    )
