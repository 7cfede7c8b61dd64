"""What the inspector costs: comparisons against one dense run, answers to a click, and a stroke against the slider.

    scripts/with-display python benchmarks/bench_inspector.py [RESULT.json] [--no-window] [--only MODEL]

Two scans: the left hippocampus of MNI152, one window, and the CT phantom of `sample_data/make_ct_phantom.py`, several
windows that overlap. A dense run is `Segmenter.segment` at a keep ratio of 1 with nothing cached; "shown" with partial
results, as the window asks for them, "quiet" without, as a comparison does. A comparison is made of a scan that nothing
is known of, as `sparsetok inspect` meets it, and of one that was segmented before, as the window meets it. Clicks and
strokes are made in a real window. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))

from bench_slider import opened, pump_until
from make_ct_phantom import affine, make_phantom

from napari_sparsetok.engine.contract import Watch
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.inspection import Question, sweep
from napari_sparsetok.sample import open_sample
from napari_sparsetok.scan import Geometry, Scan
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import LADDER, Lattice
from napari_sparsetok.ui.inspect_words import told
from napari_sparsetok.weights import Registry

ROUNDS = {"hippocampus-t1": 15, "headneck-ct": 5}
CLICKS = 12


def scan_for(model: str) -> Scan:
    if model == "hippocampus-t1":
        return open_sample("hippocampus_left")
    voxels = make_phantom()
    geometry = Geometry(voxels.shape, affine())
    return Scan(geometry.to_shown(voxels), geometry, name="CT phantom")


def timed(work: Callable[[], Any]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def spread(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    values = 1000 * np.asarray(seconds)
    return {"median": round(float(np.median(values)), 1), "longest": round(float(values.max()), 1)}


def measure_comparison(model: str) -> dict[str, Any]:
    """A comparison of eight ratios, the map of steady ratios among it, against one dense run, in rounds of one each.

    The quotients are taken within each round, because a machine may be slower in one than in another.
    """
    registry, scan = Registry(), scan_for(model)
    dense, question = Settings(model, 1.0), Question(scan, Settings(model, 0.25), registry[model])
    seen = Watch(on_partial=lambda prediction: None)

    def fresh() -> SCDSegmenter:
        segmenter = SCDSegmenter(registry)
        segmenter.prepare(dense)
        return segmenter

    fresh().segment(scan, dense)  # chooses kernels
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(ROUNDS[model]):
        one, two, three, four = fresh(), fresh(), fresh(), fresh()
        four.segment(scan, question.settings, watch=seen)
        times["dense_shown"].append(timed(lambda one=one: one.segment(scan, dense, watch=seen)))
        times["dense_quiet"].append(timed(lambda two=two: two.segment(scan, dense)))
        times["comparison"].append(timed(lambda three=three: sweep(three, question)))
        times["comparison_of_a_segmented_scan"].append(timed(lambda four=four: sweep(four, question)))
    both = ("cpu", "wall")
    over = {
        f"{what}_over_{name}": {k: over_rounds([t[k] for t in times[what]], [t[k] for t in times[name]]) for k in both}
        for what in ("comparison", "comparison_of_a_segmented_scan")
        for name in ("dense_shown", "dense_quiet")
    }
    medians = {name: {k: round(median(t[k] for t in found), 3) for k in both} for name, found in times.items()}
    windows = three.segment(scan, Settings(model, LADDER[-1])).timing.windows
    return {"windows": windows, "ratios": len(LADDER), "rounds": ROUNDS[model], "median_seconds": medians, **over}


def over_rounds(these: list[float], those: list[float]) -> dict[str, float]:
    """Quotients, round by round."""
    found = sorted(a / b for a, b in zip(these, those, strict=True))
    return {"median": round(median(found), 2), "least": round(found[0], 2), "most": round(found[-1], 2)}


def measure_answers(model: str) -> dict[str, Any]:
    """Milliseconds of the processor until a click is answered, without a window around it."""
    scan, settings = scan_for(model), Settings(model, 0.25)
    segmenter = SCDSegmenter(Registry())
    prediction = segmenter.segment(scan, settings)
    lattice = Lattice.of(prediction.tokens, scan.geometry, scan.shape)
    inside = np.argwhere(prediction.mask > 0)
    voxels = [tuple(int(v) for v in at) for at in inside[:: max(1, len(inside) // CLICKS)][:CLICKS]]
    segmenter.probe(scan, settings, voxels[0])[0].get_ready(lambda: False)  # chooses kernels
    story = [timed(lambda v=v: told(prediction, prediction.tokens, lattice, v))["wall"] for v in voxels]
    cold, ready, first = [], [], []
    for voxel in voxels:
        segmenter._probe = None
        probes: list[Any] = []
        open_it = lambda v=voxel, p=probes: p.append(segmenter.probe(scan, settings, v))  # noqa: E731
        opened = timed(open_it)["cpu"]
        probe, place = probes[0]
        probe._o.prefix.survivors.clear()  # what the voxel before found out of the same window
        likely = timed(lambda p=probe: p.probabilities)["cpu"]
        first.append(opened + likely)
        cold.append(opened + likely + timed(lambda p=probe, at=place: p.kept_from(at))["cpu"])
        probe.get_ready(lambda: False)
        ready.append(timed(lambda p=probe, at=place: p.kept_from(at))["cpu"])
    return {
        "story_ms": spread(story),
        "first_words_cold_cpu_ms": spread(first),
        "all_words_cold_cpu_ms": spread(cold),
        "all_words_got_ready_cpu_ms": spread(ready),
    }


def measure_window(clicks: int) -> dict[str, Any]:
    """Clicks, strokes and moves of the slider in a real window, on the hippocampus."""
    viewer, dock = opened(open_sample("hippocampus_left"), until_complete=True, look_ahead=False)
    state, desk = dock.session.state, dock.inspect
    inside, random = np.argwhere(state.prediction.mask > 0), np.random.default_rng(0)
    answers = [_click(viewer, dock, tuple(int(v) for v in inside[k])) for k in random.integers(0, len(inside), clicks)]
    strokes, moves = [], []
    for ratio in random.uniform(0.15, 0.35, clicks).round(2):
        moves.append(_until_mask(lambda r=ratio: dock.panel.ratio.slider.setValue(float(r)), dock))
    desk.panel.paint_requested.emit("must")
    layer = desk.layers.get("forced")
    for place in np.argwhere(state.prediction.tokens.stage == 1)[::50][:clicks]:
        strokes.append(_until_mask(lambda p=place: layer.paint(tuple(int(v) for v in p), 1), dock))
    dock.shut_down()
    viewer.close()
    return {
        "clicks": clicks,
        "first_words_ms": spread([first for first, _ in answers]),
        "all_words_ms": spread([last for _, last in answers]),
        "slider_to_mask_ms": spread(moves),
        "stroke_to_mask_ms": spread(strokes),
    }


def _click(viewer: Any, dock: Any, voxel: tuple[int, ...]) -> tuple[float, float]:
    """Seconds until the first and until the last words about a voxel, after the mouse rested there."""
    desk, geometry = dock.inspect, dock.session.state.scan.geometry
    if not desk.panel.ask_button.isChecked():
        desk.panel.ask_button.click()
    world = [o + v * s for o, v, s in zip(geometry.origin, voxel, geometry.spacing, strict=True)]
    viewer.dims.point = world
    viewer.cursor.position = tuple(world)
    pump_until(lambda: False, 1.0, [])
    _rest(dock)
    desk.panel.set_story("")
    started = time.perf_counter()
    desk.asking.ask_network(voxel)
    pump_until(lambda: "model says" in desk.panel._more.text(), 10, [])
    first = time.perf_counter() - started
    pump_until(lambda: "Its token" in desk.panel._more.text(), 10, [])
    return first, time.perf_counter() - started


def _rest(dock: Any) -> None:
    pump_until(lambda: dock.session.state.busy is None and dock.session.wait(0.0), 20, [])


def _until_mask(act: Callable[[], Any], dock: Any) -> float:
    """Seconds from an act to the first new mask."""
    _rest(dock)
    state = dock.session.state
    before, started = state.prediction, time.perf_counter()
    act()
    pump_until(lambda: state.prediction is not before, 10, [])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("--no-window", action="store_true")
    parser.add_argument("--only", choices=sorted(ROUNDS))
    given = parser.parse_args()
    models = [given.only] if given.only else list(ROUNDS)
    document: dict[str, Any] = {
        "benchmark": "inspector",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
        "comparison": {model: measure_comparison(model) for model in models},
        "answers": {model: measure_answers(model) for model in models},
    }
    if not given.no_window:
        document["window"] = measure_window(CLICKS)
    if given.result:
        given.result.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
