"""What the numbers in a mask mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's palette, which stays distinct to colour-blind eyes, without its black.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")

Meaning = tuple[tuple[int, str], ...]
"""The numbers and the names of a table."""

NOT_TISSUE = 255
"""In corrections: not any label. No label may have this id."""


Part = Literal["", "left", "right", "both", "anterior", "posterior"]
"""Which of a pair of organs, or which part of one; "" says nothing of it. Sides are the patient's."""


@dataclass(frozen=True)
class Concept:
    """A coded meaning, as DICOM has it: a structure, and which of several that have one code.

    Both parotid glands have one code; without `part` a left one could be taken for the right one.
    """

    value: str
    scheme: str
    meaning: str
    part: Part = ""


@dataclass(frozen=True)
class Label:
    """One structure: the number it has in a mask, its name, and the colour it is drawn in ("#rrggbb")."""

    id: int
    name: str
    color: str
    concept: Concept | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.id < NOT_TISSUE:
            raise ValueError(f"label “{self.name}” has the number {self.id}; labels are numbered 1 to {NOT_TISSUE - 1}")
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.color):
            raise ValueError(f"label “{self.name}” has the colour “{self.color}”; colours are written #rrggbb")

    @classmethod
    def nameless(cls, id: int) -> Label:
        """A label of which only the number is known."""
        return cls(id, f"label {id}", PALETTE[(id - 1) % len(PALETTE)])

    @property
    def is_nameless(self) -> bool:
        """Whether its name says no more than its number."""
        return self.name == f"label {self.id}"


@dataclass(frozen=True)
class LabelTable:
    """The labels of a model or a mask, by rising id. 0 is background and not listed."""

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        ids = [label.id for label in self.labels]
        if ids != sorted(set(ids)):
            raise ValueError(f"label numbers must differ and rise, not {ids}")

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def meaning(self) -> Meaning:
        """What the numbers mean: two tables of the same meaning differ in colours and codes at most."""
        return tuple((label.id, label.name) for label in self.labels)

    @property
    def words(self) -> str:
        """The names, for a sentence."""
        names = [label.name for label in self.labels]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    @classmethod
    def of(cls, names: Sequence[str]) -> LabelTable:
        """Labels 1, 2, … of these names, in the default colours."""
        return cls(tuple(Label(i, n, PALETTE[(i - 1) % len(PALETTE)]) for i, n in enumerate(names, start=1)))

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, object]]) -> LabelTable:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError : a row has no number or name, or they cannot be used.
        """
        if not isinstance(rows, list | tuple):
            raise ValueError("a table of labels is a list of rows")
        return cls(tuple(_label_from(row) for row in rows))

    def to_json(self) -> list[dict[str, object]]:
        """Plain rows for a card or a report."""
        rows: list[dict[str, object]] = []
        for label in self.labels:
            row: dict[str, object] = {"id": label.id, "name": label.name, "color": label.color}
            if label.concept:
                row["concept"] = {key: said for key, said in asdict(label.concept).items() if said or key != "part"}
            rows.append(row)
        return rows


def translated(given: Iterable[Label], own: LabelTable) -> tuple[dict[int, int], list[str]]:
    """What the labels of one table are called by another.

    They are the same if their code or their name is. A code counts only where it names one label of `own`, and where
    both say which part they are, as left or right, that must be the same. A label that has no name but its number keeps
    the number.

    Returns
    -------
    The number in `own` for each number that has one there; the names of the labels that have none.
    """
    numbers: dict[int, int] = {}
    strangers = []
    for label in given:
        found = _counterpart(label, own)
        if found is None:
            strangers.append(label.name)
        else:
            numbers[label.id] = found.id
    return numbers, strangers


def _counterpart(label: Label, own: LabelTable) -> Label | None:
    possible = [x for x in own if _part_of(label) == _part_of(x) or "" in (_part_of(label), _part_of(x))]
    coded = [x for x in possible if _code_of(label) and _code_of(x) == _code_of(label)]
    named = [x for x in possible if x.name.casefold().strip() == label.name.casefold().strip()]
    if label.is_nameless and not named:
        named = [x for x in possible if x.id == label.id]
    both = [x for x in named if x in coded]
    # A label that does not say which of a pair it is may be either: its name decides, not its code.
    exact = [x for x in coded if _part_of(x) in ("", _part_of(label))]
    for found in (both, exact, named):
        if len(found) == 1:
            return found[0]
    return None


def _code_of(label: Label) -> tuple[str, str] | None:
    return (label.concept.scheme, label.concept.value) if label.concept else None


def _part_of(label: Label) -> Part:
    return label.concept.part if label.concept else ""


def _label_from(row: Mapping[str, object]) -> Label:
    match row:
        case {"id": int(number), "name": str(name)} if not isinstance(number, bool):
            color = str(row.get("color") or PALETTE[(number - 1) % len(PALETTE)])
            return Label(number, name, color, _concept_from(row.get("concept")))
    raise ValueError(f"a label of the table cannot be read: {row!r} has no number and name")


def _concept_from(value: object) -> Concept | None:
    match value:
        case None:
            return None
        case {"value": str(code), "scheme": str(scheme), "meaning": str(meaning), **rest}:
            part = rest.get("part", "")
            if part in get_args(Part):
                return Concept(code, scheme, meaning, cast(Part, part))
    raise ValueError(f"a label of the table cannot be read: {value!r} is no coded concept")


def count_labels(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many voxels of a mask have each of the numbers 0 to 255."""
    counts = np.zeros(256, dtype=np.int64)
    for part in mask if mask.ndim > 1 else [mask]:  # numpy counts in eight bytes a voxel, so not all at once
        some = part[part != 0]  # most are 0, and comparing is much quicker than counting
        if some.size:
            counts += np.bincount(some, minlength=256)
    counts[0] = mask.size - counts.sum()
    return counts
