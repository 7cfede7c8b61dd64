"""Coded concepts in DICOM: a structure and, as its modifier, which of a pair or which part of it."""

from __future__ import annotations

from pydicom import Dataset

from napari_sparsetok.labels import Concept, Part

_LONGEST = 64  # characters of a meaning in DICOM

_PARTS: dict[Part, Concept] = {
    "right": Concept("24028007", "SCT", "Right"),
    "left": Concept("7771000", "SCT", "Left"),
    "both": Concept("51440002", "SCT", "Right and left"),
    "anterior": Concept("255549009", "SCT", "Anterior"),
    "posterior": Concept("255551008", "SCT", "Posterior"),
}
_EARLIER = ("G-A100", "G-A101", "G-A102", "R-404CC", "R-404CE")  # the same in SNOMED RT, as older programs write them
_READ: dict[tuple[str, str], Part] = {(code.scheme, code.value): part for part, code in _PARTS.items()}
_READ |= {("SRT", value): part for part, value in zip(_PARTS, _EARLIER, strict=True)}


def coded(concept: Concept) -> Dataset:
    """An item of a sequence of codes: the structure, and which part of it as the modifier of a segmented property."""
    item = _item(concept)
    if concept.part:
        item.SegmentedPropertyTypeModifierCodeSequence = [_item(_PARTS[concept.part])]
    return item


def concept_of(described: Dataset) -> Concept | None:
    """What a segment is: the code of its type, and which part of it, as its type or its anatomic region tells."""
    types = described.get("SegmentedPropertyTypeCodeSequence")
    if not types:
        return None
    words = (types[0].get("CodeValue"), types[0].get("CodingSchemeDesignator"), types[0].get("CodeMeaning"))
    if not all(words):
        return None
    told = {
        *_modifiers(types[0], "SegmentedPropertyTypeModifierCodeSequence"),
        *_modifiers(described, "SegmentedPropertyTypeModifierCodeSequence"),
        *(
            modifier
            for region in described.get("AnatomicRegionSequence") or ()
            for modifier in _modifiers(region, "AnatomicRegionModifierSequence")
        ),
    }
    # What contradicts itself says nothing; the name is left to tell.
    value, scheme, meaning = (str(word) for word in words)
    return Concept(value, scheme, meaning, told.pop() if len(told) == 1 else "")


def _modifiers(item: Dataset, keyword: str) -> list[Part]:
    codes = [(str(x.get("CodingSchemeDesignator")), str(x.get("CodeValue"))) for x in item.get(keyword) or ()]
    return [_READ[code] for code in codes if code in _READ]


def _item(concept: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme
    item.CodeMeaning = concept.meaning[:_LONGEST]
    return item
