"""A model's card, for reading."""

from __future__ import annotations

from html import escape

from qtpy.QtWidgets import QWidget

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.ui.page_dialog import PageDialog
from napari_sparsetok.weights import Card


class CardDialog(PageDialog):
    """What a model is for, what it was trained on, how good it was, what it must not be used for."""

    def __init__(self, card: Card, parent: QWidget | None = None) -> None:
        super().__init__(card.title, card_html(card), parent)


def card_html(card: Card) -> str:
    """The card as a page."""
    rows = [
        ("For", card.purpose),
        ("Input", f"{card.modality}; {', '.join(card.channels)}"),
        ("Works at", times_xyz(card.spacing, "{:g}") + " mm"),
        ("Labels", ", ".join(label.name for label in card.labels)),
        ("Keep ratios", f"{card.keep_ratios[0]:g} to {card.keep_ratios[1]:g}, {card.stages} pruning stages"),
        ("Trained on", card.training_data),
        ("Limits", card.limits),
        ("Licence", card.licence),
        ("Weights", f"SHA-256 {card.sha256[:16]}…"),
    ]
    facts = "".join(f"<p><b>{escape(name)}</b><br>{escape(words)}</p>" for name, words in rows if words)
    return f"<h3>{escape(card.title)}</h3>{facts}{_dice_html(card)}"


def _dice_html(card: Card) -> str:
    by_ratio = card.dice.get("labels", {})
    if not by_ratio:
        return ""
    heads = "".join(f"<th align='left'>{escape(label.name)}&nbsp;&nbsp;</th>" for label in card.labels)
    rows = "".join(
        f"<tr><td>{escape(str(ratio))}&nbsp;&nbsp;</td>" + "".join(f"<td>{_number(d)}</td>" for d in values) + "</tr>"
        for ratio, values in by_ratio.items()
    )
    return (
        f"<p><b>Dice on held-out data</b> ({escape(str(card.dice.get('split', '')))})</p>"
        f"<table><tr><th align='left'>Keep ratio&nbsp;&nbsp;</th>{heads}</tr>{rows}</table>"
    )


def _number(dice: float | None) -> str:
    """None of a label that was drawn in no case."""
    return "–" if dice is None else f"{dice:.3f}"
