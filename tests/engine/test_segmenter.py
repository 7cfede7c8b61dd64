"""The engine against plain runs of the network, and what it says when something is wrong."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine import layout
from napari_sparsetok.engine import segmenter as engine
from napari_sparsetok.engine.canvas import Canvas
from napari_sparsetok.engine.contract import Hints, Stopped, Watch
from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.engine.network import Network
from napari_sparsetok.engine.segmenter import SCDSegmenter, load_model
from napari_sparsetok.model import SCD
from napari_sparsetok.model.presets import PRESETS
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import first_stage_preview, tokens_left
from napari_sparsetok.weights import CardError, Registry

SETTINGS = Settings(model="tiny", keep_ratio=0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.write_model(folder)
    tiny.write_model(folder, "pair", tiny.with_channels(2))
    return folder


@pytest.fixture
def segmenter(folder):
    return SCDSegmenter(Registry([folder]))


def make_scan(shape=(16, 24, 16), spacing=(1.0, 1.0, 1.0), seed=0) -> Scan:
    voxels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    return Scan(voxels, Geometry.shown(shape, spacing, (5.0, -7.0, 11.0)), name="noise")


def plain_mask(folder, scan: Scan, keep_ratio: float) -> np.ndarray:
    card = Registry([folder])["tiny"]
    image = torch.from_numpy(apply_rule(card.intensity, scan.voxels))[None, None]
    with torch.inference_mode():
        logits, _ = load_model(card)(image, keep_ratio)
    return logits[0].argmax(0).numpy()


@pytest.mark.parametrize(
    ("dtype", "same"), [(torch.float32, 0.999), pytest.param(torch.bfloat16, 0.99, marks=tiny.needs_bfloat16)]
)
@pytest.mark.parametrize("keep_ratio", [1.0, 0.5, 0.1])
def test_one_window_is_a_plain_run_of_the_network_cached_or_not(
    segmenter, folder, monkeypatch, keep_ratio, dtype, same
):
    monkeypatch.setattr(devices, "_cpu_dense_dtype", lambda: dtype)
    scan = make_scan()
    expected = plain_mask(folder, scan, keep_ratio)
    assert len(np.unique(expected)) > 1
    first = segmenter.segment(scan, Settings("tiny", keep_ratio))
    again = segmenter.segment(scan, Settings("tiny", keep_ratio))
    assert (first.timing.cached, again.timing.cached) == (0, 1)
    assert (first.mask == expected).mean() > same
    assert np.array_equal(first.mask, again.mask)
    assert np.array_equal(first.tokens.stage, again.tokens.stage)
    assert first.complete


def test_without_room_for_a_cache_the_result_is_the_same(segmenter, folder):
    scan = make_scan((24, 32, 20))
    without = SCDSegmenter(Registry([folder]), cache_bytes=0)
    for _ in range(2):
        a, b = segmenter.segment(scan, SETTINGS), without.segment(scan, SETTINGS)
        assert b.timing.cached == 0
        assert np.array_equal(a.mask, b.mask)
        assert np.array_equal(a.tokens.importance, b.tokens.importance, equal_nan=True)


def test_a_region_is_the_crop_put_back(segmenter):
    scan = make_scan((30, 40, 36))
    region = Region((5, 9, 11), (21, 33, 27))
    whole = segmenter.segment(scan, SETTINGS, region=region)
    crop = Scan(scan.voxels[region.slices], Geometry.shown(region.shape))
    alone = segmenter.segment(crop, SETTINGS)
    assert np.array_equal(whole.mask[region.slices], alone.mask)
    outside = whole.mask.copy()
    outside[region.slices] = 0
    assert not outside.any()
    assert whole.region == region


def test_focus_and_base_change_the_order_but_not_the_end(segmenter):
    scan = make_scan((40, 40, 40))
    plain = segmenter.segment(scan, SETTINGS)
    other = segmenter.segment(scan, Settings("tiny", 0.9), hints=Hints(focus=(39, 39, 39)))
    again = segmenter.segment(scan, SETTINGS, hints=Hints(focus=(0, 39, 0), base=other))
    assert np.array_equal(plain.mask, again.mask)
    assert np.array_equal(plain.tokens.stage, again.tokens.stage)


def test_focus_only_runs_the_windows_there_and_keeps_the_base_elsewhere(segmenter):
    scan = make_scan((40, 40, 40))
    base = segmenter.segment(scan, Settings("tiny", 1.0))
    part = segmenter.segment(scan, Settings("tiny", 0.05), hints=Hints(focus=(0, 0, 0), focus_only=True, base=base))
    assert not part.complete
    assert part.timing.windows < base.timing.windows
    assert part.timing.cached == 1
    assert part.builds_on == base.serial
    outside = np.ones(scan.shape, dtype=bool)
    outside[part.changed.slices] = False
    assert outside.any()
    assert np.array_equal(part.mask[outside], base.mask[outside])
    assert not np.array_equal(part.mask, base.mask)


def test_on_the_way_the_base_stays_where_no_window_was_yet(segmenter, monkeypatch):
    """Also within the box around the windows that were, which need not fill it."""
    monkeypatch.setattr(engine, "_is_time_to_show", lambda progress: progress.done % 3 == 0)
    scan = make_scan((40, 40, 40))
    found = segmenter.segment(scan, SETTINGS)
    base = replace(found, mask=np.where(found.mask == 1, 2, 1).astype(np.uint8))  # nowhere background, nowhere right
    parts = []
    segmenter.segment(scan, SETTINGS, hints=Hints(focus=(0, 0, 0), base=base), watch=Watch(on_partial=parts.append))
    assert len(parts) > 2
    for part in parts:
        # Where windows overlap, one alone may say something else than all of them.
        assert ((part.mask == base.mask) | (part.mask == found.mask)).mean() > 0.98
        assert (part.mask == base.mask).any()


def test_scores_of_two_selections_are_never_in_one_map(segmenter):
    scan = make_scan((40, 40, 40))
    base = segmenter.segment(scan, SETTINGS)
    by_norm = replace(SETTINGS, selection="norm")
    part = segmenter.segment(scan, by_norm, hints=Hints(focus=(0, 0, 0), focus_only=True, base=base))
    whole = segmenter.segment(scan, by_norm)
    seen = part.tokens.stage > 0
    assert 0 < seen.sum() < seen.size
    assert np.allclose(part.tokens.importance[0][seen], whole.tokens.importance[0][seen])
    assert np.isnan(part.tokens.importance[:, ~seen]).all()
    again = segmenter.segment(scan, by_norm, hints=Hints(focus=(0, 0, 0), focus_only=True, base=whole))
    assert (again.tokens.stage > 0).all()


def test_a_look_while_the_machine_is_busy_is_no_result_and_leaves_none_behind(segmenter, monkeypatch):
    scan = make_scan()  # one window
    plain = segmenter.segment(scan, SETTINGS)
    threads = []
    real = engine.finish

    def finish(*args):
        threads.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(engine, "finish", finish)
    monkeypatch.setattr(devices.Neighbours, "cores", 1e9)
    with devices.threads(2):
        look = segmenter.segment(scan, SETTINGS, hints=Hints(focus_only=True, base=plain))
        assert not look.complete
        whole = segmenter.segment(scan, SETTINGS, hints=Hints(base=look))
    assert whole.complete
    assert threads == [1, 2]
    assert np.array_equal(whole.mask, plain.mask)


def test_a_large_volume_is_run_row_by_row_to_the_same_end(segmenter, monkeypatch):
    scan = make_scan((64, 40, 40))
    plain = segmenter.segment(scan, SETTINGS)
    monkeypatch.setattr(layout, "_sums_bytes", lambda grid, card: 2**60)
    monkeypatch.setattr(layout, "_check_memory", lambda grid, card, scan: None)
    monkeypatch.setattr(engine, "SHOW_EVERY", 0.0)
    partial = []
    rows = segmenter.segment(scan, SETTINGS, hints=Hints(focus=(60, 0, 0)), watch=Watch(on_partial=partial.append))
    assert np.array_equal(rows.mask, plain.mask)
    shown = np.zeros_like(plain.mask)
    for prediction in [*partial, rows]:
        shown[prediction.changed.slices] = prediction.mask[prediction.changed.slices]
        assert np.array_equal(shown, prediction.mask)


def test_if_nobody_looks_windows_run_from_one_end_to_the_other(segmenter, folder, monkeypatch):
    scan, orders = make_scan((64, 40, 40)), []
    real = layout.Layout.order
    monkeypatch.setattr(layout.Layout, "order", lambda *args, **more: orders.append(real(*args, **more)) or orders[-1])
    quiet = segmenter.segment(scan, SETTINGS)
    shown = segmenter.segment(scan, SETTINGS, watch=Watch(on_partial=lambda prediction: None))
    starts = [segmenter._layout.plan.regions[index].start[0] for index in orders[0]]
    assert starts == sorted(starts)
    assert orders[1] != orders[0]
    assert np.array_equal(quiet.mask, shown.mask)


@tiny.needs_bfloat16
def test_which_tokens_are_kept_and_what_they_score_does_not_depend_on_bfloat16(folder, monkeypatch):
    def strong(card):  # scores of random weights are all but equal, and hide what rounding does to them
        model = load_model(card)
        for block in (*model.blocks, *model.scores):
            for weight in block.parameters():
                weight.mul_(10)
        return model

    monkeypatch.setattr(engine, "load_model", strong)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(devices, "_cpu_dense_dtype", lambda dtype=dtype: dtype)
        found.append(SCDSegmenter(Registry([folder])).segment(make_scan(), Settings("tiny", 0.4)).tokens)
    assert np.nanstd(found[0].importance[1]) > 0.01
    assert np.array_equal(found[0].stage, found[1].stage)
    assert np.array_equal(found[0].importance, found[1].importance, equal_nan=True)


@pytest.mark.parametrize("descending", [False, True])
def test_a_window_is_left_between_its_blocks_and_what_was_begun_harms_nothing(segmenter, folder, descending):
    scan, other = make_scan(), Settings(model="tiny", keep_ratio=0.8)
    asked: list[int] = []
    segmenter.segment(scan, SETTINGS)  # with the prefix in the cache all that is asked comes after it
    segmenter.segment(scan, other, watch=Watch(should_stop=lambda: bool(asked.append(0))))
    blocks = segmenter._network.model.config
    assert len(asked) > blocks.depth - blocks.prune_after[0]
    expected = SCDSegmenter(Registry([folder])).segment(scan, other)
    for moment in range(len(asked)):
        calls = iter(range(len(asked)))
        stop = Watch(should_stop=lambda m=moment, c=calls: next(c) == m)
        with pytest.raises(Stopped):
            segmenter.segment(scan, other, hints=Hints(descending=descending), watch=stop)
        again = segmenter.segment(scan, other, hints=Hints(descending=descending))
        np.testing.assert_array_equal(again.mask, expected.mask)
    assert all(not block._forward_pre_hooks for block in segmenter._network.model.blocks)


def test_getting_ready_is_left_between_blocks_too(segmenter):
    asked: list[int] = []
    assert len(list(segmenter.warm_up(SETTINGS, lambda: bool(asked.append(0))))) == 3
    for moment in range(len(asked)):
        calls = iter(range(len(asked)))
        assert len(list(segmenter.warm_up(SETTINGS, lambda m=moment, c=calls: next(c) == m))) < 3


def test_a_base_of_another_scan_is_not_mixed_in(segmenter):
    base = segmenter.segment(make_scan((40, 40, 40), seed=1), SETTINGS)
    part = segmenter.segment(make_scan((40, 40, 40), seed=2), SETTINGS, hints=Hints((0, 0, 0), True, base))
    outside = part.mask.copy()
    outside[part.changed.slices] = 0
    assert not outside.any()
    assert part.builds_on == 0


def test_partial_results_lead_to_the_last_one(segmenter, monkeypatch):
    monkeypatch.setattr(engine, "SHOW_EVERY", 0.0)
    partial, progress = [], []
    watch = Watch(on_partial=partial.append, on_progress=lambda done, total: progress.append((done, total)))
    final = segmenter.segment(make_scan((40, 40, 24)), SETTINGS, watch=watch)
    total = final.timing.windows
    assert progress == [(k, total) for k in range(total + 1)]
    assert len(partial) == total - 1
    shown = np.zeros_like(final.mask)
    last = 0
    for prediction in [*partial, final]:
        assert prediction.builds_on == last
        last = prediction.serial
        shown[prediction.changed.slices] = prediction.mask[prediction.changed.slices]
        assert np.array_equal(shown, prediction.mask)
    assert [p.complete for p in [*partial, final]] == [False] * (total - 1) + [True]


@pytest.mark.parametrize("spacing", [0.37, 0.5, 0.8, 1.0, 1.5])
def test_what_is_drawn_by_changed_boxes_is_the_mask_at_any_spacing(segmenter, monkeypatch, spacing):
    monkeypatch.setattr(engine, "SHOW_EVERY", 0.0)
    scan, shown = make_scan(tuple(round(side / max(1.0, spacing)) for side in (50, 60, 40)), spacing=(spacing,) * 3), []
    last = segmenter.segment(scan, SETTINGS, watch=Watch(on_partial=shown.append))
    drawn = np.zeros(scan.shape, np.uint8)
    for now in [*shown, last]:
        drawn[now.changed.slices] = now.mask[now.changed.slices]
        assert np.array_equal(drawn, now.mask)


def test_the_time_to_the_first_part_is_that_to_its_mask(segmenter, monkeypatch):
    real = Canvas.mask

    def slow(canvas):
        time.sleep(0.3)
        return real(canvas)

    monkeypatch.setattr(Canvas, "mask", slow)
    shown = []
    last = segmenter.segment(make_scan((40, 24, 16)), SETTINGS, watch=Watch(on_partial=shown.append))
    assert shown[0].timing.first >= 0.3
    assert last.timing.first == shown[0].timing.first


def test_stopping_ends_between_windows(segmenter):
    seen = []
    watch = Watch(should_stop=lambda: len(seen) == 3, on_progress=lambda done, total: seen.append(done))
    with pytest.raises(Stopped):
        segmenter.segment(make_scan((40, 40, 40)), SETTINGS, watch=watch)
    assert seen == [0, 1, 2]


def test_tokens_lie_where_the_scan_lies(segmenter):
    scan = make_scan((20, 26, 18), spacing=(2.0, 1.0, 0.5))
    tokens = segmenter.segment(scan, SETTINGS).tokens
    first = np.asarray(scan.geometry.origin) - 0.5 * np.asarray(scan.geometry.spacing)
    assert np.allclose(np.asarray(tokens.origin) - 0.5 * np.asarray(tokens.spacing), first)
    end = first + np.asarray(scan.shape) * scan.geometry.spacing
    reach = first + np.asarray(tokens.stage.shape) * tokens.spacing
    assert (reach >= end - 1e-6).all()
    assert (reach < end + np.asarray(tokens.spacing)).all()


def test_the_token_map_counts_what_was_kept(segmenter):
    prediction = segmenter.segment(make_scan(), Settings("tiny", 0.3))
    tokens = prediction.tokens
    left = tokens_left(96, 0.3, 2)
    assert tokens.left == left
    assert [(tokens.stage == k).sum() for k in (1, 2, 3)] == [96 - left[1], left[1] - left[2], left[2]]
    assert np.array_equal(np.isnan(tokens.importance[1]), tokens.stage == 1)
    assert np.nanmin(tokens.importance) >= 0
    assert np.nanmax(tokens.importance) <= 1
    assert np.array_equal(np.sort(tokens.rank, axis=None), np.arange(96))


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.77, 1.0])
def test_the_preview_is_what_the_engine_would_do_at_stage_one(segmenter, ratio):
    scan = make_scan((40, 40, 24))
    tokens = segmenter.segment(scan, SETTINGS).tokens
    preview = first_stage_preview(tokens, ratio)
    truth = segmenter.segment(scan, Settings("tiny", ratio)).tokens
    assert np.array_equal(preview.stage == 1, truth.stage == 1)
    assert preview.left == truth.left


def test_several_channels(segmenter):
    a, b = make_scan(seed=1), make_scan(seed=2)
    both = Scan(np.stack([a.voxels, b.voxels]), a.geometry, leading="channel")
    assert segmenter.segment(both, Settings("pair")).mask.shape == a.shape
    with pytest.raises(ScanError, match="needs 2 volume"):
        segmenter.segment(a, Settings("pair"))


# What is wrong is said in words


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan")])
def test_a_keep_ratio_out_of_range(segmenter, ratio):
    with pytest.raises(ScanError, match="keep ratio"):
        segmenter.segment(make_scan(), Settings("tiny", ratio))


def test_nan_is_refused_unless_it_is_to_be_replaced(segmenter):
    scan = make_scan()
    scan.voxels[3, 4, 5] = np.nan
    with pytest.raises(ScanError, match="1 voxel"):
        segmenter.segment(scan, SETTINGS)
    assert segmenter.segment(scan, Settings("tiny", replace_nonfinite=0.0)).complete


def test_no_model_unknown_model_and_no_gpu(segmenter, monkeypatch):
    with pytest.raises(ScanError, match="no model is chosen"):
        segmenter.segment(make_scan(), Settings())
    with pytest.raises(CardError, match="no model “nope”"):
        segmenter.segment(make_scan(), Settings("nope"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScanError, match="no NVIDIA GPU"):
        segmenter.segment(make_scan(), Settings("tiny", device="cuda"))


def test_a_time_axis_needs_a_frame(segmenter):
    scan = make_scan()
    film = Scan(np.stack([scan.voxels] * 2), scan.geometry, leading="time")
    with pytest.raises(ScanError, match="choose one frame"):
        segmenter.segment(film, SETTINGS)


def test_damaged_weights_are_refused_and_the_old_model_goes_on(tmp_path):
    card = tiny.write_model(tmp_path, "good")
    bad = tiny.write_model(tmp_path, "bad")
    bad.weights.write_bytes(bad.weights.read_bytes()[:-1] + b"x")
    segmenter = SCDSegmenter(Registry([tmp_path]))
    with pytest.raises(CardError, match="damaged"):
        segmenter.segment(make_scan(), Settings("bad"))
    assert segmenter.segment(make_scan(), Settings(card.id)).complete


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_returns_no_numbers_is_refused_and_draws_nothing(tmp_path, monkeypatch, value):
    tiny.write_model(tmp_path)
    real = SCD.load_state_dict

    def spoilt(model, state):
        state["decoder.out.conv.conv.bias"] = torch.full_like(state["decoder.out.conv.conv.bias"], value)
        return real(model, state)

    monkeypatch.setattr(SCD, "load_state_dict", spoilt)
    shown = []
    with pytest.raises(ScanError, match="no numbers"):
        SCDSegmenter(Registry([tmp_path])).segment(make_scan(), SETTINGS, watch=Watch(on_partial=shown.append))
    assert not shown


def test_a_token_may_lie_in_more_windows_than_a_byte_counts(tmp_path):
    tiny.write_model(tmp_path, config=replace(tiny.CONFIG, window=(28, 28, 28), depth=2, prune_after=(1,)), overlap=0.9)
    tokens = SCDSegmenter(Registry([tmp_path])).segment(make_scan((52, 52, 52)), SETTINGS).tokens
    assert tokens.windows.max() == 7**3
    assert tokens.covered.all()
    assert 0 < tokens.passed.max() <= 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize("where", ["finish", "prefixes"])
def test_a_full_memory_is_said_with_what_can_be_done(segmenter, monkeypatch, error, where):
    def full(*args, **more):
        raise error

    monkeypatch.setattr(engine, where, full)
    with pytest.raises(ScanError, match="not enough memory"):
        segmenter.segment(make_scan(), SETTINGS)


@pytest.mark.parametrize("where", [(engine, "lay_out"), (engine, "Canvas"), (Canvas, "add"), (Canvas, "mask")])
def test_a_full_memory_around_the_network_is_said_too_and_the_cache_let_go(segmenter, monkeypatch, where):
    scan, settings = make_scan((40, 24, 16)), replace(SETTINGS, keep_ratio=0.2)
    segmenter.segment(make_scan(), SETTINGS)
    assert len(segmenter._cache)

    def full(*args, **more):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(*where, full)
        with pytest.raises(ScanError, match="not enough memory"):
            segmenter.segment(scan, settings)
    assert not len(segmenter._cache)
    assert segmenter.segment(scan, settings).complete


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_memory_too_full_to_load_a_model_is_no_fault_of_the_model(folder, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr(SCD, "load_state_dict", full)
    with pytest.raises(ScanError, match="not enough memory to load “A tiny model”"):
        load_model(Registry([folder])["tiny"])


def test_what_the_cpu_says_of_a_full_memory_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert devices.is_full(raised.value)


@pytest.mark.parametrize("call", ["CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory"])
def test_what_libraries_on_the_gpu_say_of_a_full_memory_is_known(call):
    assert devices.is_full(RuntimeError(f"CUDA error: {call}"))
    assert not devices.is_full(RuntimeError("something else"))


@pytest.mark.parametrize("field", ["depth", "completion_depth"])
def test_a_network_of_a_thousand_million_blocks_is_refused_before_it_is_built(tmp_path, field):
    card = tiny.write_model(tmp_path)
    changed = replace(card, config={**card.config, field: 10**9})
    with pytest.raises(CardError, match=r"do not fit its card \(its card says 100000000\d blocks"):
        load_model(changed)


def test_a_card_that_does_not_fit_its_weights_is_refused(tmp_path):
    card = tiny.write_model(tmp_path)
    path = card.weights.with_suffix(".json")
    raw = json.loads(path.read_text())
    raw["config"]["dim"] = 48
    path.write_text(json.dumps(raw))
    with pytest.raises(CardError, match=r"do not fit its card \(size mismatch for \S+"):
        SCDSegmenter(Registry([tmp_path])).segment(make_scan(), SETTINGS)


def test_learned_positions_need_a_whole_window(tmp_path):
    tiny.write_model(tmp_path, config=replace(tiny.CONFIG, positions="learned"))
    segmenter = SCDSegmenter(Registry([tmp_path]))
    assert segmenter.segment(make_scan((20, 30, 20)), SETTINGS).complete
    with pytest.raises(ScanError, match="choose a larger region"):
        segmenter.segment(make_scan((12, 24, 16)), SETTINGS)


@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 40, 41), (40, 48, 33), (70, 12, 50)])
def test_a_network_that_pools_its_tokens_segments_scans_of_any_size(tmp_path, shape):
    pooled = replace(tiny.CONFIG, patch=8, window=(32, 48, 48), pooled_decoder=True)
    tiny.write_model(tmp_path, config=pooled, one_piece=[1])
    segmenter, scan = SCDSegmenter(Registry([tmp_path])), make_scan(shape)
    found = segmenter.segment(scan, SETTINGS)
    assert found.complete
    assert len(np.unique(found.mask)) > 1
    box = found.tokens.stage[tuple(slice(-(-n // 8)) for n in shape)]
    assert (box > 0).all()
    assert np.array_equal(segmenter.segment(scan, SETTINGS, hints=Hints(focus=(0, 0, 0), base=found)).mask, found.mask)


def test_a_pooled_network_names_a_window_that_it_can_pool():
    with pytest.raises(ValueError, match="even number of patches, at least 4"):
        replace(tiny.CONFIG, window=(16, 20, 16), pooled_decoder=True)


def test_a_scan_too_large_for_the_memory_is_refused_before_anything_is_made(segmenter, monkeypatch):
    monkeypatch.setattr(layout.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(ScanError, match="choose a region"):
        segmenter.segment(make_scan(), SETTINGS)


@pytest.fixture
def gpu(monkeypatch):
    """The GPU is played by a device of another name, on which three windows run at a time."""
    played = devices.Device(torch.device("meta"), "GPU: played", batch=3)
    monkeypatch.setattr(devices, "choose", lambda choice: played)
    monkeypatch.setattr(devices, "free_memory", lambda device: 2**30 if device is played else 0)
    monkeypatch.setattr(SCD, "to", lambda self, device: self)
    for part in ("encoding", "completing"):
        monkeypatch.setattr(Network, part, lambda self: torch.autocast("cpu", enabled=False))
    real = torch.Tensor.to

    def to(self, *args, **kwargs):
        return self if args and args[0] == torch.device("meta") else real(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)


def test_batches_give_what_single_windows_give(folder, segmenter, gpu, monkeypatch):
    scan = make_scan((40, 40, 24))
    sizes = []
    real = engine.finish

    def finish(network, windows, *args):
        sizes.append(len(windows))
        return real(network, windows, *args)

    monkeypatch.setattr(engine, "finish", finish)
    batched = [segmenter.segment(scan, SETTINGS), segmenter.segment(scan, SETTINGS)]
    assert max(sizes) == 3
    assert [prediction.timing.cached for prediction in batched] == [0, 1]
    monkeypatch.undo()
    monkeypatch.setattr(devices, "_cpu_dense_dtype", lambda: torch.float32)
    single = SCDSegmenter(Registry([folder])).segment(scan, SETTINGS)
    for prediction in batched:
        assert (prediction.mask == single.mask).mean() > 0.999
        assert np.array_equal(prediction.tokens.stage, single.tokens.stage)


def test_out_of_gpu_memory_each_way_out_is_taken_and_said_once(segmenter, gpu, monkeypatch):
    fails = iter([True, False, True, False, True, False] + [False] * 100)
    real = engine.finish

    def finish(network, windows, *args):
        if next(fails):
            raise torch.OutOfMemoryError("played")
        return real(network, windows, *args)

    monkeypatch.setattr(engine, "finish", finish)
    notices = []
    scan = make_scan((40, 40, 24))
    prediction = segmenter.segment(scan, SETTINGS, watch=Watch(on_notice=notices.append))
    assert prediction.complete
    assert [next(w for w in ("fewer windows", "without the cache", "with the CPU") if w in n) for n in notices] == [
        "fewer windows",
        "without the cache",
        "with the CPU",
    ]
    assert prediction.timing.device == "CPU (the GPU ran out of memory)"
    # The next run does not try the GPU again, and says the same as a machine without one.
    assert segmenter.prepare(SETTINGS).name == "CPU (the GPU ran out of memory)"
    assert np.array_equal(segmenter.segment(scan, SETTINGS).tokens.stage, prediction.tokens.stage)


def test_a_gpu_without_room_for_the_model_is_said_and_left(segmenter, gpu, monkeypatch):
    real = Network.on.__func__

    def on(cls, card, model, device, asked):
        if device.device.type == "meta":
            raise torch.OutOfMemoryError("played")
        return real(cls, card, model, device, asked)

    monkeypatch.setattr(Network, "on", classmethod(on))
    report = segmenter.prepare(SETTINGS)
    assert report.name == "CPU (the GPU is full)"
    assert "no room for this model" in report.warning
    assert segmenter.segment(make_scan(), SETTINGS).complete


def test_a_model_that_cannot_be_put_on_the_gpu_for_another_reason_is_no_full_memory(segmenter, gpu, monkeypatch):
    real = Network.on.__func__

    def on(cls, card, model, device, asked):
        if device.device.type == "meta":
            raise RuntimeError("played")
        return real(cls, card, model, device, asked)

    monkeypatch.setattr(Network, "on", classmethod(on))
    with pytest.raises(RuntimeError, match="played"):
        segmenter.prepare(SETTINGS)


def test_a_warm_up_that_finds_the_gpu_full_ends_and_the_run_deals_with_it(segmenter, gpu, monkeypatch):
    fails, real = iter([True] + [False] * 100), engine.finish

    def finish(*args):
        if next(fails):
            raise torch.OutOfMemoryError("played")
        return real(*args)

    monkeypatch.setattr(engine, "finish", finish)
    assert list(segmenter.warm_up(SETTINGS, lambda: False)) == []
    assert segmenter.segment(make_scan(), SETTINGS).complete


def test_a_click_that_finds_the_gpu_full_is_answered_all_the_same(segmenter, gpu, monkeypatch):
    fails, real = iter([True, True, True] + [False] * 100), SCDSegmenter._opened

    def opened(self, *args):
        if next(fails):
            raise torch.OutOfMemoryError("played")
        return real(self, *args)

    monkeypatch.setattr(SCDSegmenter, "_opened", opened)
    probe, _ = segmenter.probe(make_scan((40, 40, 24)), SETTINGS, (20, 20, 12))
    assert probe is not None
    assert segmenter.prepare(SETTINGS).name == "CPU (the GPU ran out of memory)"


def test_what_was_opened_on_the_gpu_is_opened_anew_after_it_was_given_up(segmenter, gpu, monkeypatch):
    scan, opened, real = make_scan((40, 40, 24)), [], SCDSegmenter._opened

    def counted(self, *args):
        opened.append(self._ready_network.device.name)
        return real(self, *args)

    monkeypatch.setattr(SCDSegmenter, "_opened", counted)
    segmenter.probe(scan, SETTINGS, (20, 20, 12))
    segmenter.probe(scan, SETTINGS, (20, 20, 12))
    fails, finish = iter([True, True, True] + [False] * 100), engine.finish

    def played(*args):
        if next(fails):
            raise torch.OutOfMemoryError("played")
        return finish(*args)

    monkeypatch.setattr(engine, "finish", played)
    segmenter.segment(scan, SETTINGS)
    segmenter.probe(scan, SETTINGS, (20, 20, 12))
    assert opened == ["GPU: played", "CPU (the GPU ran out of memory)"]


def test_a_gpu_that_fills_while_a_token_is_asked_about_is_given_up_as_well(segmenter, gpu, monkeypatch):
    """In the words of Apple's GPUs, for which PyTorch has no error of its own."""
    fails, real = iter([True, True, True] + [False] * 100), SCDSegmenter._opened

    def opened(self, *args):
        if next(fails):
            raise RuntimeError("MPS backend out of memory (played)")
        return real(self, *args)

    monkeypatch.setattr(SCDSegmenter, "_opened", opened)
    segmenter.probe(make_scan((40, 40, 24)), SETTINGS, (20, 20, 12))
    assert segmenter.prepare(SETTINGS).name == "CPU (the GPU ran out of memory)"


def test_an_error_while_a_token_is_asked_about_is_no_full_memory(segmenter, gpu, monkeypatch):
    def opened(self, *args):
        raise RuntimeError("played")

    monkeypatch.setattr(SCDSegmenter, "_opened", opened)
    with pytest.raises(RuntimeError, match="played"):
        segmenter.probe(make_scan((40, 40, 24)), SETTINGS, (20, 20, 12))


def test_the_cache_works_again_on_the_cpu_after_the_gpu_was_given_up(segmenter, gpu, monkeypatch):
    fails, real = iter([True, True, True] + [False] * 100), engine.finish

    def finish(*args):
        if next(fails):
            raise torch.OutOfMemoryError("played")
        return real(*args)

    monkeypatch.setattr(engine, "finish", finish)
    scan = make_scan((40, 40, 24))
    segmenter.segment(scan, SETTINGS)
    assert segmenter.segment(scan, SETTINGS).timing.cached == 1


def test_the_presets_are_models_that_a_card_can_describe():
    for config in PRESETS.values():
        assert config.stages == 3
