"""Trained models: bundled ones, a person's own, and the cards that say what they are."""

from napari_sparsetok.weights.card import Body, Card, CardError, check_grid, check_labels
from napari_sparsetok.weights.registry import Registry, install, is_id, uninstall, user_folder

__all__ = [
    "Body",
    "Card",
    "CardError",
    "Registry",
    "check_grid",
    "check_labels",
    "install",
    "is_id",
    "uninstall",
    "user_folder",
]
