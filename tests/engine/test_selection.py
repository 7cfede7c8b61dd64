"""What picks tokens: rules beside the learned score, thresholds, ratios of stages, tokens chosen by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from napari_sparsetok.engine import selection
from napari_sparsetok.engine.contract import Hints
from napari_sparsetok.engine.report import report
from napari_sparsetok.engine.segmenter import SCDSegmenter, load_model
from napari_sparsetok.engine.selection import patch_entropy
from napari_sparsetok.engine.window import plan_windows
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Forced, Reference, Selection, Settings
from napari_sparsetok.tokens import first_stage_preview, tokens_left
from napari_sparsetok.weights import Registry

PATCH = tiny.CONFIG.patch
RULES: tuple[Selection, ...] = ("learned", "random", "norm", "attention", "entropy", "oracle")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.write_model(folder)
    return Registry([folder])


@pytest.fixture
def segmenter(registry):
    return SCDSegmenter(registry)


def make_scan(shape=(24, 24, 24), spacing=(1.0, 1.0, 1.0), seed=0) -> Scan:
    voxels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    return Scan(voxels, Geometry.shown(shape, spacing), name="noise")


def make_reference(shape, *corner: int) -> Reference:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(c, c + 2 * PATCH) for c in corner)] = 2
    return Reference(mask)


def settings_of(rule: Selection, scan: Scan, **changes) -> Settings:
    reference = make_reference(scan.shape, 8, 4, 12) if rule == "oracle" else None
    return Settings("tiny", 0.4, selection=rule, reference=reference, **changes)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_its_share_and_says_what_ranked(segmenter, rule):
    scan = make_scan()
    found = segmenter.segment(scan, settings_of(rule, scan))
    tokens = found.tokens
    windows = found.timing.windows
    assert windows > 1
    assert tokens.selection == rule
    assert tokens.left == tuple(windows * n for n in tokens_left(tokens.window_tokens, 0.4, 2))
    assert tokens.stage.min() >= 1
    # In one window the kept are those of the highest scores.
    alone = segmenter.segment(make_scan(tiny.CONFIG.window), settings_of(rule, make_scan(tiny.CONFIG.window))).tokens
    for k in range(2):
        there = alone.stage > k
        kept, gone = alone.importance[k][alone.stage > k + 1], alone.importance[k][there & (alone.stage == k + 1)]
        assert kept.min() >= gone.max()
    assert np.array_equal(np.sort(alone.rank.ravel()), np.arange(alone.window_tokens))
    assert (alone.stage[alone.rank < alone.left[1]] > 1).all()


def test_where_windows_overlap_it_is_said_in_which_share_of_them_a_token_passed(segmenter):
    scan, settings = make_scan((24, 40, 24)), Settings("tiny", 0.4)
    tokens = segmenter.segment(scan, settings).tokens
    plan = segmenter._layout.plan
    over, passed = np.zeros(tokens.stage.shape), np.zeros(tokens.importance.shape)
    for index in range(len(plan.regions)):  # each window asked for itself
        token = np.argwhere(plan.owner == index)[0]
        probe, _ = segmenter.probe(scan, settings, [int(t) * PATCH + 1 for t in token])
        over[probe.box.slices] += 1
        for k in range(tokens.stages):
            passed[k][probe.box.slices] += probe.stage > k + 1
    assert np.array_equal(tokens.windows, over)
    assert over.max() > 1
    assert np.allclose(tokens.passed, passed / over)
    assert ((tokens.passed > 0) & (tokens.passed < 1)).any()  # windows do differ
    assert (tokens.passed[-1][over == 1] == (tokens.stage == 3)[over == 1]).all()
    assert first_stage_preview(tokens, 0.2).passed is None


def test_what_is_run_around_the_eye_counts_its_windows_anew_and_keeps_the_others(segmenter):
    scan = make_scan((24, 40, 24))
    base = segmenter.segment(scan, Settings("tiny", 1.0))
    assert (base.tokens.passed == 1).all()
    near = segmenter.segment(scan, Settings("tiny", 0.2), hints=Hints((2, 2, 2), focus_only=True, base=base)).tokens
    assert near.passed.min() == 0
    assert (near.passed[:, :, -1] == 1).all()  # no window there was run again
    assert near.windows[0, 0, 0] >= 1


def test_rules_reuse_the_prefix_and_the_learned_scores_stay(segmenter):
    scan = make_scan()
    plain = segmenter.segment(scan, Settings("tiny", 0.4))
    for rule in RULES[1:]:
        assert segmenter.segment(scan, settings_of(rule, scan)).timing.cached == 1
    again = segmenter.segment(scan, Settings("tiny", 0.4))
    assert np.array_equal(plain.tokens.importance, again.tokens.importance, equal_nan=True)


def test_random_is_the_same_for_a_seed_and_another_for_another(segmenter):
    scan = make_scan()
    a, b, c = (segmenter.segment(scan, Settings("tiny", 0.4, selection="random", seed=s)).tokens for s in (1, 1, 2))
    assert np.array_equal(a.stage, b.stage)
    assert not np.array_equal(a.stage, c.stage)


def test_the_oracle_keeps_the_reference_and_then_what_is_near_it(segmenter):
    scan = make_scan(tiny.CONFIG.window)
    reference = make_reference(scan.shape, 4, 8, 4)  # exactly the 8 tokens from (1, 2, 1) to (2, 3, 2)
    found = segmenter.segment(scan, Settings("tiny", 0.5, selection="oracle", reference=reference)).tokens
    touched = np.zeros(found.stage.shape, bool)
    touched[1:3, 2:4, 1:3] = True
    assert (found.importance[0][touched] == 1).all()
    assert (found.importance[0][~touched] <= 0.25).all()
    assert (found.stage[touched] == 3).all()
    assert found.importance[0][0, 2, 1] == 0.25  # a neighbour: half of one over one and one token
    assert found.importance[0][1, 0, 1] == pytest.approx(0.5 / 3)


def test_the_oracle_follows_a_scan_with_other_voxels(segmenter):
    scan = make_scan((20, 24, 16), spacing=(2.0, 1.0, 1.0))  # 40 mm, so 40 of the model's voxels
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:4, 4:8, 4:8] = 1  # the millimetres 4 to 8 along z: token 1
    found = segmenter.segment(scan, Settings("tiny", 0.4, selection="oracle", reference=Reference(mask))).tokens
    assert np.unravel_index(np.argmax(found.importance[0]), found.stage.shape) == (1, 1, 1)


class Layers:
    """An image (channels, D, H, W) in layers."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.size = torch.from_numpy(image), image[0].size

    def layers(self, thickness):
        for z in range(0, self.image.shape[1], thickness):
            yield z, self.image[:, z : z + thickness]


