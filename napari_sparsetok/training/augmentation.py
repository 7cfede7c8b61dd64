"""Random changes to training cases that leave their meaning alone. MONAI's transforms do the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai import transforms as mt
from torch import Tensor

from napari_sparsetok.training.dataset import Case

KEYS = ("image", "labels")


def build(mirror: bool) -> mt.Compose:
    """Rotation, scaling and shift of image and labels; noise, blur and contrast of the image.

    `mirror` exchanges left and right, which only suits labels that have no side.
    """
    affine = mt.RandAffined(
        KEYS,
        prob=0.8,
        rotate_range=(0.26, 0.26, 0.26),
        shear_range=(0.08,) * 6,
        scale_range=(0.15, 0.15, 0.15),
        translate_range=(3, 3, 3),
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    grey = [
        mt.RandGaussianNoised("image", prob=0.25, std=0.15),
        mt.RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.3, 0.9), sigma_y=(0.3, 0.9), sigma_z=(0.3, 0.9)),
        mt.RandScaleIntensityd("image", factors=0.2, prob=0.4),
        mt.RandShiftIntensityd("image", offsets=0.2, prob=0.4),
        mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
    ]
    flip = [mt.RandFlipd(KEYS, prob=0.5, spatial_axis=2)] if mirror else []
    return mt.Compose([affine, *flip, *grey, mt.ToTensord(KEYS, track_meta=False)])


def batch(cases: Sequence[Case], window: tuple[int, int, int], augment: Any) -> tuple[Tensor, Tensor]:
    """Augment cases and cut one window of each, anywhere in it.

    Returns
    -------
    images (B, channels, *window) float32 and labels (B, 1, *window) int64.
    """
    crop = mt.Compose(
        [
            mt.SpatialPadd(KEYS, spatial_size=window, mode=("edge", "constant")),
            mt.RandSpatialCropd(KEYS, roi_size=window, random_size=False),
        ]
    )
    crop.set_random_state(seed=int(augment.R.randint(2**31)))  # a new transform would draw from nowhere we know
    samples = [crop(augment({"image": c.image, "labels": c.labels[None]})) for c in cases]
    images = torch.stack([torch.as_tensor(s["image"]).float() for s in samples])
    return images, torch.stack([torch.as_tensor(s["labels"]).long() for s in samples])
