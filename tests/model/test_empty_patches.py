"""Patches of nothing but background never enter a network that was made so."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_sparsetok.model import SCD, Rule, SCDConfig
from napari_sparsetok.tokens import tokens_left

CONFIG = replace(tiny.CONFIG, in_channels=2, window=(8, 12, 16), features=2, empty=-1.0)
N = math.prod(CONFIG.grid())

examples = settings(max_examples=20, deadline=None)
holes = st.lists(st.booleans(), min_size=N, max_size=N)


def network_of(config: SCDConfig = CONFIG) -> SCD:
    torch.manual_seed(0)
    network = SCD(config).eval()
    with torch.no_grad():  # so that what stands in an empty place is seen
        for name, parameter in network.named_parameters():
            if name == "empty_token":
                parameter.normal_()
    return network


def image_of(empty: list[bool], seed: int = 0) -> Tensor:
    """(1, 2, D, H, W), at the floor in these patches, above it at one voxel of each other one at least."""
    image = torch.rand(1, 2, *CONFIG.window, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    image[:, :, ::4, ::4, ::4] = 0.5
    gone = torch.tensor(empty).reshape(CONFIG.grid())
    for axis in range(3):
        gone = gone.repeat_interleave(4, axis)
    return image.masked_fill(gone, -1.0)


@examples
@example([True] * N, 0.5, 0)
@given(holes, st.sampled_from([1.0, 0.5, 0.1]), st.integers(0, 3))
def test_only_the_others_are_counted_scored_and_pruned(empty: list[bool], ratio: float, seed: int) -> None:
    with torch.inference_mode():
        logits, record = network_of()(image_of(empty, seed), ratio)
    stage, gone = record.stage.flatten(), torch.tensor(empty)
    entered = N - sum(empty)
    if entered:
        assert torch.equal(stage == 0, gone)
        left = tokens_left(entered, ratio, 2)
    else:
        assert (stage > 0).nonzero().tolist() == [[0]]  # one enters, as no block can do with none
        left = (1, 1, 1)
    assert (stage == 3).sum() == left[2]
    assert [(stage > k).sum() for k in range(3)] == list(left)
    for k, scores in enumerate(record.scores, start=1):
        assert torch.equal(scores.flatten().isnan(), stage < k)
    assert logits.isfinite().all()


@examples
@given(st.sampled_from([1.0, 0.4]), st.integers(0, 3))
def test_without_empty_patches_it_is_the_network_that_takes_all(ratio: float, seed: int) -> None:
    network, plain, image = network_of(), SCD(replace(CONFIG, empty=None)).eval(), image_of([False] * N, seed)
    weights = network.state_dict()
    del weights["empty_token"]
    plain.load_state_dict(weights)
    with torch.inference_mode():
        (logits, record), (wanted, wanted_record) = network(image, ratio), plain(image, ratio)
    assert torch.equal(logits, wanted)
    assert torch.equal(record.stage, wanted_record.stage)


@examples
@given(holes, holes, st.sampled_from([1.0, 0.4]))
def test_windows_of_one_batch_are_as_if_each_was_alone(one: list[bool], other: list[bool], ratio: float) -> None:
    network, images = network_of(), torch.cat([image_of(one, 1), image_of(other, 2)])
    forced = torch.randint(-1, 2, (2, N), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, record = network(images, ratio, Rule(forced=forced))
        for k in range(2):
            alone, its = network(images[k : k + 1], ratio, Rule(forced=forced[k : k + 1]))
            torch.testing.assert_close(logits[k : k + 1], alone, atol=1e-5, rtol=1e-4)
            assert torch.equal(record.stage[k : k + 1], its.stage)
            for scores, wanted in zip(record.scores, its.scores, strict=True):
                torch.testing.assert_close(scores[k : k + 1], wanted, equal_nan=True)


def test_what_a_channel_has_lets_the_patch_in() -> None:
    image = torch.full((1, 2, *CONFIG.window), -1.0)
    image[0, 1, 3, 2, 1], image[0, 0, 5, 9, 15] = -0.99, 0.3
    with torch.inference_mode():
        _, record = network_of()(image)
    assert (record.stage > 0).nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]


def test_the_encoder_cannot_tell_what_lies_in_an_empty_patch() -> None:
    """Not even how far below the floor it is: the tokens that entered come out the same."""
    empty = [k % 3 == 0 for k in range(N)]
    image = image_of(empty)
    deeper = torch.where(image <= -1.0, image - torch.rand(image.shape), image)
    network = network_of()
    with torch.inference_mode():
        here, there = network.encode_prefix(image), network.encode_prefix(deeper)
    assert torch.equal(here.tokens, there.tokens)
    assert torch.equal(here.places, there.places)
    assert here.places.tolist() == [[k for k in range(N) if k % 3]]


def test_in_an_empty_place_the_decoder_gets_the_learned_token() -> None:
    empty = [k % 3 == 0 for k in range(N)]
    network = network_of()
    with torch.inference_mode():
        prefixes = network.prefixes(image_of(empty))
        completed, _ = network.completed(prefixes, 0.5)
    tokens = completed.flatten(2)[0].T  # N C
    for k in range(N):
        assert torch.equal(tokens[k], network.empty_token[0, 0]) == (k % 3 == 0)


def test_its_gradient_reaches_the_learned_token() -> None:
    network = network_of().train()
    logits, _ = network(image_of([k % 2 == 0 for k in range(N)]), 0.5)
    logits.square().mean().backward()
    assert network.empty_token.grad is not None
    assert network.empty_token.grad.abs().sum() > 0


@pytest.mark.parametrize("class_token", [False, True])
def test_with_and_without_a_class_token(class_token: bool) -> None:
    network = network_of(replace(CONFIG, class_token=class_token))
    empty = [k % 4 != 1 for k in range(N)]
    with torch.inference_mode():
        logits, record = network(image_of(empty), 0.5)
    assert torch.equal(record.stage.flatten() == 0, torch.tensor(empty))
    assert logits.isfinite().all()


def test_windows_of_different_numbers_of_tokens_are_not_encoded_together() -> None:
    with pytest.raises(ValueError, match="one by one"):
        network_of().encode_prefix(torch.zeros(2, 2, *CONFIG.window))


def test_learned_positions_take_in_every_patch() -> None:
    with pytest.raises(ValueError, match="every patch"):
        replace(CONFIG, positions="learned")
