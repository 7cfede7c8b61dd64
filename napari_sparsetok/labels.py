"""What the numbers in a mask mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# Okabe and Ito's palette, which stays distinct to colour-blind eyes, without its black.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")

NOT_TISSUE = 255
"""In corrections: not any label. No label may have this id."""


@dataclass(frozen=True)
class Concept:
    """A coded meaning, as DICOM has it."""

    value: str
    scheme: str
    meaning: str


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

    @classmethod
    def of(cls, names: Sequence[str]) -> LabelTable:
        """Labels 1, 2, … of these names, in the default colours."""
        return cls(tuple(Label(i, n, PALETTE[(i - 1) % len(PALETTE)]) for i, n in enumerate(names, start=1)))

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, object]]) -> LabelTable:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError : a row has no number or name.
        """
        try:
            return cls(tuple(_label_from(row) for row in rows))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a label of the table cannot be read: {error}") from None

    def to_json(self) -> list[dict[str, object]]:
        """Plain rows for a card or a report."""
        rows: list[dict[str, object]] = []
        for label in self.labels:
            row: dict[str, object] = {"id": label.id, "name": label.name, "color": label.color}
            if label.concept:
                row["concept"] = vars(label.concept)
            rows.append(row)
        return rows


def _label_from(row: Mapping[str, object]) -> Label:
    concept = row.get("concept")
    number = int(str(row["id"]))
    color = str(row.get("color") or PALETTE[(number - 1) % len(PALETTE)])
    return Label(number, str(row["name"]), color, Concept(**concept) if isinstance(concept, dict) else None)
