"""Cards and the registry."""

from __future__ import annotations

import json

import pytest
import tiny

from napari_sparsetok.weights import Body, Card, CardError, Registry
from napari_sparsetok.weights.registry import BUNDLED


def test_a_card_reads_back_as_it_was_written(tmp_path):
    card = tiny.write_model(tmp_path)
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(card.to_json()))
    again = Card.read(copy)
    assert again.to_json() == card.to_json()
    assert again.weights == copy.with_suffix(".safetensors")


def test_what_a_card_says_of_its_network(tmp_path):
    card = tiny.write_model(tmp_path, spacing=[2.0, 1.0, 0.5])
    assert (card.patch, card.stages, card.window, card.minimum_kept) == (4, 2, (16, 24, 16), 1)
    assert card.window_mm == (32.0, 24.0, 8.0)


def test_the_body_of_a_card_is_optional_read_back_and_checked(tmp_path):
    assert tiny.write_model(tmp_path).body is None
    card = tiny.write_model(tmp_path, body={"above": -500, "margin": 8})
    assert card.body == Body(-500, 8)
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(card.to_json()))
    assert Card.read(copy).body == card.body
    for bad in ({"above": -500, "margin": -1}, {"margin": 8}, {"above": float("nan")}, {"below": 3}, 7):
        with pytest.raises(CardError, match="cannot be read"):
            tiny.write_model(tmp_path, body=bad)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labels": [{"id": k, "name": str(k), "color": "#E69F00"} for k in (1, 3)]},
            "numbered 1, 2, 3 … without a gap",
        ),
        ({"one_piece": [9]}, "labels that it has"),
        ({"spacing": [1, 0, 1]}, "three positive numbers"),
        ({"spacing": ["a", 1, 1]}, "three positive numbers"),
        ({"spacing": [1, 1]}, "three positive numbers"),
        ({"overlap": 1.5}, "overlap by 0 … below 1"),
        ({"overlap": -1}, "overlap by 0 … below 1"),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused(change, words, tmp_path):
    with pytest.raises(CardError, match=words):
        tiny.write_model(tmp_path, **change)


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "window", "low": 5, "high": 5},
        {"name": "window", "low": 5},
        {"name": "window", "low": 5, "high": 8, "middle": 6},
        {"name": "window", "low": "a", "high": 8},
        {"name": "standardise", "low": -1, "high": 99},
        {"name": "other"},
    ],
)
def test_a_model_with_an_impossible_intensity_rule_is_not_loaded(rule, tmp_path):
    from napari_sparsetok.engine.segmenter import load_model

    card = tiny.write_model(tmp_path, intensity=rule)
    with pytest.raises(CardError, match="intensity rule"):
        load_model(card)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 1, "labels": 3}', "\x00"])
def test_what_is_no_card_is_a_problem_and_not_a_crash(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    tiny.write_model(tmp_path, "good")
    registry = Registry([tmp_path])
    assert list(registry.cards) == ["good"]
    assert len(registry.problems) == 1
    assert "bad.json" in registry.problems[0]


def test_a_card_of_megabytes_is_not_read(tmp_path):
    (tmp_path / "bad.json").write_text('{"format": 1, "x": [' + "{}," * 1_000_000 + "0]}")
    assert "bad.json is far too long" in Registry([tmp_path]).problems[0]


def test_a_card_of_a_later_format_asks_for_an_update(tmp_path):
    with pytest.raises(CardError, match="update napari-sparsetok"):
        tiny.write_model(tmp_path, format=2)
    assert "update napari-sparsetok" in Registry([tmp_path]).problems[0]


def test_weights_are_only_handed_out_if_they_are_the_right_ones(tmp_path):
    card = tiny.write_model(tmp_path)
    assert card.verified_weights() == card.weights.read_bytes()
    card.weights.write_bytes(b"something else")
    with pytest.raises(CardError, match="damaged"):
        card.verified_weights()
    card.weights.unlink()
    with pytest.raises(CardError, match="cannot be read"):
        card.verified_weights()


def test_folders_are_searched_in_order_and_a_missing_one_is_none(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "a", "same", title="first")
    tiny.write_model(tmp_path / "b", "same", title="second")
    folders = [tmp_path / "a", tmp_path / "nowhere", tmp_path / "b"]
    assert Registry(folders)["same"].title == "second"
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "a"))
    assert "same" in Registry().cards


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path):
    tiny.write_model(tmp_path)
    with pytest.raises(CardError, match="known models: tiny"):
        Registry([tmp_path])["other"]


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.json")), ids=lambda p: p.stem)
def test_bundled_models_load_and_are_small(path):
    from napari_sparsetok.engine.segmenter import load_model

    card = Card.read(path)
    assert card.id == path.stem
    assert card.weights.stat().st_size <= 15_000_000
    for said in (card.purpose, card.training_data, card.licence, card.limits, card.dice):
        assert said
    assert load_model(card).config.patch == card.patch


def test_there_is_a_bundled_model():
    assert "hippocampus-t1" in Registry([BUNDLED]).cards
