"""Windows add up alike in any order, and nothing is held longer than it is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparsetok.engine.blend import Blend, _highest
from napari_sparsetok.engine.resampling import model_grid, to_scan
from napari_sparsetok.engine.window import plan_windows
from napari_sparsetok.scan import Region

CLASSES = 3


def make(box, spacing=(1.0, 1.0, 1.0), window=(8, 8, 8), overlap=0.5):
    grid = model_grid(box, spacing, (1.0, 1.0, 1.0), 4)
    plan = plan_windows(grid.padded, window, 4, overlap)
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(CLASSES, *plan.window, generator=generator) * 10 for _ in plan.regions]
    return grid, plan, logits


def blended(grid, plan, logits, order, look_every=0):
    """The labels, those that were settled on the way and the rest, and the most bytes that were held."""
    blend, mask, most = Blend(CLASSES, grid, plan), np.full(grid.box, 9, np.uint8), 0
    for count, index in enumerate(order, start=1):
        blend.add(index, logits[index])
        most = max(most, blend.nbytes)
        for box, labels, covered in blend.settled():
            part = mask[box.slices]
            part[covered] = labels[covered]
        if look_every and count % look_every == 0:
            list(blend.unsettled(Region.whole(grid.box)))
    for box, labels, covered in blend.unsettled(Region.whole(grid.box)):
        part = mask[box.slices]
        part[covered] = labels[covered]
    return mask, most, blend


def plainly(grid, plan, logits):
    """As one would write it down: all in one sum of floating-point numbers."""
    sums, weight = torch.zeros(CLASSES, *grid.padded).double(), torch.zeros(grid.padded).double()
    for region, values in zip(plan.regions, logits, strict=True):
        sums[(slice(None), *region.slices)] += values * torch.from_numpy(plan.weight)
        weight[region.slices] += torch.from_numpy(plan.weight)
    return to_scan(sums / weight, Region.whole(grid.box), grid).argmax(0).numpy()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 1.0), (0.4, 1.0, 1.3)])
def test_it_is_the_plain_weighted_mean(spacing):
    grid, plan, logits = make((20, 23, 14), spacing)
    mask, _, _ = blended(grid, plan, logits, range(len(logits)))
    assert (mask == plainly(grid, plan, logits)).mean() > 0.9995


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.sampled_from([(1.0, 1.0, 1.0), (1.6, 1.0, 0.8)]), st.integers(0, 3))
def test_the_order_changes_nothing_at_all(random, spacing, look_every):
    grid, plan, logits = make((20, 16, 12), spacing)
    order = list(range(len(logits)))
    expected, _, _ = blended(grid, plan, logits, order)
    random.shuffle(order)
    assert np.array_equal(blended(grid, plan, logits, order, look_every)[0], expected)


def test_slabs_are_let_go_once_no_window_is_to_come():
    grid, plan, logits = make((160, 16, 16), spacing=(0.8, 1.0, 1.0))
    rows = sorted(range(len(logits)), key=lambda i: plan.regions[i].start[0])
    _, most, blend = blended(grid, plan, logits, rows)
    assert blend.nbytes == 0
    whole = (CLASSES + 2) * 4 * int(np.prod(grid.padded))
    assert most < whole / 6


def test_from_one_end_to_the_other_no_more_is_open_than_one_row_of_windows():
    grid, plan, logits = make((64, 16, 16), window=(16, 8, 8), overlap=0.25)
    _, most, _ = blended(grid, plan, logits, plan.by_distance((0, 0, 0), in_rows=True))
    assert most <= (CLASSES + 2) * 4 * 16 * 16 * 16


def test_logits_may_lie_in_memory_with_the_classes_last():
    grid, plan, logits = make((20, 16, 12))
    last = [values.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2) for values in logits]
    assert np.array_equal(
        blended(grid, plan, last, range(len(last)))[0], blended(grid, plan, logits, range(len(last)))[0]
    )


def test_where_no_window_was_added_nothing_is_said():
    grid, plan, logits = make((32, 8, 8), overlap=0.0)
    mask, _, _ = blended(grid, plan, logits, [2])
    assert (mask[16:24] < CLASSES).all()
    assert (mask[:16] == 9).all()
    assert (mask[24:] == 9).all()


def test_large_logits_do_not_overflow():
    grid, plan, logits = make((16, 16, 16), overlap=0.75)
    huge = [values * 1e6 for values in logits]
    for values in huge:
        values[1] = 1e9
    mask, _, _ = blended(grid, plan, huge, range(len(huge)))
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert (mask == 1).mean() > 0.8


@given(st.integers(1, 255), st.integers(0, 2**16))
def test_of_equal_classes_the_first_is_the_label(classes: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-2, 3, (classes, 3, 4), dtype=np.int32)
    np.testing.assert_array_equal(_highest(torch.from_numpy(values)).numpy(), values.argmax(axis=0))
