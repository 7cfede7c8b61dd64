"""How the slider answers, in a real window."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from napari_sparsetok.bench.row import Row

SLIDER = Path(__file__).parents[2] / "benchmarks" / "bench_slider.py"


def slider(quick: bool) -> list[Row]:
    """What benchmarks/bench_slider.py measures, where there is a display and a checkout."""
    names = (
        "slider to first mask, p95",
        "the same after a rest, p95",
        "GUI stall in a drag, p99",
        "GUI stall in a drag, longest",
    )
    if not SLIDER.exists() or not (os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32")):
        note = "not measured: needs a checkout and a display; run under scripts/with-display"
        return [Row(name, None, note=note) for name in names]
    command = [sys.executable, str(SLIDER), *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [Row(name, None, note="not measured: the window could not be opened") for name in names]
    found = json.loads(done.stdout.splitlines()[-1])
    load = f"load {found['load_before']} to {found['load_after']} on {torch.get_num_threads()} cores"
    turns = found["drag"]["event_loop_turn_ms"]
    return [
        Row(names[0], found["first_mask_ms"]["p95"], "ms", target="≤ 150", note=load, details=found),
        Row(names[1], found["computed_ahead"]["first_mask_ms"]["p95"], "ms", target="≤ 150", note=load),
        Row(names[2], turns["p99"], "ms", target="≤ 50", note=load),
        Row(names[3], turns["longest"], "ms", target="≤ 150", note=load),
    ]
