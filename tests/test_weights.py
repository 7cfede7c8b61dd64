"""Cards and the registry."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from napari_sparsetok.scan import ScanError
from napari_sparsetok.weights import Body, Card, CardError, Registry, install, uninstall
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
        *(
            ({name: value}, f"“{name}” is a text")
            for name in ("id", "title", "licence", "sha256")
            for value in (5, None)
        ),
        ({"id": "a\nb"}, "name of one line"),
        ({"channels": [1]}, "“channels” are texts"),
        ({"keep_ratios": [0.5]}, "“keep_ratios” are two numbers"),
        ({"keep_ratios": "ab"}, "“keep_ratios” are two numbers"),
        ({"keep_ratios": [0.5, 2]}, "“keep_ratios” are two numbers"),
        ({"intensity": "standardise"}, "rule by name"),
        ({"dice": []}, "“dice” has the numbers"),
        ({"dice": {"labels": {"0.25": ["a"]}}}, "“dice” has the numbers"),
        ({"dice": {"labels": {"0.25": 0.9}}}, "“dice” has the numbers"),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused(change, words, tmp_path):
    with pytest.raises(CardError, match=words):
        tiny.write_model(tmp_path, **change)


@pytest.mark.parametrize(
    "change",
    [{"patch": 0}, {"patch": 4.0}, {"window": [16, 24]}, {"window": 16}, {"window": [16, 24, 0]}, {"prune_after": 1}],
)
def test_a_card_without_the_sizes_of_its_network_is_refused(change, tmp_path):
    card = tiny.write_model(tmp_path)
    with pytest.raises(CardError, match="all whole numbers above 0"):
        tiny.rewrite(card, config=dict(card.config) | change)
    with pytest.raises(CardError, match="sizes by name"):
        tiny.rewrite(card, config=[])


@pytest.mark.parametrize(
    "change",
    [{"heads": 0}, {"completion_heads": 0}, {"features": 0}, {"dim": "a"}, {"positions": "other"}, {"completion": 3}],
)
def test_a_network_that_cannot_be_is_not_loaded(change, tmp_path):
    from napari_sparsetok.engine.segmenter import load_model

    card = tiny.write_model(tmp_path)
    with pytest.raises(CardError, match=f"do not fit its card.*“{next(iter(change))}”"):
        load_model(tiny.rewrite(card, config=dict(card.config) | change))


@pytest.mark.parametrize("stored", [b"", b"no weights at all", (2**60).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_none_are_refused_though_their_hash_is_right(stored, tmp_path):
    from napari_sparsetok.engine.segmenter import load_model

    card = tiny.write_model(tmp_path)
    card.weights.write_bytes(stored)
    with pytest.raises(CardError, match="do not fit its card"):
        load_model(tiny.rewrite(card, sha256=hashlib.sha256(stored).hexdigest()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["scores.0.out_mlp.4.bias", "scores.1.out_mlp.4.bias", "blocks.0.norm1.weight"])
def test_weights_that_are_no_numbers_are_refused_before_they_pick_tokens(name, value, tmp_path):
    from napari_sparsetok.engine.segmenter import load_model

    card = tiny.write_model(tmp_path)
    weights = load_file(card.weights)
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, card.weights)
    with pytest.raises(CardError, match="no numbers"):
        load_model(tiny.rewrite(card, sha256=hashlib.sha256(card.weights.read_bytes()).hexdigest()))


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


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 1, "labels": 3}', "\x00", "[" * 100_000]
)
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
    card = tiny.rewrite(card, sha256=card.sha256.upper())
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


@pytest.mark.parametrize("copy", ["a copy", "tiny_old", "zz"])
def test_a_copy_beside_a_model_does_not_take_its_place_and_is_said(copy, tmp_path):
    tiny.write_model(tmp_path)
    tiny.write_model(tmp_path, copy, id="tiny", title="Older")
    registry = Registry([tmp_path])
    assert registry["tiny"].title == "A tiny model"
    assert registry.problems == [f"two model cards in {tmp_path} have the id “tiny”; tiny.json is used"]


def test_a_folder_that_goes_away_while_it_is_looked_at_is_a_problem_and_the_others_are_read(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "good")
    real = Path.glob

    def glob(folder, pattern):
        if folder.name == "gone":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(folder, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    registry = Registry([tmp_path / "gone", tmp_path / "good"])
    assert list(registry.cards) == ["tiny"]
    assert f"the models in {tmp_path / 'gone'} cannot be read" in registry.problems[0]


def test_a_full_disk_leaves_the_installed_model_as_it_was(tmp_path, monkeypatch):
    own = tmp_path / "own"
    old = install(tiny.write_model(tmp_path / "old"), own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    new = tiny.write_model(tmp_path / "new", config=tiny.with_channels(2))
    real = Path.write_text

    def full(path, *args, **more):
        if path.parent == own:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *args, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ScanError, match=r"could not be installed \(No space left.*nothing was changed"):
        install(new, own, replace=True)
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert Card.read(own / "tiny.json").verified_weights() == old.verified_weights()
    monkeypatch.undo()
    assert install(new, own, replace=True).verified_weights() == new.verified_weights()


def test_a_model_that_the_disk_does_not_let_go_is_said_in_a_sentence(tmp_path, monkeypatch):
    install(tiny.write_model(tmp_path / "here"), tmp_path / "own")

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CardError, match=r"“tiny” could not be removed \(Permission denied\)"):
        uninstall("tiny", tmp_path / "own")


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