def entropy_of(image: np.ndarray, patch: int = 4) -> np.ndarray:
    shape = image.shape[1:]
    return patch_entropy(Layers(image), plan_windows(shape, shape, patch, 0.5))


def test_entropy_is_that_of_the_patch():
    image = np.zeros((1, 8, 4, 4), np.float32)
    image[0, 4:, :2] = 1.0  # the second patch is half 0, half 1: one bit of at most five
    assert entropy_of(image).ravel().tolist() == pytest.approx([0.0, 0.2])
    even = np.tile(np.linspace(0, 1, 32), 4).astype(np.float32)[:64].reshape(1, 4, 4, 4)
    assert entropy_of(even).item() > 0.9
    assert entropy_of(np.ones((2, 4, 4, 4), np.float32)).tolist() == [[[0.0]]]


@pytest.mark.parametrize("patch", [4, 16])
def test_entropy_does_not_depend_on_how_many_slices_come_at_once(monkeypatch, patch):
    image = np.random.default_rng(0).normal(size=(2, 112, 16, 32)).astype(np.float32)
    image[:, 80:] *= 3
    ends = np.percentile(image, [0.5, 99.5], axis=(1, 2, 3)).T
    layered = entropy_of(image, patch)
    assert np.array_equal(selection._ends(Layers(image), 7 * patch), ends)
    monkeypatch.setattr(selection, "_AT_ONCE", 112)
    assert np.array_equal(layered, entropy_of(image, patch))


