"""From a run to a model: ``python -m napari_sparsetok.training.export RUN DATASET CARD.json OUT_FOLDER``.

CARD.json holds what a person knows of the model (title, purpose, licence …); what can be computed is added.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from napari_sparsetok.engine.segmenter import load_model
from napari_sparsetok.training.dataset import label_table, read_cases
from napari_sparsetok.training.loop import mean_dice
from napari_sparsetok.weights import Card

KEEP_RATIOS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)


def export(run: Path, dataset: Path, about: Path, folder: Path) -> Card:
    """Write the run's weights in half precision with a card, and measure Dice on the val split with them."""
    given = json.loads(about.read_text(encoding="utf-8"))
    weights = folder / f"{given['id']}.safetensors"
    save_file({k: v.half() for k, v in load_file(run / "weights.safetensors").items()}, weights)
    config = json.loads((run / "config.json").read_text())
    given |= {
        "format": 1,
        "labels": given.get("labels", label_table(dataset).to_json()),
        "config": config["model"] | {"drop_path": 0.0},
        "keep_ratios": [config["training"]["min_keep"], 1.0],
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")
    model = load_model(Card.read(path))
    cases = read_cases(dataset, "val", given["intensity"])
    by_ratio = {str(keep): [round(d, 4) for d in mean_dice(model, cases, keep)] for keep in KEEP_RATIOS}
    given["dice"] = {"split": f"val, {len(cases)} cases", "labels": by_ratio}
    path.write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")
    return Card.read(path)


def main() -> None:
    """Export and print the card's Dice table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "dataset", "about", "folder"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    card = export(args.run, args.dataset, args.about, args.folder)
    print(json.dumps(card.dice, indent=1), f"{card.weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
