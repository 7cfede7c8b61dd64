"""What a window gets is its part of the whole scan on the model's grid, and little is read and held for it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_sparsetok.engine import intensity, layout
from napari_sparsetok.engine import volume as module
from napari_sparsetok.engine.contract import Hints
from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.engine.layout import lay_out
from napari_sparsetok.engine.resampling import ModelGrid, model_grid, part_to_model, to_model
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.engine.volume import Volume
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.weights import Registry

STANDARDISE = {"name": "standardise", "low": 0.5, "high": 99.5}
WINDOW = {"name": "window", "low": -50, "high": 150}
PATCH = 4

shapes = st.tuples(*[st.integers(9, 61)] * 3)
spacings = st.tuples(*[st.sampled_from([0.31, 0.5, 0.83, 0.9, 1.0, 1.3, 2.6])] * 3)
kinds = st.sampled_from([np.int16, np.uint8, np.float32, np.float64])


class OnDisk:
    """Voxels (z, y, x) that come only in boxes, and remember which were asked for.

    values : makes the voxels of a box (slices).
    """

    ndim = 3

    def __init__(self, shape, dtype, values) -> None:
        self.shape, self.dtype, self.size = shape, np.dtype(dtype), int(np.prod(shape))
        self.boxes: list[tuple[int, int, int]] = []
        self._values = values

    @classmethod
    def of(cls, voxels: np.ndarray) -> OnDisk:
        return cls(voxels.shape, voxels.dtype, lambda box: voxels[box].copy())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key):
        if key is None:
            return [self]
        part = self._values(key[-3:])
        self.boxes.append(part.shape)
        return part

    @property
    def read(self) -> int:
        """Voxels that were read."""
        return sum(int(np.prod(box)) for box in self.boxes)


def to_model_whole(voxels: np.ndarray, grid: ModelGrid) -> np.ndarray:
    """What `to_model` does, written down for a whole array."""
    if not grid.resampled:
        return voxels
    factors = [n / m for n, m in zip(grid.box, grid.inner, strict=True)]
    values = voxels.astype(np.float32)
    if max(factors) > 1.2:
        values = ndimage.gaussian_filter(values, [0.4 * max(0.0, f - 1) for f in factors], mode="nearest")
    values = torch.from_numpy(np.ascontiguousarray(values))
    for axis, (n, m) in enumerate(zip(grid.box, grid.inner, strict=True)):
        at = ((np.arange(m) + 0.5) * n / m - 0.5).clip(0, n - 1)
        low = torch.from_numpy(np.floor(at).astype(np.int64))
        share = torch.from_numpy((at - low.numpy()).astype(np.float32)).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        high = (low + 1).clamp_max(n - 1)
        values = values.index_select(axis, low).lerp(values.index_select(axis, high), share)
    return values.numpy()


def whole(channels, region: Region, grid: ModelGrid, rule) -> np.ndarray:
    """All of a region at once, as the network would take it: (channels, D, H, W)."""
    pads = [(0, p - n) for p, n in zip(grid.padded, grid.inner, strict=True)]
    mapped = [apply_rule(rule, to_model_whole(np.asarray(c[region.slices]), grid)) for c in channels]
    return np.stack([np.pad(c, pads, mode="edge") for c in mapped])


def any_box(data, shape) -> Region:
    """Any box of voxels in an array."""
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    return Region(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


def noise(shape, dtype=np.float32, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 40, shape).clip(0, 255).astype(dtype)


def grid_of(shape, spacing) -> ModelGrid:
    return model_grid(shape, spacing, (1.0, 1.0, 1.0), 1)


# The same as all at once, to the last bit


@given(shape=shapes, spacing=spacings, dtype=kinds, data=st.data())
def test_a_part_is_resampled_as_in_the_whole(shape, spacing, dtype, data):
    voxels, grid = noise(shape, dtype), grid_of(shape, spacing)
    there = to_model_whole(voxels, grid)
    assert np.array_equal(to_model(voxels, grid), there)
    part = any_box(data, grid.inner)
    assert np.array_equal(part_to_model(lambda box: voxels[box.slices], grid, part), there[part.slices])


@given(
    shape=shapes,
    spacing=spacings,
    dtype=kinds,
    rule=st.sampled_from([STANDARDISE, WINDOW]),
    on_disk=st.booleans(),
    brick=st.sampled_from([5, 16, 32]),
    kept=st.sampled_from([0, 20_000, module.KEPT]),
    sample=st.sampled_from([700, 2_000_000]),
    data=st.data(),
)
def test_any_box_is_read_as_of_the_whole(shape, spacing, dtype, rule, on_disk, brick, kept, sample, data):
    channels = [noise(shape, dtype, seed) for seed in range(2)]
    start = tuple(data.draw(st.integers(0, n - 6)) for n in shape)
    region = Region(start, tuple(data.draw(st.integers(a + 6, n)) for a, n in zip(start, shape, strict=True)))
    grid = grid_of(region.shape, spacing)
    padded = tuple(-(-m // PATCH) * PATCH for m in grid.inner)
    grid = replace(grid, padded=padded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intensity, "_SAMPLE", sample)
        expected = whole(channels, region, grid, rule)
        patch.setattr(module, "BRICK", brick)
        patch.setattr(module, "KEPT", kept)
        stored = [OnDisk.of(c) for c in channels] if on_disk else np.stack(channels)
        volume = Volume(stored, region, grid, rule)
        for _ in range(3):
            box = any_box(data, padded)
            assert np.array_equal(volume.read(box).numpy(), expected[(slice(None), *box.slices)])
            assert volume.nbytes <= kept
        layers = list(volume.layers(7))
    assert np.array_equal(np.concatenate([layer.numpy() for _, layer in layers], axis=1), expected)
    assert [z for z, _ in layers] == list(range(0, padded[0], 7))


@pytest.mark.parametrize("shape", [(8, 10, 6), (5, 10, 4), (5, 7, 3)])
def test_what_is_laid_on_whole_patches_goes_on_as_its_edge(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    padded = np.full((8, 12, 8), np.nan, np.float32)
    module._lay(values, padded)
    pads = [(0, p - n) for p, n in zip(padded.shape, shape, strict=True)]
    assert np.array_equal(padded, np.pad(values, pads, mode="edge"))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.5, 0.7)])
def test_a_scan_on_disk_is_segmented_like_one_in_memory(tmp_path, spacing):
    tiny.write_model(tmp_path)
    voxels = noise((44, 50, 40), np.int16)
    place = Geometry.shown(voxels.shape, spacing)
    masks = []
    for stored in (voxels, OnDisk.of(voxels)):
        scan = Scan(stored, place, identity="made")  # type: ignore[arg-type]
        segmenter = SCDSegmenter(Registry([tmp_path]))
        masks.append(
            [segmenter.segment(scan, Settings("tiny", 0.4, selection=rule)) for rule in ("learned", "entropy")]
        )
    for here, there in zip(*masks, strict=True):
        assert len(np.unique(here.mask)) > 1
        assert np.array_equal(here.mask, there.mask)
        assert np.array_equal(here.tokens.importance, there.tokens.importance, equal_nan=True)


# What is wrong is said once, before anything is computed, and as of the whole


def refusal(make) -> str:
    with pytest.raises(ScanError) as refused:
        make()
    return str(refused.value)


@pytest.mark.parametrize("rule", [STANDARDISE, WINDOW])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.5, 0.7), (2.0, 1.1, 1.1)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_counted_as_in_the_whole(rule, spacing, bad):
    voxels = noise((50, 48, 44))
    voxels[[0, 20, 49], [0, 13, 47], [3, 40, 43]] = bad
    region = Region((0, 0, 0), (50, 47, 44))  # without the last of them
    grid = grid_of(region.shape, spacing)
    said = refusal(lambda: Volume([OnDisk.of(voxels)], region, grid, rule))
    assert said == refusal(lambda: whole([voxels], region, grid, rule))
    assert "not numbers" in said
    replaced = np.where(np.isfinite(voxels), voxels, np.float32(7))
    volume = Volume([OnDisk.of(voxels)], region, grid, rule, replacement=7.0)
    assert np.array_equal(volume.read(Region.whole(grid.padded)).numpy(), whole([replaced], region, grid, rule))


@pytest.mark.parametrize("rule", [STANDARDISE, WINDOW])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.5, 0.7)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_one_value_everywhere_is_refused_and_one_other_at_the_end_is_not(rule, spacing, dtype):
    voxels = np.full((70, 40, 40), 20, dtype)
    region, grid = Region.whole(voxels.shape), grid_of(voxels.shape, spacing)
    said = refusal(lambda: Volume([OnDisk.of(voxels)], region, grid, rule))
    assert said == refusal(lambda: whole([voxels], region, grid, rule))
    assert "the same value" in said
    voxels[-3:, -3:, -3:] = 200
    if rule is WINDOW:
        volume = Volume([OnDisk.of(voxels)], region, grid, rule)
        assert np.array_equal(volume.read(Region.whole(grid.padded)).numpy(), whole([voxels], region, grid, rule))


@pytest.mark.parametrize("rule", [STANDARDISE, WINDOW])
def test_values_between_which_nothing_can_be_interpolated_are_refused_as_in_the_whole(rule):
    voxels = noise((30, 30, 30))
    voxels[:, :, 9:11] = 3e38, -3e38
    region, grid = Region.whole(voxels.shape), grid_of(voxels.shape, (0.95, 0.95, 0.95))
    said = refusal(lambda: Volume([OnDisk.of(voxels)], region, grid, rule))
    assert said == refusal(lambda: whole([voxels], region, grid, rule))


@pytest.mark.parametrize("largest", [200.0, float(np.finfo(np.float16).max)])
def test_half_precision_is_read_to_its_largest_value_and_infinity_is_refused(largest):
    voxels = noise((20, 20, 20), np.float16)
    voxels[9, 9, 9] = largest
    region, grid = Region.whole(voxels.shape), grid_of(voxels.shape, (0.7, 0.7, 0.7))
    volume = Volume([voxels], region, grid, WINDOW)
    assert np.array_equal(volume.read(Region.whole(grid.padded)).numpy(), whole([voxels], region, grid, WINDOW))
    voxels[9, 9, 9] = np.inf
    assert "not numbers" in refusal(lambda: Volume([voxels], region, grid, WINDOW))


# Little is read, and little held

HEAD = np.random.default_rng(0).integers(-50, 400, (200, 200, 200), dtype=np.int16)
CORNER = (250, 150, 170)  # where it lies in the scan


def head_in_air(box) -> np.ndarray:
    """A part of a scan of 600 × 512 × 512 voxels."""
    part = np.full([s.stop - s.start for s in box], -1000, np.int16)
    there, here = [], []
    for s, c, n in zip(box, CORNER, HEAD.shape, strict=True):
        start, stop = max(s.start, c), max(max(s.start, c), min(s.stop, c + n))
        there.append(slice(start - s.start, stop - s.start))
        here.append(slice(start - c, stop - c))
    part[tuple(there)] = HEAD[tuple(here)]
    return part


def large_scan() -> tuple[Scan, OnDisk]:
    shape = (600, 512, 512)
    stored = OnDisk(shape, np.int16, head_in_air)
    scan = Scan(stored, Geometry.shown(shape, (1.0, 1.0, 1.0)), identity="made")  # type: ignore[arg-type]
    return scan, stored


def test_of_a_large_scan_windows_read_the_body_about_once_and_hold_little():
    scan, stored = large_scan()
    card = Registry()["headneck-ct"]
    tracemalloc.start()
    try:
        ready = lay_out(scan, card, Region.whole(scan.shape), None)
        looked, stored.boxes = stored.read, []
        for index in ready.order(Region.whole(scan.shape), Hints(), card, shown=False):
            image = ready.volume.read(ready.plan.regions[index])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.shape == (1, *card.window)
    assert max(int(np.prod(box)) for box in stored.boxes) < 0.02 * scan.voxels.size
    windows = ready.plan.regions
    body = np.prod(np.max([r.stop for r in windows], 0) - np.min([r.start for r in windows], 0))
    assert len(windows) > 5
    assert stored.read < 3.5 * body * np.prod(ready.grid.spacing)  # bricks reach beyond windows, and see neighbours
    assert looked < 1.1 * scan.voxels.size  # for the body, in slabs
    assert peak < 0.1 * 4 * scan.voxels.size


def test_of_whole_numbers_no_more_is_looked_at_than_tells_them_apart():
    stored = OnDisk.of(noise((90, 80, 80), np.int16))
    Volume([stored], Region.whole(stored.shape), grid_of(stored.shape, (0.5, 0.5, 0.5)), WINDOW)
    assert len(stored.boxes) == 1


def test_that_all_are_numbers_is_seen_on_the_scan_s_own_grid():
    stored = OnDisk.of(noise((90, 80, 80)))
    Volume([stored], Region.whole(stored.shape), grid_of(stored.shape, (0.5, 0.5, 0.5)), WINDOW)
    assert stored.read < 2 * stored.size
    assert max(box[0] for box in stored.boxes[:-1]) <= 16


def test_what_is_used_longest_ago_goes_first(monkeypatch):
    stored = OnDisk.of(noise((64, 64, 64)))
    grid = grid_of(stored.shape, (1.05, 1.05, 1.05))
    volume = Volume([stored], Region.whole(stored.shape), grid, WINDOW)
    first, second, third = (Region((0, 0, x), (9, 9, x + 3)) for x in (0, 32, 64))
    monkeypatch.setattr(module, "KEPT", 2 * 4 * 32**3)

    def reads(box) -> int:
        before = len(stored.boxes)
        volume.read(box)
        return len(stored.boxes) - before

    volume._kept = module._Kept()
    assert [reads(box) for box in (first, second, first, third, first, second)] == [1, 1, 0, 1, 0, 1]


def test_memory_that_is_needed_grows_with_the_scan_by_its_masks_alone():
    card = Registry()["headneck-ct"]

    def needed(depth: int) -> int:
        scan = Scan(OnDisk((depth, 512, 512), np.int16, None), Geometry.shown((depth, 512, 512)))  # type: ignore[arg-type]
        return layout._needed_bytes(model_grid(scan.shape, (2.5, 1.0, 1.0), card.spacing, card.patch), card, scan)

    assert needed(2400) - needed(1200) == 3 * 1200 * 512 * 512
