"""A model's card: everything about it that is not a weight."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError

FORMAT = 1
_LONGEST = 1 << 20  # bytes
_CROP_SLACK = 1.5  # a scan this much larger than a window is no crop


class CardError(ScanError):
    """A card or its weights that cannot be used, in a sentence."""


@dataclass(frozen=True)
class Body:
    """Where in a scan there is anything to look at: the box around all voxels above a value.

    above : in the units of the scan, Hounsfield units for CT; -500 lies between air and skin.
    margin : millimetres by which the box is widened on every side.

    Raises
    ------
    ValueError : they are not finite numbers, or the margin is negative.
    """

    above: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.above) or not 0 <= self.margin < math.inf:
            raise ValueError(f"a body lies above a number, with a margin of 0 mm or more, not {self}")


def check_labels(labels: LabelTable, one_piece: Sequence[int]) -> None:
    """Look at the labels of a model: the number of one is the place of what the network says of it.

    Raises
    ------
    ValueError : there is a gap in the numbers, or a label of one piece is none of them.
    """
    ids = [label.id for label in labels]
    if ids != list(range(1, len(ids) + 1)):
        raise ValueError(f"the labels of a model are numbered 1, 2, 3 … without a gap, not {ids}")
    if not set(one_piece) <= set(ids):
        raise ValueError(f"labels of one piece are labels that it has, not {tuple(one_piece)}")


def check_grid(spacing: Sequence[float], overlap: float) -> None:
    """Look at the voxels and the windows of a model.

    Raises
    ------
    ValueError : a spacing that is not three positive numbers, or an overlap that is not 0 … below 1.
    """
    numbers = [mm for mm in spacing if isinstance(mm, int | float) and 0 < mm < math.inf]
    if len(spacing) != 3 or len(numbers) != 3:
        raise ValueError(f"the spacing is three positive numbers of millimetres, not {tuple(spacing)}")
    if not 0 <= overlap < 1:
        raise ValueError(f"windows overlap by 0 … below 1 of their sides, not {overlap}")


_TEXTS = ("id", "title", "purpose", "modality", "sha256", "training_data", "licence", "limits")


def _check_kinds(card: Card) -> None:
    """Look at what lists, the panel and the engine read of a card before they load its network."""
    for name in _TEXTS:
        if not isinstance(getattr(card, name), str):
            raise ValueError(f"“{name}” is a text, not {getattr(card, name)!r}")
    if not card.id.isprintable():
        raise ValueError(f"“id” is a name of one line, not {card.id!r}")
    if not all(isinstance(channel, str) for channel in card.channels):
        raise ValueError(f"“channels” are texts, not {card.channels!r}")
    if not (_are_numbers(card.keep_ratios, 2) and 0 < card.keep_ratios[0] <= card.keep_ratios[1] <= 1):
        raise ValueError(f"“keep_ratios” are two numbers that rise, above 0 and at most 1, not {card.keep_ratios}")
    if not isinstance(card.intensity, Mapping):
        raise ValueError(f"“intensity” is a rule by name, not {card.intensity!r}")
    _check_dice(card.dice)
    _check_config(card.config)


def _check_dice(dice: object) -> None:
    by_ratio = dice.get("labels", {}) if isinstance(dice, Mapping) else None
    if not isinstance(by_ratio, Mapping) or not all(
        isinstance(row, list | tuple) and _are_numbers([value for value in row if value is not None])
        for row in by_ratio.values()
    ):
        raise ValueError(f"“dice” has the numbers of each keep ratio under “labels”, not {dice!r}")


def _check_config(config: object) -> None:
    """Only what a card is asked itself; the rest is `SCDConfig`'s to look at, which loads torch."""
    if not isinstance(config, Mapping):
        raise ValueError(f"“config” holds the network's sizes by name, not {config!r}")
    patch, window, after = (config.get(name) for name in ("patch", "window", "prune_after"))
    sizes = [patch, *window] if isinstance(window, list | tuple) and len(window) == 3 else []
    stages = after if isinstance(after, list | tuple) else []
    if not sizes or not stages or not all(type(n) is int and n > 0 for n in [*sizes, *stages]):
        raise ValueError(
            "“config” has a “patch”, a “window” of three sides and blocks to “prune_after”, all whole numbers above 0, "
            f"not {patch!r}, {window!r} and {after!r}"
        )


def _are_numbers(values: object, count: int | None = None) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == (len(values) if count is None else count)
        and all(isinstance(n, int | float) and math.isfinite(n) for n in values)
    )


