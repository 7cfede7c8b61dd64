"""A run from a folder of scans to a model: check, propose, train, export."""

from __future__ import annotations

import hashlib
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
from napari_sparsetok.model import SCD, SCDConfig
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import Case, read_case
from napari_sparsetok.training.checkpoint import check_digest
from napari_sparsetok.training.configuration import Recipe, read_recipe
from napari_sparsetok.training.dataset import Dataset
from napari_sparsetok.training.export import export
from napari_sparsetok.training.fingerprint import Fingerprint, fingerprint
from napari_sparsetok.training.loop import CHECKPOINT, Examples, Watch, is_finished, train
from napari_sparsetok.training.matching import numbered, plain
from napari_sparsetok.training.shelf import Shelf
from napari_sparsetok.weights import Card, Registry

CONFIG = "config.json"
CASES = "cases"
FINGERPRINT = "fingerprint.json"
_HEAD = "decoder.out."  # the layer that has a row for each label


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

    def check(self) -> None:
        """Look whether there is such hardware, before a dataset is read for it.

        Raises
        ------
        ScanError : there is not.
        """
        self._made(None)

    def fabric(self, network: SCDConfig | None = None) -> Fabric:
        """Launched: from here on there may be several processes.

        Parameters
        ----------
        network : what will be trained. If it forgets the tokens that it prunes, some weights get no gradient, and
            several processes have to look for them in each step.

        Raises
        ------
        ScanError : there is no such hardware.
        """
        fabric = self._made(network)
        fabric.launch()
        return fabric

    def _made(self, network: SCDConfig | None) -> Fabric:
        several = self.devices * self.nodes > 1
        forgets = network is not None and network.completion == "mask"
        precision = _best_precision(self.accelerator) if self.precision == "auto" else self.precision
        try:
            return Fabric(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.nodes,
                precision=precision,  # type: ignore[arg-type]
                strategy="ddp_find_unused_parameters_true" if several and forgets else "auto",
            )
        except (RuntimeError, ValueError) as error:
            raise ScanError(f"this machine cannot train so ({str(error).splitlines()[0]})") from None


