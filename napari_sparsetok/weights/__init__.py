"""Trained models: bundled ones, a person's own, and the cards that say what they are."""

from napari_sparsetok.weights.card import Body, Card, CardError
from napari_sparsetok.weights.registry import Registry, install, uninstall, user_folder

__all__ = ["Body", "Card", "CardError", "Registry", "install", "uninstall", "user_folder"]
