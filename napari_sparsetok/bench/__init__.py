"""How fast, and at what price in memory: ratios of variants that are measured in turns, in one run.

Machines differ and are shared, so what counts here are ratios. Each round runs every variant once, one after the other;
a ratio is taken within a round, and the median of the rounds is reported with the least and the greatest. With
OMP_NUM_THREADS=1 the seconds are those that the computing thread had, so that other programs disturb less.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import psutil
import torch

from napari_sparsetok.bench.one_window import installed, random_weights, reinference, throughput
from napari_sparsetok.bench.real_window import slider
from napari_sparsetok.bench.row import Row
from napari_sparsetok.bench.whole_scan import against_monai, growth, growth_with_ratio
from napari_sparsetok.engine import device as devices
from napari_sparsetok.model.presets import PRESETS
from napari_sparsetok.weights import Registry

__all__ = ["Row", "measure"]

_FEW_SIZES, _SIZES = (64, 128), (64, 128, 192, 256, 320)

Say = Callable[[str], None]


def measure(models: list[str], quick: bool, say: Say) -> dict[str, Any]:
    """Measure everything that can be measured here.

    Parameters
    ----------
    models : ids of installed models.
    quick : few rounds, small scans, and not the preset; to see that it works.
    say : told what is being measured.
    """
    registry, rounds = Registry(), 3 if quick else 7
    started, load = time.perf_counter(), psutil.getloadavg()[0]
    rows = []
    for model in models:
        say(f"{model}: a change of the keep ratio")
        card = registry[model]
        rows += reinference(f"{model}", installed(card), card.window, rounds)
    if not quick:
        say("BTCV preset: a change of the keep ratio, and few tokens against all")
        preset = random_weights(PRESETS["btcv"])
        rows += reinference("BTCV preset, random weights", preset, PRESETS["btcv"].window, 3)
        rows.append(throughput(preset, PRESETS["btcv"].window, 3))
    single = [model for model in models if len(registry[model].channels) == 1]
    if single:
        say("against MONAI's sliding window")
        rows += against_monai(single[0], 80 if quick else 192, 1)
    say("growth with the scan")
    rows += growth(_FEW_SIZES if quick else _SIZES)
    if not quick:
        say("growth with the keep ratio")
        rows += growth_with_ratio()
    say("the slider in a real window")
    rows += slider(quick)
    rows.append(Row("published implementation, same weights", None, note="see benchmarks/bench_published.py"))
    rows.append(Row("GPU", None, note="not measured" if torch.cuda.is_available() else "not measured: none is here"))
    return {
        "benchmark": "sparsetok bench",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "load": {"before": round(load, 1), "after": round(psutil.getloadavg()[0], 1)},
        "seconds": round(time.perf_counter() - started),
        "quick": quick,
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seconds_of": "the computing thread" if torch.get_num_threads() == 1 else "the clock",
        "bfloat16": devices.cpu().dense_dtype == torch.bfloat16,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }
