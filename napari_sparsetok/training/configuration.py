"""How a model is trained: everything that a person may want to change, in one file that can be edited."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_sparsetok.engine.intensity import check_rule
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.model import SCDConfig
from napari_sparsetok.scan import ScanError
from napari_sparsetok.weights import Body, check_grid, check_labels, is_id

FORMAT = 1
PRESETS = Path(__file__).parent / "recipes"
"""The recipes of the bundled models."""

Sides = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how hard to train.

    minutes : if not 0, the run ends by then, and the rate falls by whichever of the two is further.
    accumulate : batches whose gradients make one step.
    windows : sides that a window may have along z, y, x; each step draws one of each.
    foreground_share : share of the windows that are laid around a labelled voxel, of each label equally often.
    ratios, min_keep, dense_share : see `objective.draw_keep_ratios`.
    distillation : weight of the divergence from the dense prediction; needs the sandwich rule.
    score_weight : weight of the cross-entropy between a token's score and whether it touches a label.
        The published loss has none of it; see docs/experiments.md for why it is here.
    balance : how much more a voxel of a rare label counts in the cross-entropy, from 0 (none) to 1 (as much more as it
        is rarer); see `loss.label_weights`.
    deep_supervision : what the loss of the decoder's features at half resolution counts beside that of the prediction.
    average_decay : of the moving average of the weights, which is what a run ends with.
    mirror : exchange left and right in half of the windows.
    swap : labels that change places when left and right do.
    evaluate_every, evaluate_cases : steps between looks at the val split, and how many of its cases are looked at.
    checkpoint_seconds : a run that is killed loses no more than this.

    Raises
    ------
    ValueError : a value that cannot be.
    """

    steps: int = 4000
    minutes: float = 0.0
    batch: int = 4
    accumulate: int = 1
    rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 150
    clip: float = 1.0
    windows: Sides = ((32, 36, 40), (44, 48, 52), (32, 36, 40))
    foreground_share: float = 0.0
    ratios: Literal["random", "sandwich", "fixed"] = "random"
    min_keep: float = 0.05
    dense_share: float = 0.2
    distillation: float = 0.0
    score_weight: float = 0.1
    balance: float = 0.0
    deep_supervision: float = 0.0
    average_decay: float = 0.998
    mirror: bool = False
    swap: tuple[tuple[int, int], ...] = ()
    seed: int = 0
    evaluate_every: int = 400
    evaluate_cases: int = 6
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.accumulate, self.evaluate_every) < 1:
            raise ValueError("steps, batch, accumulate and evaluate_every must be 1 or more")
        if not 0 < self.min_keep <= 1:
            raise ValueError(f"min_keep must be above 0 and at most 1, not {self.min_keep}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance must be between 0 and 1, not {self.balance}")
        if self.deep_supervision < 0:
            raise ValueError(f"deep_supervision must be 0 or more, not {self.deep_supervision}")
        if self.ratios not in ("random", "sandwich", "fixed"):
            raise ValueError(f"ratios is “random”, “sandwich” or “fixed”, not “{self.ratios}”")
        if self.distillation and self.ratios != "sandwich":
            raise ValueError("distillation needs the dense prediction of the same windows: set ratios to “sandwich”")


@dataclass(frozen=True)
class Preparation:
    """How a scan becomes what the network sees; the same words as on a model's card.

    spacing : mm between voxels, (z, y, x).
    intensity : rule of `engine.intensity`.
    body : crop to the box around the body; None takes all.
    """

    spacing: tuple[float, float, float]
    intensity: Mapping[str, Any]
    body: Body | None = None


@dataclass(frozen=True)
class Recipe:
    """All that makes a model, but for the scans.

    about : what a person knows of it, as on its card: id, title, purpose, modality, training_data, licence, limits.
    labels : what the network tells apart, matched to the dataset's by name, else by number.
    numbers : from the numbers in a dataset's masks to the labels', whatever it calls them. Empty if its names tell, or
        if they are the same.
    overlap, needs_region, one_piece : as on the card.
    """

    about: Mapping[str, str]
    channels: tuple[str, ...]
    labels: LabelTable
    preparation: Preparation
    network: SCDConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    overlap: float = 0.25
    needs_region: bool = False
    one_piece: tuple[int, ...] = ()
    numbers: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.network
        if not is_id(str(self.about.get("id", ""))):
            raise ValueError(f"“{self.about.get('id', '')}” cannot be a model's id; use letters, digits and dashes")
        if not set(self.numbers.values()) <= {label.id for label in self.labels}:
            raise ValueError(f"the numbers of a recipe stand for labels that it has, not {dict(self.numbers)}")
        check_labels(self.labels, self.one_piece)
        check_grid(self.preparation.spacing, self.overlap)
        check_rule(self.preparation.intensity, cropped=self.preparation.body is not None)
        if network.in_channels != len(self.channels) or network.out_channels != len(self.labels) + 1:
            raise ValueError(
                f"{len(self.channels)} channel(s) and {len(self.labels)} label(s) need a network of as many "
                f"in_channels and one more out_channels, not {network.in_channels} and {network.out_channels}"
            )
        if any(side % network.patch for sides in self.training.windows for side in sides):
            raise ValueError(f"every side of a window must be a multiple of the patch, {network.patch} voxels")

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        plain = {**dataclasses.asdict(self), "labels": self.labels.to_json()}
        # As recipes were before there were these, so that their runs go on.
        for key in ("numbers", "one_piece"):
            if not plain[key]:
                del plain[key]
        if not self.training.deep_supervision:
            del plain["training"]["deep_supervision"]
        if self.network.empty is None:
            del plain["network"]["empty"]
        return {"format": FORMAT, **plain}

    @property
    def digest(self) -> str:
        """Tells whether two runs are of one recipe."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Recipe:
        """A recipe from what was read of a file.

        Raises
        ------
        KeyError, TypeError, ValueError : it is none.
        """
        given = dict(raw)
        if given.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        preparation = dict(given.pop("preparation"))
        body = preparation.pop("body", None)
        spacing = tuple(preparation.pop("spacing"))
        return cls(
            channels=tuple(given.pop("channels")),
            labels=LabelTable.from_json(given.pop("labels")),
            preparation=Preparation(spacing=spacing, body=Body(**body) if body else None, **preparation),
            network=SCDConfig(**_tuples(given.pop("network"))),
            training=TrainingConfig(**_tuples(given.pop("training", {}))),
            one_piece=tuple(given.pop("one_piece", ())),
            numbers={int(theirs): int(ours) for theirs, ours in given.pop("numbers", {}).items()},
            **given,
        )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ScanError : it cannot be read; says which entry is wrong.
    """
    try:
        return Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise ScanError(f"the recipe {path.name} lacks {error}") from None
    except (OSError, TypeError, ValueError) as error:
        words = str(error).replace("__init__() got an unexpected keyword argument", "there is no entry")
        raise ScanError(f"the recipe {path.name} cannot be used: {words}") from None


def preset(name: str) -> Recipe:
    """The recipe of a bundled model.

    Raises
    ------
    ScanError : there is none of this name.
    """
    path = PRESETS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.json")))
        raise ScanError(f"there is no preset “{name}”; there are {known}")
    return read_recipe(path)


def _tuples(raw: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: its lists become some, all the way down."""

    def made(value: Any) -> Any:
        return tuple(made(v) for v in value) if isinstance(value, list) else value

    return {key: made(value) for key, value in raw.items()}
