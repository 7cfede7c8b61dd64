"""Label tables, from names, cards and files that may hold anything."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.labels import NOT_TISSUE, PALETTE, Concept, Label, LabelTable

concepts = st.builds(Concept, st.text(), st.text(), st.text())
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
