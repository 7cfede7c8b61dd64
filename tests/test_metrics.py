"""How masks agree, against values by hand and against MONAI's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.metrics import Yardstick, _surface, dice, hausdorff95

LABELS = LabelTable.of(["head", "tail"])


def blob(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(14, 16, 12))
    shape = ndimage.gaussian_filter(noise, 2)
    return shape > np.quantile(shape, 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_hd95_is_that_of_monai(seed: int) -> None:
    a, b = blob(seed), blob(seed + 10)
    spacing = (2.0, 1.0, 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
        theirs = compute_hausdorff_distance(
            torch.from_numpy(a)[None, None],
            torch.from_numpy(b)[None, None],
            include_background=True,
            percentile=95,
            spacing=list(spacing),
        )
    assert hausdorff95(a, b, spacing) == pytest.approx(float(theirs), rel=0.02)


@pytest.mark.parametrize("noise", [0, 0.002, 0.01, 0.2])
def test_hd95_is_that_of_a_distance_transform(noise: float) -> None:
    """Also where most of one surface lies on the other."""
    spacing = (2.0, 1.0, 0.5)
    for seed in range(6):
        a = blob(seed)
        b = a ^ (np.random.default_rng(seed).random(a.shape) < noise)
        edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
        ways = [
            np.percentile(ndimage.distance_transform_edt(~theirs, sampling=spacing)[mine], 95)
            for mine, theirs in (edges, edges[::-1])
        ]
        assert hausdorff95(a, b, spacing) == pytest.approx(max(ways), abs=1e-9)


def test_hd95_of_single_voxels_is_the_way_between_them() -> None:
    a, b = np.zeros((2, 5, 6, 7), dtype=bool)
    a[1, 2, 3] = b[1, 4, 3] = True
    assert hausdorff95(a, b, (1, 2.5, 1)) == 5.0


@pytest.mark.parametrize("noise", [0, 0.001, 0.05, 1])
def test_one_yardstick_measures_as_masks_are_measured_one_by_one(noise: float) -> None:
    """Though it looks only at where they differ: labels that come, go, stay and never were."""
    rng, labels, spacing = np.random.default_rng(1), LabelTable.of(["a", "b", "c", "d"]), (2.0, 1.0, 0.5)
    other = (blob(0) + 2 * (blob(1) & ~blob(0))).astype(np.uint8)
    yardstick = Yardstick(other, spacing, labels)
    for gone, come in ((0, 0), (1, 3), (2, 3)):
        mask = np.where(other == gone, come, other)
        noisy = rng.random(mask.shape) < noise
        mask[noisy] = rng.integers(0, 4, noisy.sum())
        for row in yardstick.compare(mask):
            ours, theirs = mask == row.label, other == row.label
            neither = not ours.any() and not theirs.any()
            assert row.dice == (1 if neither else dice(ours, theirs))
            assert row.hd95 == (0 if neither else pytest.approx(hausdorff95(ours, theirs, spacing), nan_ok=True))
            assert (row.ml, row.other_ml) == pytest.approx((ours.sum() / 1000, theirs.sum() / 1000))


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_a_surface_is_what_erosion_takes_away(share: float) -> None:
    mask = np.random.default_rng(0).random((7, 9, 6)) < share
    for part in (mask, mask[:1], mask[:, :2], mask[2:5, 2:5, 2:5]):
        assert np.array_equal(_surface(part), part & ~ndimage.binary_erosion(part))


def test_labels_are_compared_wherever_they_lie() -> None:
    """In boxes of their own, which must not cut a surface where there is none."""
    a, b = np.zeros((9, 8, 7), np.uint8), np.zeros((9, 8, 7), np.uint8)
    a[2:5, 1:4, 2:6], b[3:6, 1:4, 2:7] = 1, 1
    a[8:, 7:, :] = 2
    head, tail = Yardstick(b, (2.0, 1.0, 1.0), LABELS).compare(a)
    assert head.hd95 == hausdorff95(a == 1, b == 1, (2.0, 1.0, 1.0))
    assert head.dice == dice(a == 1, b == 1)
    assert (head.ml, head.other_ml) == pytest.approx((0.072, 0.09))
    assert (tail.dice, np.isnan(tail.hd95), tail.other_ml) == (0.0, True, 0.0)


def test_hd95_by_hand() -> None:
    a, b = np.zeros((1, 1, 9), bool), np.zeros((1, 1, 9), bool)
    a[0, 0, 1], b[0, 0, 4] = True, True
    assert hausdorff95(a, b, (1, 1, 0.5)) == 1.5
    assert hausdorff95(a, a, (1, 1, 1)) == 0
    assert np.isnan(hausdorff95(a, np.zeros_like(a), (1, 1, 1)))


def test_two_masks_label_by_label() -> None:
    a, b = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    a[:2], b[:1] = 1, 1
    head, tail = Yardstick(b, (1.0, 2.0, 5.0), LABELS).compare(a)
    assert head.dice == pytest.approx(2 * 16 / 48) == dice(a == 1, b == 1)
    assert (head.ml, head.other_ml) == (0.32, 0.16)
    assert (head.name, head.hd95) == ("head", 1.0)
    assert (tail.dice, tail.hd95, tail.ml, tail.other_ml) == (1.0, 0.0, 0, 0)  # neither has any: they agree
    a[3] = 2
    assert Yardstick(b, (1.0, 1.0, 1.0), LABELS).compare(a)[1].dice == 0
    with pytest.raises(ValueError, match="one grid"):
        Yardstick(b[:2], (1.0, 1.0, 1.0), LABELS).compare(a)
