"""Finding models: beside this file, in the person's data folder, and where SPARSETOK_MODELS says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.weights.card import Card, CardError

BUNDLED = Path(__file__).parent


def user_folder() -> Path:
    """Where a person's own models are kept."""
    return platformdirs.user_data_path("napari-sparsetok", appauthor=False) / "models"


def _default_folders() -> list[Path]:
    named = os.environ.get("SPARSETOK_MODELS", "")
    return [BUNDLED, user_folder(), *(Path(p) for p in named.split(os.pathsep) if p)]


class Registry:
    """The models that there are, by id; one of a later folder replaces one of the same id.

    problems : sentences about folders and cards that could not be read.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self.cards: dict[str, Card] = {}
        self.problems: list[str] = []
        for folder in _default_folders() if folders is None else folders:
            self.cards |= self._cards_of(folder)

    def _cards_of(self, folder: Path) -> dict[str, Card]:
        """The cards of a folder by id. Of two of one id that counts whose file is called so, not a copy beside it."""
        found: dict[str, Card] = {}
        for path in self._files_in(folder):
            card = self._read(path)
            if card is None:
                continue
            if card.id in found:
                card = max(found[card.id], card, key=lambda one: one.weights.stem == one.id)
                kept = card.weights.with_suffix(".json").name
                self.problems.append(f"two model cards in {folder} have the id “{card.id}”; {kept} is used")
            found[card.id] = card
        return found

    def _files_in(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.glob("*.json"))
        except OSError as error:  # a network drive that has gone, say: the other models are still there
            self.problems.append(f"the models in {folder} cannot be read ({error.strerror}); look whether it is there")
            return []

    def _read(self, path: Path) -> Card | None:
        try:
            return Card.read(path)
        except CardError as error:
            self.problems.append(str(error))
            return None

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


def is_id(text: str) -> bool:
    """Whether a model may be called so: its files are."""
    return bool(text) and text == Path(text).name and not text.startswith(".")


def install(card: Card, folder: Path | None = None, replace: bool = False) -> Card:
    """Copy a model to the person's own; what is there is only replaced if that was asked for.

    Raises
    ------
    CardError : its id is taken, or is no file name; its weights are damaged.
    ScanError : the disk refuses.
    """
    folder = folder or user_folder()
    if not is_id(card.id):
        raise CardError(f"“{card.id}” cannot be a model's id; use letters, digits and dashes")
    path = folder / f"{card.id}.json"
    if (BUNDLED / path.name).exists():
        raise CardError(f"“{card.id}” is the id of a bundled model; give yours another id in its card")
    if path.exists() and not replace:
        raise CardError(f"there is a model “{card.id}” already; replace it with --replace, or give this one another id")
    stored = card.verified_weights()
    words = "the model could not be installed ({}); nothing was changed"
    text = json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n"
    # Both are on the disk before either takes its place, or new weights would lie beside an old card.
    with written_whole(path, words=words) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with written_whole(path.with_suffix(".safetensors"), words=words) as weights:
            weights.write_bytes(stored)
    return Card.read(path)


def uninstall(model: str, folder: Path | None = None) -> None:
    """Remove one of the person's own models.

    Raises
    ------
    CardError : there is none of this id among them, or the disk refuses.
    """
    path = (folder or user_folder()) / f"{model}.json"
    if model != Path(model).name or not path.is_file():
        raise CardError(f"there is no model “{model}” among those that were added; bundled models cannot be removed")
    try:
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise CardError(
            f"“{model}” could not be removed ({error.strerror}); its files are {path} and the .safetensors beside it"
        ) from None
