"""Training a model and measuring it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from napari_sparsetok.cli.app import app
from napari_sparsetok.cli.main_job import ReplaceNonfinite
from napari_sparsetok.cli.printing import AsJson, print_json, print_table, table

if TYPE_CHECKING:
    from napari_sparsetok.training.configuration import Recipe
    from napari_sparsetok.training.dataset import Dataset
    from napari_sparsetok.training.evaluation import Failed
    from napari_sparsetok.training.run import Feedback, Wish
    from napari_sparsetok.weights import Card

DatasetFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="A folder in the layout of the Medical Segmentation Decathlon or of nnU-Net, or any."
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--images", metavar="PATTERN", help="Image files, as “scans/*.nii.gz”; once for each channel."),
]
Labels = Annotated[str, typer.Option("--labels", metavar="PATTERN", help="Their label files, as “masks/*.nii.gz”.")]

LabelNumbers = Annotated[
    str,
    typer.Option(
        metavar="N,N,…",
        help="What the masks call the model's labels, in its order, if neither names nor 1, 2, … tell.",
    ),
]


@app.command()
def train(  # noqa: PLR0913 - options of a command line
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run's folder; a run that was cut off goes on.")],
    init: Annotated[str, typer.Option(metavar="MODEL", help="A model to start from: its id, or its card's path.")] = "",
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A recipe; see RUN/config.json for one.")] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help="The recipe of a bundled model.")] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="The model's id, instead of the recipe's.")] = "",
    images: Images = None,
    labels: Labels = "",
    label_numbers: LabelNumbers = "",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only check the dataset and write a recipe to edit.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out cases with problems.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps, instead of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="End by then, the rate at its end.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or processes) on each machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; start each with torchrun.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, bf16-mixed, 16-mixed or 32-true.")] = "auto",
) -> None:
    """Train a model on labelled scans, so that it is good at every keep ratio.

    The dataset is read and checked first. Without a recipe one is proposed from what was found, and written to
    RUN/config.json, to be edited. The same command goes on with a run that was cut off. The model ends up in
    RUN/model; `sparsetok models add RUN/model/NAME.json` installs it.
    """
    from napari_sparsetok.training import run
    from napari_sparsetok.training.configuration import preset as preset_of
    from napari_sparsetok.training.configuration import read_recipe
    from napari_sparsetok.training.dataset import open_dataset

    if config and preset:
        raise ValueError("give --config or --preset, not both")
    opened = open_dataset(dataset, images or (), labels)
    given = read_recipe(config) if config else preset_of(preset) if preset else None
    wish = run.Wish(given, steps, minutes, seed, name, _whole_numbers(label_numbers))
    hardware = run.Hardware(accelerator, devices, nodes, precision)
    hardware.check()
    with _feedback() as feedback:
        opened, recipe = _settled(opened, wish, out, skip_bad, feedback)
        if prepare:
            feedback.on_notice(f"the recipe is in {out / run.CONFIG}; edit it, and train without --config and --preset")
            return
        try:
            card = run.run(opened, recipe, out, hardware=hardware, init=init, feedback=feedback)
        except KeyboardInterrupt:
            feedback.on_notice("stopped; the same command goes on from the last checkpoint")
            raise typer.Exit(130) from None
    if card is not None:
        _print_made(card, out)


def _settled(dataset: Dataset, wish: Wish, out: Path, skip_bad: bool, feedback: Feedback) -> tuple[Dataset, Recipe]:
    """The dataset, checked, and the recipe, written to the run's folder."""
    from napari_sparsetok.training import run
    from napari_sparsetok.training.fingerprint import propose

    recipe = run.known_recipe(wish, out)
    named = dataset.named(recipe.labels, recipe.numbers) if recipe else dataset
    try:
        checked, found = run.check(named, out, skip_bad, feedback)
    except run.DatasetProblems as error:
        typer.echo(f"sparsetok: {len(error.problems)} problem(s) with this dataset:", err=True)
        for words in error.problems:
            typer.echo(f"  {words}", err=True)
        typer.echo("Mend them, or leave these cases out with --skip-bad.", err=True)
        raise typer.Exit(2) from None
    recipe = recipe or wish.changed(propose(checked, found, out.resolve().name))
    run.write_recipe(recipe, out)
    return checked, recipe


