"""Label tables, from names, cards and files that may hold anything."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sparsetok.labels import NOT_TISSUE, PALETTE, Concept, Label, LabelTable, count_labels, translated
from napari_sparsetok.weights import Registry

concepts = st.builds(
    Concept, st.text(), st.text(), st.text(), st.sampled_from(["", "left", "right", "both", "anterior", "posterior"])
)
colors = st.from_regex(r"\A#[0-9a-fA-F]{6}\Z")


@st.composite
def tables(draw):
    ids = sorted(draw(st.sets(st.integers(1, NOT_TISSUE - 1), max_size=6)))
    return LabelTable(tuple(Label(i, draw(st.text()), draw(colors), draw(st.none() | concepts)) for i in ids))


@given(tables())
def test_a_table_survives_json(table):
    assert LabelTable.from_json(json.loads(json.dumps(table.to_json()))) == table


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {}, optional={"id": json_values, "name": json_values, "color": json_values, "concept": json_values}
)


@given(json_values | st.lists(rows, max_size=3))
def test_any_other_json_is_a_value_error_or_a_table(value):
    try:
        table = LabelTable.from_json(value)
    except ValueError:
        return
    for label in table:
        assert 1 <= label.id < NOT_TISSUE
        assert re.fullmatch("#[0-9a-fA-F]{6}", label.color)


def test_names_are_numbered_and_coloured():
    table = LabelTable.of(["Anterior", "Posterior"])
    assert [(label.id, label.name, label.color) for label in table] == [
        (1, "Anterior", PALETTE[0]),
        (2, "Posterior", PALETTE[1]),
    ]
    assert len(table) == 2
    assert len(LabelTable.of([])) == 0


def test_colours_start_again_after_the_last():
    table = list(LabelTable.of([str(k) for k in range(len(PALETTE) + 1)]))
    assert table[-1].color == PALETTE[0]
    assert len({label.color for label in table}) == len(PALETTE)


@pytest.mark.parametrize("number", [0, -1, NOT_TISSUE, 256])
def test_a_number_that_no_label_may_have(number):
    with pytest.raises(ValueError, match="labels are numbered 1 to 254"):
        Label(number, "x", "#000000")


@pytest.mark.parametrize("color", ["", "red", "#fff", "#12345g", "#1234567", "#123456\n"])
def test_a_colour_that_is_none(color):
    with pytest.raises(ValueError, match="#rrggbb"):
        Label(1, "x", color)


@pytest.mark.parametrize("ids", [(1, 1), (2, 1)])
def test_numbers_must_differ_and_rise(ids):
    with pytest.raises(ValueError, match="must differ and rise"):
        LabelTable(tuple(Label(i, "x", "#000000") for i in ids))


def test_too_many_names():
    with pytest.raises(ValueError, match="labels are numbered"):
        LabelTable.of(["x"] * NOT_TISSUE)


@pytest.mark.parametrize(
    "row",
    [{}, {"id": 1}, {"name": "x"}, {"id": "one", "name": "x"}, [], None, 3, {"id": 1, "name": "x", "concept": {}}],
)
def test_a_row_that_cannot_be_read(row):
    with pytest.raises(ValueError, match=r"a label of the table cannot be read"):
        LabelTable.from_json([row])


def test_what_json_gives_is_a_copy():
    concept = Concept("1", "SCT", "hippocampus")
    row = LabelTable((Label(1, "x", "#000000", concept),)).to_json()[0]
    row["concept"]["value"] = "2"
    assert concept.value == "1"


def test_a_label_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Label(1, "x", "#000000").name = "y"


GLAND = ("45289007", "SCT", "Parotid gland")
RIGHT = Label(3, "Right parotid", "#009E73", Concept(*GLAND, "right"))
LEFT = Label(4, "Left parotid", "#F0E442", Concept(*GLAND, "left"))
PAIR = LabelTable((RIGHT, LEFT))


def label(name: str, part: str | None = None, code=GLAND, id: int = 7) -> Label:
    return Label(id, name, "#000000", None if part is None else Concept(*code, part))


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (label("Glandula parotidea dextra", "right"), 3),  # a code that says its side is enough
        (label("Glandula parotidea sinistra", "left"), 4),
        (label("Right parotid", ""), 3),  # as the program wrote before: one code for both, so the name decides
        (label("left parotid", ""), 4),
        (label("Right parotid"), 3),
        (label("Parotid", ""), None),  # either of the two
        (label("Both parotids", "both"), None),
        (label("Left parotid", "right"), 3),  # the code is what programs agree on
        (label("label 3", id=3), 3),
        (label("Liver", "", ("10200004", "SCT", "Liver")), None),
    ],
)
def test_left_is_never_taken_for_right(given, own):
    numbers, strangers = translated([given], PAIR)
    assert numbers == ({} if own is None else {given.id: own})
    assert strangers == ([given.name] if own is None else [])


def test_a_name_of_the_other_side_is_no_match():
    own = LabelTable((label("Parotid", "left", id=1),))
    assert translated([label("Parotid", "right")], own) == ({}, ["Parotid"])
    assert translated([label("Parotid", "left")], own) == ({7: 1}, [])


def test_a_label_that_is_on_no_side_takes_what_is_on_one():
    own = LabelTable((label("Parotid gland", "", id=1),))
    assert translated([label("Parotis links", "left")], own) == ({7: 1}, [])


def test_the_labels_of_every_model_can_be_told_apart_by_their_codes():
    for card in Registry().cards.values():
        codes = [label.concept for label in card.labels if label.concept]
        assert len(set(codes)) == len(codes), card.id
        assert translated(card.labels, card.labels) == ({label.id: label.id for label in card.labels}, [])


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.sampled_from([0, 1, 7, 255])))
def test_voxels_of_every_number_are_counted(mask: np.ndarray) -> None:
    counts = count_labels(mask)
    assert counts.shape == (256,)
    assert all(counts[k] == np.count_nonzero(mask == k) for k in range(256))
    assert np.array_equal(counts, count_labels(mask.ravel()))
