"""How much faster a training step is with most tokens pruned: keep ratio 0.25 against 1, same network and windows.

    python benchmarks/bench_training.py [--repeats 9] [--out benchmarks/results/training.json]

Windows are noise of the size that the recipe trains on; beside which patches are empty, and never enter a network that
was made so, the time does not depend on what is in them. Dense and sparse
steps take turns, forward and backward; medians are compared, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from napari_sparsetok.training.configuration import preset
from napari_sparsetok.training.objective import Objective
from napari_sparsetok.training.run import Hardware

RATIOS = (1.0, 0.25)
AIR = 0.4
"""Share of empty patches in windows as they are drawn in training `headneck-ct`: the mean of 120, from 17 cases."""


def measure(name: str, repeats: int) -> dict[str, Any]:
    recipe = preset(name)
    training, network = recipe.training, recipe.network
    from napari_sparsetok.model import SCD

    fabric = Hardware().fabric()
    model = SCD(network).train()
    objective, optimiser = fabric.setup(Objective(model, training), torch.optim.AdamW(model.parameters(), lr=1e-5))
    size = [max(sides) for sides in training.windows]
    images = torch.randn(training.batch, network.in_channels, *size, device=fabric.device)
    air = 0
    if network.empty is not None:
        air = round(AIR * size[0] / network.patch) * network.patch
        images[:, :, :air] = network.empty
    labels = torch.randint(0, network.out_channels, (training.batch, 1, *size), device=fabric.device)
    known = torch.ones(training.batch, network.out_channels, dtype=torch.bool, device=fabric.device)
    seconds: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    for turn in range(repeats + 1):
        for ratio in RATIOS:
            started = time.perf_counter()
            fabric.backward(objective(images, labels, known, (ratio,)).total)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[ratio].append(time.perf_counter() - started)
    dense, sparse = (median(seconds[ratio]) for ratio in RATIOS)
    paired = sorted(d / s for d, s in zip(seconds[1.0], seconds[0.25], strict=True))
    return {
        "window": size,
        "batch": training.batch,
        "empty_share": round(air / size[0], 3),
        "device": str(fabric.device),
        "windows_per_second": {"dense": training.batch / dense, "sparse": training.batch / sparse},
        "ratio": dense / sparse,
        "ratio_of_pairs_min_max": [paired[0], paired[-1]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    args = parser.parse_args()
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "keep_ratio": 0.25,
        "networks": {name: measure(name, args.repeats) for name in ("hippocampus-t1", "headneck-ct")},
    }
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    for name, found in document["networks"].items():
        low, high = found["ratio_of_pairs_min_max"]
        print(f"{name}: {found['ratio']:.2f} × as many windows a second at keep ratio 0.25 ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
