"""Finding models: beside this file, in the person's data folder, and where SPARSETOK_MODELS says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from napari_sparsetok.weights.card import Card, CardError

BUNDLED = Path(__file__).parent


def user_folder() -> Path:
    """Where a person's own models are kept."""
    return platformdirs.user_data_path("napari-sparsetok", appauthor=False) / "models"


def _default_folders() -> list[Path]:
    named = os.environ.get("SPARSETOK_MODELS", "")
    return [BUNDLED, user_folder(), *(Path(p) for p in named.split(os.pathsep) if p)]


class Registry:
    """The models that there are, by id; one found later replaces an earlier one of the same id.

    problems : sentences about cards that could not be read.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self.cards: dict[str, Card] = {}
        self.problems: list[str] = []
        for folder in _default_folders() if folders is None else folders:
            for path in sorted(folder.glob("*.json")):
                self._add(path)

    def _add(self, path: Path) -> None:
        try:
            card = Card.read(path)
        except CardError as error:
            self.problems.append(str(error))
        else:
            self.cards[card.id] = card

    def __getitem__(self, model: str) -> Card:
        """The card of a model.

        Raises
        ------
        CardError : there is none of this id.
        """
        if model not in self.cards:
            known = ", ".join(sorted(self.cards)) or "none"
            raise CardError(f"there is no model “{model}”; known models: {known}")
        return self.cards[model]
