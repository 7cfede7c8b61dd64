"""Which label of one table is which of another: by name as far as names go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from napari_sparsetok.labels import LabelTable


@dataclass(frozen=True)
class Matching:
    """Which of a dataset's labels is which of a table's.

    labels : the dataset's names by number.
    table : the labels that they were matched with.
    numbers : for each of the dataset's numbers the table's; 0 where the table has no such label.
    by : what told. Equal numbers have to do if not one name is the table's.
    """

    labels: Mapping[int, str]
    table: LabelTable
    numbers: Mapping[int, int]
    by: Literal["names", "equal numbers", "given numbers"]

    def __bool__(self) -> bool:
        """Whether they have any label in common."""
        return any(self.numbers.values())

    def __str__(self) -> str:
        """What becomes of which label, in a sentence or two."""
        names = {label.id: label.name for label in self.table}
        pairs = [f"{n} {self.labels[n]} → {k} {names[k]}" for n, k in self.numbers.items() if k]
        if self.by == "names":
            words = [f"labels matched by name: {', '.join(pairs)}"]
        elif self.by == "given numbers":
            words = [f"labels matched by the numbers given: {', '.join(pairs)}"]
        else:
            words = [
                f"no label of the dataset has a name of the model's, so equal numbers were taken to mean the same: "
                f"{', '.join(pairs)}; if that is wrong, mend the names"
            ]
        if lost := [f"{n} {self.labels[n]}" for n, k in self.numbers.items() if not k]:
            words.append(f"not among the model's labels, and background to it: {', '.join(lost)}")
        if missing := [name for k, name in names.items() if k not in self.numbers.values()]:
            words.append(f"not in the dataset, and left open: {', '.join(missing)}")
        return ". ".join(words)


def match(labels: Mapping[int, str], table: LabelTable, given: Mapping[int, int]) -> Matching:
    """Match a dataset's labels with a table's: as given; else by name; by number only if not one name is the table's.

    Parameters
    ----------
    given : from the dataset's numbers to the table's; empty if nobody said so.
    """
    if given:
        return Matching(labels, table, {number: given.get(number, 0) for number in labels}, "given numbers")
    ours = {plain(label.name): label.id for label in table}
    numbers = {number: ours.get(plain(name), 0) for number, name in labels.items()}
    if any(numbers.values()):
        return Matching(labels, table, numbers, "names")
    ids = {label.id for label in table}
    return Matching(labels, table, {n: n if n in ids else 0 for n in labels}, "equal numbers")


def numbered(table: LabelTable, numbers: Sequence[int]) -> dict[int, int]:
    """From numbers in masks to a table's, given in the table's order.

    Raises
    ------
    ValueError : there are more or fewer than the table has labels, or one comes twice.
    """
    if len(numbers) != len(table) or len(set(numbers)) != len(numbers):
        names = ", ".join(label.name for label in table)
        raise ValueError(f"--label-numbers needs one number for each of {names}; {len(numbers)} were given")
    return {number: label.id for number, label in zip(numbers, table, strict=True)}


def plain(name: str) -> str:
    """A name without case, spaces, hyphens and underscores, which nobody writes alike."""
    return "".join(c for c in name.casefold() if c not in "-_" and not c.isspace())
