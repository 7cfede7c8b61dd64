"""Whole scans and whole runs, each in a process of its own, because memory is given back late."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from napari_sparsetok.bench.one_window import NEW_RATIO, installed, random_weights
from napari_sparsetok.bench.row import Row, clock, ratio
from napari_sparsetok.engine.network import Network, finish, prefixes
from napari_sparsetok.model import SCD, Rule, SCDConfig
from napari_sparsetok.model.presets import PRESETS
from napari_sparsetok.state import Settings
from napari_sparsetok.weights import Card, Registry

_SMALL = SCDConfig(
    1, 3, (64, 64, 64), 8, 48, 3, 2, prune_after=(1, 2), completion_dim=48, completion_heads=2, features=4
)
_RATIOS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


def against_monai(model: str, side: int, rounds: int) -> list[Row]:
    """Our whole-scan run against MONAI's sliding window with the same network, windows, overlap and blending."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "monai": []}
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(_in_a_process(name, model, side))

    def of(key: str, *names: str) -> list[list[float]]:
        return [[run[key] for run in runs[name]] for name in names]

    what = f"{model}, {side}³ voxels"
    note = "the most that was held beyond the loaded model and one window"
    seconds, memory = of("seconds", "monai", "ours"), of("mebibytes", "ours", "monai")
    faster, smaller = f"{what}: throughput against MONAI's sliding window", f"{what}: peak memory against it"
    return [
        ratio(faster, seconds[0], seconds[1], "≥ 1", unit="×", details=runs),
        ratio(smaller, memory[0], memory[1], "≤ 0.6", note=note),
    ]


def growth(sizes: tuple[int, ...]) -> list[Row]:
    """Time and memory against the number of voxels, with a small network of random weights."""
    runs = {side: _in_a_process("small", "", side) for side in sizes}
    several = [side for side in runs if side > sizes[0]] if len(runs) > 2 else list(runs)
    note = f"from {several[0]}³ on" + (": the smallest is a single window, without overlap" if len(runs) > 2 else "")
    rows = []
    for key, unit in (("seconds", "s"), ("mebibytes", "MiB")):
        # A scan so small that it fits into what was held before takes no memory that could be seen.
        seen = {float(side) ** 3: runs[side][key] for side in several if runs[side][key] > 0}
        slope = float(np.polyfit(np.log(list(seen)), np.log(list(seen.values())), 1)[0]) if len(seen) > 1 else None
        details = {"unit": unit} | {f"{side}³": round(run[key], 2) for side, run in runs.items()}
        rows.append(
            Row(
                f"growth of {key} with the voxels: exponent",
                None if slope is None else round(slope, 3),
                target="≤ 1.1",
                note=note,
                details=details,
            )
        )
    return rows


def growth_with_ratio() -> list[Row]:
    """Time and memory of one window against the keep ratio, with the BTCV preset and random weights."""
    runs = {keep_ratio: _in_a_process("preset", "btcv", keep_ratio) for keep_ratio in _RATIOS}
    least, most = runs[_RATIOS[0]], runs[_RATIOS[-1]]
    rows = []
    for key, unit in (("seconds", "s"), ("mebibytes", "MiB")):
        details = {"unit": unit} | {f"{r:g}": round(run[key], 2) for r, run in runs.items()}
        name = f"BTCV preset, one window: {key} at keep ratio {_RATIOS[0]:g} against 1"
        value = round(least[key] / most[key], 3) if most[key] else None
        rows.append(Row(name, value, note="beyond the loaded model", details=details))
    return rows


def _in_a_process(what: str, model: str, size: float) -> dict[str, float]:
    command = [sys.executable, "-m", "napari_sparsetok.bench.whole_scan", what, model, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run_one(what: str, model: str, size: float) -> dict[str, float]:
    """In the process of its own; `size` is a keep ratio for a preset, else the voxels along a side."""
    return _one_window(model, size) if what == "preset" else _one_scan(what, model, int(size))


def _one_window(preset: str, keep_ratio: float) -> dict[str, float]:
    config = next(config for name, config in PRESETS.items() if name == preset)
    network, small = random_weights(config), random_weights(_SMALL)
    finish(small, prefixes(small, torch.zeros(1, 1, *_SMALL.window)), keep_ratio, Rule())  # libraries are loaded
    image, now = torch.randn(1, 1, *config.window), clock()
    before, started = _held(), now()
    finish(network, prefixes(network, image), keep_ratio, Rule())
    return {"seconds": now() - started, "mebibytes": (_peak() - before) / 2**20}


def _one_scan(what: str, model: str, side: int) -> dict[str, float]:
    import tempfile

    from napari_sparsetok.engine.segmenter import SCDSegmenter
    from napari_sparsetok.scan import Geometry, Scan

    with tempfile.TemporaryDirectory() as folder:
        registry = Registry() if model else _small_model(Path(folder))
        model = model or next(iter(registry.cards))
        voxels = np.random.default_rng(0).integers(40, 160, (side,) * 3, dtype=np.int16)
        spacing = registry[model].spacing
        scan = Scan(voxels, Geometry.shown(voxels.shape, spacing))
        segmenter = SCDSegmenter(registry, cache_bytes=0)
        settings = Settings(model, NEW_RATIO, device="cpu")
        segmenter.prepare(settings)
        network = installed(registry[model])
        finish(network, prefixes(network, torch.zeros(1, 1, *registry[model].window)), NEW_RATIO, Rule())
        now = clock()
        before, started = _held(), now()
        if what == "monai":
            _monai(network, scan.voxels)
        else:
            segmenter.segment(scan, settings)
        return {"seconds": now() - started, "mebibytes": (_peak() - before) / 2**20}


def _monai(network: Network, voxels: np.ndarray[Any, Any]) -> torch.Tensor:
    """The usual way: the whole scan normalised, logits of the whole scan blended, the highest taken."""
    from monai.inferers.utils import sliding_window_inference

    from napari_sparsetok.engine.intensity import apply_rule

    image = torch.from_numpy(apply_rule(network.card.intensity, voxels))[None, None]
    with torch.inference_mode():
        logits = sliding_window_inference(
            image,
            network.card.window,
            1,
            lambda window: network.model(window, NEW_RATIO)[0],
            overlap=network.card.overlap,
            mode="gaussian",
        )
        return torch.as_tensor(logits).argmax(1).to(torch.uint8)


def _small_model(folder: Path) -> Registry:
    """A small network of random weights, installed in a folder."""
    import hashlib

    from safetensors.torch import save_file

    from napari_sparsetok.labels import LabelTable

    torch.manual_seed(0)
    weights = folder / "small.safetensors"
    save_file(SCD(_SMALL).state_dict(), weights)
    card = Card(
        id="small",
        title="Small",
        purpose="To see how cost grows.",
        modality="none",
        channels=("any",),
        spacing=(1.0, 1.0, 1.0),
        intensity={"name": "window", "low": 0, "high": 200},
        labels=LabelTable.of(["one", "two"]),
        config=asdict(_SMALL),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        weights=weights,
    )
    (folder / "small.json").write_text(json.dumps(card.to_json()), encoding="utf-8")
    return Registry([folder])


def _held() -> float:
    """The bytes that this process holds; from here on `_peak` counts anew.

    On Linux. Elsewhere it is the most that it ever held, so that what was held and given back before hides as much of
    what comes after.
    """
    gc.collect()
    if sys.platform == "linux":
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> float:
    """The most bytes that this process held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; what `getrusage` says there begins with what the parent held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024.0 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    print(json.dumps(_run_one(sys.argv[1], sys.argv[2], float(sys.argv[3]))))  # noqa: T201 - for the process that asked