def test_of_a_large_volume_entropy_takes_its_ends_from_a_sample(monkeypatch):
    image = np.random.default_rng(0).normal(size=(1, 64, 32, 32)).astype(np.float32)
    exact, sizes = entropy_of(image), []
    real = np.percentile
    monkeypatch.setattr(selection, "_SAMPLE", 8192)
    monkeypatch.setattr(selection.np, "percentile", lambda a, q: sizes.append(a.size) or real(a, q))
    assert np.abs(entropy_of(image) - exact).max() < 0.1
    assert sizes == [len(range(0, image.size, 9))]  # 8 would keep time with the axes


def test_a_threshold_is_followed_by_every_window_for_itself(segmenter):
    scan = make_scan()
    dense = segmenter.segment(scan, Settings("tiny", 1.0, selection="norm"))
    threshold = float(np.median(dense.tokens.importance[0]))
    found = segmenter.segment(scan, Settings("tiny", 0.01, selection="norm", threshold=threshold))
    passed = found.tokens.importance[0] >= threshold
    assert np.array_equal(found.tokens.stage > 1, passed)
    assert 0.2 < passed.mean() < 0.8
    assert found.tokens.left[0] == dense.tokens.left[0]
    none = segmenter.segment(scan, Settings("tiny", 0.01, threshold=0.0))
    assert np.array_equal(none.mask, dense.mask)


def test_a_ratio_for_each_stage(segmenter):
    scan = make_scan(tiny.CONFIG.window)
    found = segmenter.segment(scan, Settings("tiny", 1.0, stage_ratios=(0.5, 0.25))).tokens
    n = found.window_tokens
    assert found.left == (n, n // 2, n // 8)
    assert [np.count_nonzero(found.stage == k) for k in (1, 2, 3)] == [n - n // 2, n // 2 - n // 8, n // 8]


@pytest.mark.parametrize("shape", [tiny.CONFIG.window, (24, 24, 24)])
def test_tokens_chosen_by_hand_are_obeyed_and_no_score_moves(segmenter, shape):
    scan, region = make_scan(shape), Region.whole(shape)
    plain = segmenter.segment(scan, Settings("tiny", 0.25))
    signs = np.zeros(plain.tokens.stage.shape, np.int8)
    signs[plain.tokens.rank == plain.tokens.window_tokens - 1] = 1  # the worst of every window
    signs[plain.tokens.rank == 0] = -1  # and the best
    forced = Forced.of(region, signs)
    found = segmenter.segment(scan, Settings("tiny", 0.25, forced=forced))
    assert found.timing.cached == 1
    assert (found.tokens.stage[signs > 0] == 3).all()
    assert (found.tokens.stage[signs < 0] == 1).all()
    assert np.array_equal(found.tokens.importance[0], plain.tokens.importance[0])
    assert found.tokens.left[0] == plain.tokens.left[0]
    assert np.array_equal(found.tokens.forced, signs)
    if found.timing.windows == 1:
        assert found.tokens.left == plain.tokens.left  # one for the other: the budget holds
        preview = first_stage_preview(found.tokens, 0.25)
        assert np.array_equal(preview.stage == 1, found.tokens.stage == 1)


def test_more_tokens_than_the_share_may_be_forced_and_the_budget_says_so(segmenter):
    scan, region = make_scan(tiny.CONFIG.window), Region.whole(tiny.CONFIG.window)
    signs = np.ones((4, 6, 4), np.int8)
    signs[0] = 0
    found = segmenter.segment(scan, Settings("tiny", 0.1, forced=Forced.of(region, signs))).tokens
    assert found.left == (96, 72, 72)
    assert (found.stage[1:] == 3).all()


def test_the_record_says_it_all_and_leads_back(segmenter, registry):
    scan = make_scan(tiny.CONFIG.window)
    signs = np.zeros((4, 6, 4), np.int8)
    signs[0, 0, 0], signs[1, 1, 1] = 1, -1
    forced = Forced.of(Region.whole(scan.shape), signs)
    asked = Settings("tiny", 0.3, selection="norm", stage_ratios=(0.5, 0.25), seed=3, forced=forced)
    document = json.loads(json.dumps(report(segmenter.segment(scan, asked), registry["tiny"])))
    assert document["tokens"]["ranked_by"] == "norm"
    assert document["settings"]["forced"]["keep"] == [0]
    assert Settings.from_json(document["settings"]) == asked
    old = {"model": "tiny", "keep_ratio": 0.25, "device": "auto", "replace_nonfinite": None}
    assert Settings.from_json(old) == Settings("tiny")


def test_of_a_reference_the_record_holds_only_the_hash(segmenter, registry):
    scan = make_scan(tiny.CONFIG.window)
    asked = settings_of("oracle", scan)
    written = json.loads(json.dumps(asked.to_json()))
    assert set(written["reference"]) == {"sha256"}
    with pytest.raises(ValueError, match="reference mask"):
        Settings.from_json(written)
    with pytest.raises(ValueError, match="reference mask"):
        Settings.from_json(written, make_reference(scan.shape, 0, 0, 0))
    assert Settings.from_json(written, Reference(np.array(asked.reference.mask))) == asked


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"selection": "oracle"}, "needs a reference mask"),
        ({"selection": "oracle", "reference": make_reference((8, 8, 8), 0, 0, 0)}, "another grid than the scan"),
        ({"stage_ratios": (0.5,)}, "prunes 2 times, but 1 keep ratios"),
        ({"stage_ratios": (0.5, 0.0)}, "keep ratio must be above 0"),
        ({"threshold": -0.1}, "threshold must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"forced": Forced(Region((0, 0, 0), (4, 4, 4)), (1, 1, 1), (0,))}, "belong to another region"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(segmenter, changes, sentence):
    with pytest.raises(ScanError, match=sentence):
        segmenter.segment(make_scan(), replace(Settings("tiny", 0.4), **changes))


@pytest.mark.parametrize("mask", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.float32)])
def test_a_reference_is_a_volume_of_whole_numbers(mask):
    with pytest.raises(ValueError, match="volume of whole numbers"):
        Reference(mask)


class Brightness(nn.Module):
    """Scores that a network may have learned: the first feature, which below is the patch's brightness."""

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.logsigmoid(tokens[..., 0] / 10)


def planted(registry) -> nn.Module:
    """A network whose tokens carry their patch's brightness through all blocks, and which scores by it."""
    network = load_model(registry["tiny"])
    with torch.no_grad():
        network.patch_embedding.proj.weight[0] = 20 / PATCH**3
        for block in network.blocks:
            block.attn.proj.weight.zero_()
            block.mlp.fc2.weight.zero_()
            block.attn.proj.bias.zero_()
            block.mlp.fc2.bias.zero_()
    network.scores = nn.ModuleList(Brightness() for _ in network.scores)
    return network


def test_where_brightness_tells_oracle_beats_learned_beats_random(registry, monkeypatch):
    network = planted(registry)
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.load_model", lambda card: network)
    segmenter = SCDSegmenter(registry)
    kept: dict[str, list[float]] = {"oracle": [], "learned": [], "random": []}
    for seed in range(6):
        draw = np.random.default_rng(seed)
        corner = draw.integers(0, [8, 16, 8])
        reference = make_reference(tiny.CONFIG.window, *corner)
        noise = draw.normal(0, 6, tiny.CONFIG.window)
        scan = Scan((reference.mask + noise).astype(np.float32), Geometry.shown(tiny.CONFIG.window))
        for rule in kept:
            asked = Settings("tiny", 0.4, selection=rule, seed=seed, reference=reference)
            stage = segmenter.segment(scan, asked).tokens.stage
            inside = np.kron(stage == 3, np.ones((PATCH,) * 3)) > 0
            kept[rule].append(inside[reference.mask > 0].mean())
    oracle, learned, random = (np.mean(kept[rule]) for rule in ("oracle", "learned", "random"))
    assert oracle > learned + 0.02
    assert learned > random + 0.2
