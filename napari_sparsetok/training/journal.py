"""What a run leaves to read: a table, TensorBoard's events, and pictures of what the network sees so far."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from napari_sparsetok.files.whole_file import written_whole

LOG = "log.csv"
SAMPLES = "samples"


@dataclass(frozen=True)
class Step:
    """One step of training.

    seconds : since the run began, without the time it was cut off.
    left : seconds to go, as far as can be told.
    memory : bytes: the most that a GPU held, or what the process holds on a CPU.
    """

    step: int
    steps: int
    seconds: float
    left: float
    rate: float
    keep_ratio: float
    loss: float
    segmentation: float
    scores: float
    distillation: float
    memory: int


_COLUMNS = [f.name for f in fields(Step) if f.name not in ("steps", "left")]
_DICE = ["dice_keep_ratio", "dice"]


class Journal:
    """Writes a run's log. Of a run that goes on, rows after its checkpoint are dropped: they will be made again."""

    def __init__(self, out: Path, done: int) -> None:
        self._out, self._path = out, out / LOG
        (out / SAMPLES).mkdir(parents=True, exist_ok=True)
        rows = _rows(self._path, done)
        with written_whole(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*_COLUMNS, *_DICE])
            writer.writeheader()
            writer.writerows(rows)
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, [*_COLUMNS, *_DICE])
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)

    def step(self, step: Step) -> None:
        """Note a step."""
        row = {name: value for name, value in asdict(step).items() if name in _COLUMNS}
        self._write({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
        for name in ("loss", "segmentation", "scores", "distillation", "rate", "keep_ratio"):
            self._board.add_scalar(f"train/{name}", row[name], step.step)

    def look(self, step: int, keep_ratio: float, dice: Sequence[float], picture: Figure | None) -> None:
        """Note Dice of each label at a keep ratio, and keep a picture, if there is one."""
        self._write({"step": step, "dice_keep_ratio": keep_ratio, "dice": " ".join(f"{d:.4f}" for d in dice)})
        for label, value in enumerate(dice, start=1):
            if not math.isnan(value):
                self._board.add_scalar(f"val/dice_label_{label}", value, step)
        if picture is not None:
            with written_whole(self._out / SAMPLES / f"step_{step:06d}.png", suffix=".png") as temporary:
                picture.savefig(temporary, dpi=90)
            self._board.add_figure("val/sample", picture, step)

    def close(self) -> None:
        """No more will come."""
        self._file.close()
        self._board.close()

    def _write(self, row: dict[str, object]) -> None:
        self._writer.writerow(row)
        self._file.flush()


def _rows(path: Path, done: int) -> list[dict[str, str]]:
    if not path.exists() or not done:
        return []
    with path.open(newline="") as file:
        # A line that a kill cut in half has no proper number, or lacks fields.
        return [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= done]
