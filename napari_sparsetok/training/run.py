"""A run from a folder of scans to a model: check, propose, train, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from napari_sparsetok.engine.segmenter import load_model
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.model import SCD
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import Case, read_case
from napari_sparsetok.training.configuration import Recipe, read_recipe
from napari_sparsetok.training.dataset import Dataset
from napari_sparsetok.training.export import export
from napari_sparsetok.training.fingerprint import Fingerprint, fingerprint, propose
from napari_sparsetok.training.loop import Examples, Watch, train
from napari_sparsetok.training.matching import plain
from napari_sparsetok.weights import Card, Registry

CONFIG = "config.json"
FINGERPRINT = "fingerprint.json"


class DatasetProblems(ScanError):
    """All that is wrong with a dataset, in one list."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(problems)} problem(s) with this dataset: " + "; ".join(problems))


@dataclass(frozen=True)
class Hardware:
    """What a run computes on; words of Lightning Fabric.

    accelerator : "auto", "cpu", "cuda" …
    devices, nodes : how many of them, on how many machines.
    precision : "auto", "32-true", "bf16-mixed", "16-mixed".
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "auto"

    def fabric(self) -> Fabric:
        """Launched: from here on there may be several processes."""
        precision = _best_precision(self.accelerator) if self.precision == "auto" else self.precision
        fabric = Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            precision=precision,  # type: ignore[arg-type]
        )
        fabric.launch()
        return fabric


@dataclass(frozen=True)
class Feedback:
    """Who is told what happens.

    on_reading : cases read, cases in all.
    on_notice : a sentence.
    """

    on_reading: Callable[[int, int], None] = lambda done, total: None
    on_notice: Callable[[str], None] = lambda text: None
    training: Watch = field(default_factory=Watch)


def check(dataset: Dataset, out: Path, skip_bad: bool, feedback: Feedback) -> tuple[Dataset, Fingerprint]:
    """Read all of a dataset before anything is trained; leave its bad cases out, if that was asked for.

    Raises
    ------
    DatasetProblems : something is wrong with it.
    """
    found = fingerprint(dataset, feedback.on_reading)
    with written_whole(out / FINGERPRINT) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    if not found.problems:
        return dataset, found
    if not skip_bad:
        raise DatasetProblems(found.problems)
    feedback.on_notice(f"left out {len(found.bad)} case(s): " + "; ".join(found.problems))
    splits = {name: tuple(i for i in items if i.name not in found.bad) for name, items in dataset.splits.items()}
    if not splits.get("train"):
        raise ScanError("no case is left to train on")
    return replace(dataset, splits=splits), found


def settle(given: Recipe | None, dataset: Dataset, found: Fingerprint, out: Path) -> Recipe:
    """The run's recipe: the one that was given, else the one that lies in its folder, else a proposal; written there.

    Raises
    ------
    ScanError : the folder's recipe cannot be read, or the folder cannot be written.
    """
    path = out / CONFIG
    recipe = given or (read_recipe(path) if path.exists() else propose(dataset, found, out.resolve().name))
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(recipe.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return recipe


def run(
    dataset: Dataset, recipe: Recipe, out: Path, *, hardware: Hardware, init: str = "", feedback: Feedback
) -> Card | None:
    """Train, or go on where a run was cut off, and write the model to `out`/model. None on all but the first process.

    Raises
    ------
    ScanError : a file cannot be read, `init` is no model, or the disk refuses.
    """
    named = dataset if dataset.labels else replace(dataset, labels={label.id: label.name for label in recipe.labels})
    feedback.on_notice(str(named.matching(recipe.labels)))
    start = starting_weights(init, recipe, feedback.on_notice) if init else None
    cases = read_split(named, "train", recipe, feedback)
    val = read_split(named, "val", recipe, feedback) if named.splits.get("val") else []
    fabric = hardware.fabric()
    watched = val[: recipe.training.evaluate_cases]
    model = train(fabric, recipe, Examples(cases, watched), out, init=start, watch=feedback.training)
    return export(recipe, model.cpu(), val, out / "model") if fabric.is_global_zero else None


def starting_weights(
    init: str, recipe: Recipe, on_notice: Callable[[str], None] = lambda text: None
) -> dict[str, Tensor]:
    """Weights of a model to start from; what it lacks starts at random.

    The last layer has a row for each label: rows are matched by the labels' names, and new labels get new ones.

    Parameters
    ----------
    init : the id of an installed model, or a card's path.
    on_notice : told which labels start from it, and which at random.

    Raises
    ------
    ScanError : there is no such model, or nothing of it fits the recipe's network.
    """
    path = Path(init)
    card = Card.read(path) if path.suffix == ".json" and path.is_file() else Registry()[init]
    torch.manual_seed(recipe.training.seed)
    new, old = SCD(recipe.network).state_dict(), load_model(card).state_dict()
    fits = {key: value for key, value in old.items() if key in new and new[key].shape == value.shape}
    if len(fits) < len(new) // 2:
        raise ScanError(
            f"the network of “{card.title}” is not the recipe's; give the recipe its width, depth and patch"
        )
    rows = _rows(card.labels, recipe.labels)
    on_notice(_words_on(rows, recipe.labels, card.title))
    for key in (key for key in old if key.startswith("decoder.out.")):
        head = new[key].clone()
        for theirs, ours in rows:
            head[ours] = old[key][theirs]
        fits[key] = head
    return fits


def _rows(old: LabelTable, new: LabelTable) -> list[tuple[int, int]]:
    """Rows of the last layer that mean the same: background, and labels of one name."""
    known = {plain(label.name): k for k, label in enumerate(old, start=1)}
    same = [(known.get(plain(label.name), 0), k) for k, label in enumerate(new, start=1)]
    return [(0, 0), *((theirs, ours) for theirs, ours in same if theirs)]


def _words_on(rows: Sequence[tuple[int, int]], labels: LabelTable, title: str) -> str:
    """Which labels start from a model, and which do not."""
    known = {ours for _, ours in rows}
    old = [label.name for k, label in enumerate(labels, start=1) if k in known]
    new = [label.name for k, label in enumerate(labels, start=1) if k not in known]
    words = f"labels that start from “{title}”: {', '.join(old) or 'none'}"
    return f"{words}; labels that start at random: {', '.join(new)}" if new else words


def read_split(dataset: Dataset, split: str, recipe: Recipe, feedback: Feedback) -> list[Case]:
    """All cases of a split, in memory.

    Raises
    ------
    ScanError : there is no such split, the labels have nothing in common with the recipe's, or a file cannot be read.
    """
    items = dataset[split]
    numbers = dataset.matching(recipe.labels).numbers
    cases = []
    for done, item in enumerate(items):
        feedback.on_reading(done, len(items))
        cases.append(read_case(item, numbers, recipe.labels, recipe.preparation))
    feedback.on_reading(len(items), len(items))
    return cases


def _best_precision(accelerator: str) -> str:
    """Bfloat16 where the chip has it, as it costs nothing in quality; else float32."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
