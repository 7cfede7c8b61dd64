"""What the inspector costs, against one dense run. The last line is one JSON document.

    python benchmarks/bench_inspector.py [--model M] [--sample S]

Seconds are of the processor, summed over its cores, so that a busy machine disturbs them less; wall-clock
seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.inspection import Question, sweep
from napari_sparsetok.sample import open_sample
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import Lattice
from napari_sparsetok.ui.inspect_words import told
from napari_sparsetok.weights import Registry


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="hippocampus-t1")
    parser.add_argument("--sample", default="hippocampus_left")
    given = parser.parse_args()
    registry, scan = Registry(), open_sample(given.sample)
    settings = Settings(given.model, 0.25)

    def fresh() -> SCDSegmenter:
        segmenter = SCDSegmenter(registry)
        segmenter.prepare(settings)
        return segmenter

    question = Question(scan, settings, registry[given.model])
    sweep(fresh(), Question(scan, settings, registry[given.model], ladder=(1.0, 0.5)))  # warms up kernels and counts
    times: dict[str, list[dict[str, float]]] = {"dense": [], "sweep": []}
    for _ in range(3):
        first, again = fresh(), fresh()
        times["dense"].append(timed(lambda first=first: first.segment(scan, Settings(given.model, 1.0)))[1])
        times["sweep"].append(timed(lambda again=again: sweep(again, question))[1])
    best = {name: {k: min(t[k] for t in found) for k in ("cpu", "wall")} for name, found in times.items()}
    segmenter = fresh()
    prediction = segmenter.segment(scan, settings)
    lattice = Lattice.of(prediction.tokens, scan.geometry, scan.shape)
    voxel = tuple(int(v) for v in np.argwhere(prediction.mask > 0)[0])
    stories = [timed(lambda: told(prediction, prediction.tokens, lattice, voxel))[1]["wall"] for _ in range(50)]
    (probe, place), opened = timed(lambda: segmenter.probe(scan, settings, voxel))
    rest = {
        "open_window": opened,
        "probabilities": timed(lambda: probe.probabilities)[1],
        "kept_from": timed(lambda: probe.kept_from(place))[1],
        "rollout": timed(lambda: probe.rollout(place))[1],
        "heads": timed(probe.masked_heads)[1],
    }
    document = {
        "model": given.model,
        "sample": given.sample,
        "windows": prediction.timing.windows,
        "device": prediction.timing.device,
        **best,
        "sweep_of_eight_over_dense": {k: best["sweep"][k] / best["dense"][k] for k in ("cpu", "wall")},
        "story_ms_median": 1000 * float(np.median(stories)),
        "story_ms_worst": 1000 * max(stories),
        **rest,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