@dataclass(frozen=True)
class Wish:
    """The recipe that somebody asks for.

    recipe : to begin with; None takes the folder's, or else a proposal.
    steps, minutes, seed : instead of the recipe's; None leaves them.
    name : the model's id, instead of the recipe's, if it is not empty.
    numbers : what the masks call the recipe's labels, in its order; empty if the recipe knows.
    """

    recipe: Recipe | None = None
    steps: int | None = None
    minutes: float | None = None
    seed: int | None = None
    name: str = ""
    numbers: tuple[int, ...] = ()

    def changed(self, recipe: Recipe) -> Recipe:
        """A recipe with what was asked for.

        Raises
        ------
        ValueError : there are more or fewer numbers than labels.
        """
        given = {"steps": self.steps, "minutes": self.minutes, "seed": self.seed}
        training = replace(recipe.training, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        about = {**recipe.about, "id": self.name} if self.name else recipe.about
        numbers = numbered(recipe.labels, self.numbers) if self.numbers else recipe.numbers
        return replace(recipe, training=training, about=about, numbers=numbers)


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


def known_recipe(wish: Wish, out: Path) -> Recipe | None:
    """The recipe that a run will have: the one given, else the one in its folder; None if one is to be proposed.

    Raises
    ------
    ScanError : the folder's recipe cannot be read, is not the one that was given, or a run of another lies there.
    ValueError : the wish does not fit the recipe.
    """
    path = out / CONFIG
    lying = read_recipe(path) if path.exists() else None
    first = wish.recipe or lying
    if first is None:
        if wish.numbers:
            raise ValueError("--label-numbers is for a recipe that was given; without one they are found in the masks")
        return None
    recipe = wish.changed(first)
    _check_run(recipe, out)
    if lying is not None and lying.digest not in (first.digest, recipe.digest):
        raise ScanError(
            f"{out.name}/{CONFIG} is not the recipe that was given; leave --config and --preset out to train by what "
            "is written there, or choose another folder"
        )
    return recipe


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Write a run's recipe to its folder, unless a run of another one lies there.

    Raises
    ------
    ScanError : one does, or the disk refuses.
    """
    _check_run(recipe, out)
    with written_whole(out / CONFIG) as temporary:
        temporary.write_text(json.dumps(recipe.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_run(recipe: Recipe, out: Path) -> None:
    if (out / CHECKPOINT).exists():
        check_digest(out / CHECKPOINT, recipe.digest)


def run(
    dataset: Dataset, recipe: Recipe, out: Path, *, hardware: Hardware, init: str = "", feedback: Feedback
) -> Card | None:
    """Train, or go on where a run was cut off, and write the model to `out`/model. None on all but the first process.

    Raises
    ------
    ScanError : a file cannot be read, `init` is no model, or the disk refuses.
    """
    named = dataset.named(recipe.labels, recipe.numbers)
    feedback.on_notice(str(named.matching(recipe.labels)))
    start = starting_weights(init, recipe, feedback.on_notice) if init else None
    fabric = hardware.fabric(recipe.network)
    shelf = Shelf(out / f"{CASES}-{fabric.node_rank}", fabric.local_rank, hardware.devices)
    try:
        cases, val = _shelved(named, recipe, feedback, shelf, fabric)
        watched = val[: recipe.training.evaluate_cases]
        if fabric.is_global_zero and is_finished(out, recipe.training):
            feedback.on_notice(
                f"the run in {out.name} was finished before: nothing is trained, its model is written again"
            )
        examples = Examples(cases, watched, _digest(named))
        model = train(fabric, recipe, examples, out, init=start, watch=feedback.training)
        return export(recipe, model.cpu(), val, out / "model") if fabric.is_global_zero else None
    finally:
        if fabric.local_rank == 0:
            shelf.clear()


def _digest(dataset: Dataset) -> str:
    """Tells what is learnt from and measured on from other cases: by their names, and how long their files are."""
    cases = {
        split: [[item.name, *(path.stat().st_size for path in (*item.images, item.label))] for item in items]
        for split, items in dataset.splits.items()
        if split in ("train", "val")
    }
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


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
    heads = [key for key in old if key.startswith(_HEAD)]
    same_width = all(old[key].shape[1:] == new[key].shape[1:] for key in heads)
    rows = _rows(card.labels, recipe.labels) if same_width else []
    on_notice(_words_on(rows, recipe.labels, card.title))
    if others := [key for key in new if key not in fits and not key.startswith(_HEAD)]:
        on_notice(
            f"{len(others)} of {len(new)} weights have another size in “{card.title}”, or are not there, and start at "
            f"random: {', '.join(others[:3])}{' …' if len(others) > 3 else ''}"
        )
    for key in heads:
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


def _shelved(
    dataset: Dataset, recipe: Recipe, feedback: Feedback, shelf: Shelf, fabric: Fabric
) -> tuple[list[Case], list[Case]]:
    """The cases to learn from and those held out, prepared one at a time, by all processes of a machine together."""
    if fabric.local_rank == 0:
        shelf.clear()  # of what a kill left
    fabric.barrier()
    numbers = dataset.matching(recipe.labels).numbers
    train_items = [(f"train_{k:05d}", item) for k, item in enumerate(dataset["train"])]
    val_items = [(f"val_{k:05d}", item) for k, item in enumerate(dataset.splits.get("val", ()))]
    mine = [*train_items, *val_items][shelf.part :: shelf.parts]
    for done, (place, item) in enumerate(mine):
        feedback.on_reading(done, len(mine))
        shelf.put(place, read_case(item, numbers, recipe.labels, recipe.preparation))
    feedback.on_reading(len(mine), len(mine))
    fabric.barrier()
    taken = [[shelf.take(place, item.name) for place, item in items] for items in (train_items, val_items)]
    return taken[0], taken[1]


def _best_precision(accelerator: str) -> str:
    """Bfloat16 where the chip has it, as it costs nothing in quality; else float32."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