@dataclass(frozen=True, eq=False)
class Card:
    """What a model is for, what it expects, and how good it was.

    Parameters
    ----------
    id : its name in the registry and on the command line.
    title : its name on screen.
    purpose : one sentence: what it segments, and in which part of the body.
    modality : "MR T1", "CT" …
    channels : what each input channel is.
    spacing : (z, y, x) millimetres between voxels that it works at.
    intensity : rule and parameters; see `napari_sparsetok.engine.intensity`.
    labels : what its output means.
    config : the fields of `napari_sparsetok.model.SCDConfig`.
    overlap : share of a window that its neighbour covers too, 0 … below 1.
    needs_region : whether it was trained on crops, so that a whole scan needs a box first.
    body : windows are laid around the body alone, and all outside them is background; None lays them everywhere.
    one_piece : ids of the labels that are one connected structure in a body: pieces far from the largest are left out.
    keep_ratios : smallest and largest keep ratio met in training.
    training_data, licence, limits : sentences.
    dice : measured, {"split": …, "labels": {keep ratio: [Dice of each label]}}.
    sha256 : of the weights file.
    weights : the weights file.

    Raises
    ------
    ValueError : a value that cannot be.
    """

    id: str
    title: str
    purpose: str
    modality: str
    channels: tuple[str, ...]
    spacing: tuple[float, float, float]
    intensity: Mapping[str, Any]
    labels: LabelTable
    config: Mapping[str, Any]
    sha256: str
    weights: Path
    overlap: float = 0.25
    needs_region: bool = False
    body: Body | None = None
    one_piece: tuple[int, ...] = ()
    keep_ratios: tuple[float, float] = (0.05, 1.0)
    training_data: str = ""
    licence: str = ""
    limits: str = ""
    dice: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_kinds(self)
        check_labels(self.labels, self.one_piece)
        check_grid(self.spacing, self.overlap)

    @property
    def patch(self) -> int:
        """Voxels along the edge of a patch."""
        return int(self.config["patch"])

    @property
    def window(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of the largest input, at the model's spacing."""
        z, y, x = (int(n) for n in self.config["window"])
        return z, y, x

    @property
    def stages(self) -> int:
        """How many times it prunes."""
        return len(self.config["prune_after"])

    @property
    def minimum_kept(self) -> int:
        """The fewest tokens a stage leaves: none only if a class token is there."""
        return 0 if self.config.get("class_token") else 1

    @property
    def window_mm(self) -> tuple[float, float, float]:
        """Extent (z, y, x) of the largest input in millimetres."""
        z, y, x = (n * s for n, s in zip(self.window, self.spacing, strict=True))
        return z, y, x

    def is_too_large(self, extent: Sequence[float]) -> bool:
        """Whether so many millimetres (z, y, x) are more than the crops around one structure that it was trained on."""
        return self.needs_region and any(mm > _CROP_SLACK * w for mm, w in zip(extent, self.window_mm, strict=True))

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read `NAME.json`, whose weights lie beside it as `NAME.safetensors`.

        Raises
        ------
        CardError : the file is not a card, or of a later format.
        """
        try:
            if path.stat().st_size > _LONGEST:
                raise CardError(f"the model card {path.name} is far too long for one; install the model again")
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise CardError(f"the model card {path.name} is of another format; update napari-sparsetok")
            labels = LabelTable.from_json(raw.pop("labels"))
            tuples: dict[str, Any] = {
                key: tuple(raw.pop(key)) for key in ("channels", "spacing", "keep_ratios", "one_piece") if key in raw
            }
            body = raw.pop("body", None)
            return cls(
                labels=labels,
                weights=path.with_suffix(".safetensors"),
                body=None if body is None else Body(**body),
                **tuples,
                **raw,
            )
        except RecursionError:  # brackets within brackets, thousands deep
            raise CardError(f"the model card {path.name} is none; install the model again") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CardError):
                raise
            raise CardError(f"the model card {path.name} cannot be read ({error}); install the model again") from None

    def to_json(self) -> dict[str, Any]:
        """What `read` reads."""
        plain = {key: value for key, value in vars(self).items() if key not in ("weights", "labels", "body")}
        body = {} if self.body is None else {"body": vars(self.body)}
        return {"format": FORMAT, **plain, **body, "labels": self.labels.to_json()}

    def verified_weights(self) -> bytes:
        """The weights file, after its hash was found right.

        Raises
        ------
        CardError : the file is missing or is not the one that the card describes.
        """
        try:
            stored = self.weights.read_bytes()
        except OSError as error:
            raise CardError(
                f"the weights of “{self.title}” cannot be read ({error.strerror}); install the model again"
            ) from None
        if hashlib.sha256(stored).hexdigest() != self.sha256.lower():  # Windows writes hashes in capitals
            raise CardError(
                f"the weights of “{self.title}” are damaged or not the ones its card describes; install the model again"
            )
        return stored