@contextmanager
def _feedback() -> Iterator[Feedback]:
    """A live display of what a run does, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from napari_sparsetok.training.journal import Step
    from napari_sparsetok.training.loop import Watch
    from napari_sparsetok.training.run import Feedback

    # Of several processes the first one speaks.
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    console = Console(stderr=True, highlight=False, quiet=not first)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console, disable=not first) as bar:
        reading = bar.add_task("reading", total=None, words="", visible=False)
        training = bar.add_task("training", total=None, words="", visible=False)

        def on_step(step: Step) -> None:
            words = (
                f"loss {step.loss:.3f} at keep ratio {step.keep_ratio:.2f} · {_clock(step.left)} left · "
                f"{step.memory / 2**30:.1f} GiB"
            )
            bar.update(training, completed=step.step, total=step.steps, words=words, visible=True)

        def on_dice(step: int, keep_ratio: float, dice: Sequence[float]) -> None:
            values = " ".join(f"{d:.3f}" for d in dice)
            console.print(f"step {step}: Dice at keep ratio {keep_ratio:g}: {values}")

        yield Feedback(
            on_reading=lambda done, total: bar.update(
                reading, completed=done, total=total or None, visible=done < total
            ),
            on_notice=lambda text: console.print(text, soft_wrap=True),
            training=Watch(on_step, on_dice),
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _whole_numbers(text: str) -> tuple[int, ...]:
    from napari_sparsetok.batch import numbers

    hint = f"“{text}” is no list of label numbers; write it as 1,2,4"
    found = numbers(text, ",", None, hint) if text else []
    if any(n != int(n) for n in found):
        raise ValueError(hint)
    return tuple(map(int, found))


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _print_made(card: Card, out: Path) -> None:
    measured = card.dice.get("labels", {})
    rows = [
        ("model", f"{out / 'model' / card.id}.safetensors, {card.weights.stat().st_size / 1e6:.1f} MB"),
        *((f"Dice at keep ratio {ratio}", _values(values)) for ratio, values in measured.items()),
        ("install it", f"sparsetok models add {out / 'model' / card.id}.json"),
    ]
    print_table(table(f"Trained {card.title}", rows))


def _values(values: Sequence[float | None]) -> str:
    return "  ".join("not drawn" if v is None else f"{v:.3f}" for v in values)


@app.command()
def evaluate(  # noqa: PLR0913 - options of a command line
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Which model; see `sparsetok models`.")],
    dataset: DatasetFolder,
    split: Annotated[str, typer.Option(help="Which of the dataset's splits.")] = "val",
    keep_ratios: Annotated[
        str, typer.Option(metavar="R,R,…", help="Keep ratios to measure at.")
    ] = "1,0.75,0.5,0.25,0.1,0.05",
    selection: Annotated[
        str,
        typer.Option(metavar="S,S,…", help="What picks the tokens: learned, random, norm, attention, entropy, oracle."),
    ] = "learned",
    stage_ratios: Annotated[
        str, typer.Option(metavar="R,R,…", help="Besides, a keep ratio for each stage, as 0.5,0.25.")
    ] = "",
    threshold: Annotated[
        float | None, typer.Option(help="Besides, keep what scores at least this, in the units of the selection.")
    ] = None,
    deletion: Annotated[
        str, typer.Option(metavar="S,S,…", help="Shares of the tokens to take away in the deletion test.")
    ] = "",
    replace_nonfinite: ReplaceNonfinite = None,
    images: Images = None,
    labels: Labels = "",
    label_numbers: LabelNumbers = "",
    plot: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Draw Dice against keep ratio: .png, .svg or .pdf.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print paragraphs, as Markdown needs them.")] = False,
) -> None:
    """Measure a model on labelled scans, at several keep ratios.

    A case that cannot be measured is named and left out; then the exit code is 1, or 2 if none can.
    """
    from napari_sparsetok.batch import numbers
    from napari_sparsetok.state import Selection
    from napari_sparsetok.training import evaluation, evaluation_words
    from napari_sparsetok.training.dataset import open_dataset
    from napari_sparsetok.training.plan import Plan
    from napari_sparsetok.weights import Registry

    if plot is not None:
        from napari_sparsetok.training.plot import check_kind, plot_dice

        check_kind(plot)

    ratios, staged = (
        numbers(text, ",", None, f"“{text}” is no list of keep ratios; write it as 1,0.5,0.25") if text else ()
        for text in (keep_ratios or "none", stage_ratios)
    )
    shares = numbers(deletion, ",", None, f"“{deletion}” is no list of shares; write it as 0.5,0.9") if deletion else ()
    selections = tuple(one.strip() for one in selection.split(","))
    if unknown := [one for one in selections if one not in get_args(Selection)]:
        raise ValueError(f"there is no selection “{unknown[0]}”; there are {', '.join(get_args(Selection))}")
    plan = Plan(ratios, cast("tuple[Selection, ...]", selections), shares, staged, threshold, replace_nonfinite)
    opened = open_dataset(dataset, images or (), labels)
    theirs = _whole_numbers(label_numbers)
    truths = evaluation.read_truths(opened, split, Registry()[model], numbers=theirs, on_notice=_say)
    document = evaluation.evaluate(model, truths, plan, on_case=_say, on_failed=_say_failed)
    if as_json:
        print_json(document)
    elif document["cases"]:
        typer.echo(evaluation_words.markdown(document))
        for line in evaluation_words.findings(document):
            typer.echo(f"\n{line}" if as_markdown else line)
    if plot is not None and document["cases"]:  # last: what was measured is out, whatever the disk says
        plot_dice(document, plot)
    _end_if_failed(document)


def _say_failed(failed: Failed) -> None:
    _say(f"{failed.name} is left out: {failed.why}")


def _end_if_failed(document: dict[str, Any]) -> None:
    if failed := [one["case"] for one in document["failed"]]:
        _say(f"{len(failed)} of {document['cases'] + len(failed)} cases could not be measured: {', '.join(failed)}")
        raise typer.Exit(1 if document["cases"] else 2)
