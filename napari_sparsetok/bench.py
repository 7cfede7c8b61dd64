"""How fast, and at what price in memory: ratios of variants that are measured in turns, in one run.

Machines differ and are shared, so what counts here are ratios. Each round runs every variant once, one after the other;
a ratio is taken within a round, and the median of the rounds is reported with the least and the greatest. With
OMP_NUM_THREADS=1 the seconds are those that the computing thread had, so that other programs disturb less.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.network import Network, finish, load_model, prefixes
from napari_sparsetok.model import SCD, Rule, SCDConfig
from napari_sparsetok.model.presets import PRESETS
from napari_sparsetok.state import Settings
from napari_sparsetok.weights import Card, Registry

NEW_RATIO, OLD_RATIO = 0.25, 0.5
SLIDER = Path(__file__).parents[1] / "benchmarks" / "bench_slider.py"
_SIZES = (64, 128, 192, 256, 320)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    value : the figure; None if it was not measured, and `note` says why.
    spread : the least and the greatest of the rounds.
    target : what it must reach; the sign says from which side.
    """

    name: str
    value: float | None
    unit: str = ""
    spread: tuple[float, float] | None = None
    target: str = ""
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one or without a figure."""
        if self.value is None or not self.target:
            return None
        sign, limit = self.target.split()[:2]
        return self.value <= float(limit) if sign == "≤" else self.value >= float(limit)


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
        rows += reinference(f"{model}", _installed(card), card.window, rounds)
    if not quick:
        say("BTCV preset: a change of the keep ratio, and few tokens against all")
        preset = _random(PRESETS["btcv"])
        rows += reinference("BTCV preset, random weights", preset, PRESETS["btcv"].window, 3)
        rows.append(throughput(preset, PRESETS["btcv"].window, 3))
    single = [model for model in models if len(registry[model].channels) == 1]
    if single:
        say("against MONAI's sliding window")
        rows += against_monai(single[0], 80 if quick else 192, 1)
    say("growth with the scan")
    rows += growth(_SIZES[:2] if quick else _SIZES)
    say("the slider in a real window")
    rows += slider(quick)
    rows.append(Row("published implementation, same weights", None, note="not run: its code is not part of this"))
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


# One window


def reinference(name: str, network: Network, window: tuple[int, int, int], rounds: int) -> list[Row]:
    """A new keep ratio when the prefix is there, against the network from the start; and the parts of it."""
    image = torch.randn(1, network.model.config.in_channels, *window)
    cached = prefixes(network, image)
    finish(network, cached, OLD_RATIO, Rule())
    times = in_turns(
        {
            "again": lambda: finish(network, cached, NEW_RATIO, Rule()),
            "whole": lambda: finish(network, prefixes(network, image), NEW_RATIO, Rule()),
            "trained": lambda: _trained(network.model, image, NEW_RATIO),
        },
        rounds,
    )
    details = {key: round(float(np.median(values)), 4) for key, values in times.items()} | {
        "parts_seconds": _parts(network, image, rounds),
        "decoder": str(network.decoder.dtype).removeprefix("torch."),
    }
    return [
        _ratio(
            f"{name}: {OLD_RATIO:g} → {NEW_RATIO:g}, against the network as trained",
            times["again"],
            times["trained"],
            "≤ 0.6",
            details=details,
        ),
        _ratio(
            f"{name}: {OLD_RATIO:g} → {NEW_RATIO:g}, against our own whole run",
            times["again"],
            times["whole"],
            note="stricter: the whole run is faster here than as trained",
        ),
    ]


def throughput(network: Network, window: tuple[int, int, int], rounds: int) -> Row:
    """Few tokens against all of them, from image to logits."""
    image = torch.randn(1, network.model.config.in_channels, *window)
    times = in_turns(
        {
            "all": lambda: finish(network, prefixes(network, image), 1.0, Rule()),
            "few": lambda: finish(network, prefixes(network, image), 0.1, Rule()),
        },
        rounds,
    )
    name = "BTCV preset: throughput at keep ratio 0.1 against 1"
    return _ratio(
        name, times["all"], times["few"], "≥ 1.8", unit="×", details={k: np.median(v) for k, v in times.items()}
    )


def _parts(network: Network, image: torch.Tensor, rounds: int) -> dict[str, float]:
    model = network.model
    with torch.inference_mode():
        prefix, skip = model.encode_prefix(image), network.decoder.image_skip(image)
        parts, ids, _ = model.encode_rest(prefix, NEW_RATIO)
        grid = model.complete(parts, ids, prefix.grid)
        times = in_turns(
            {
                "prefix": lambda: model.encode_prefix(image),
                "image skip": lambda: network.decoder.image_skip(image),
                "rest of the encoder": lambda: model.encode_rest(prefix, NEW_RATIO),
                "completion": lambda: model.complete(parts, ids, prefix.grid),
                "decoder": lambda: network.decoder(grid, skip),
                "decoder as trained": lambda: model.decode(grid, model.image_skip(image)),
            },
            rounds,
        )
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round more, which warms up, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    clock = _clock()
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started = clock()
            run()
            if turn:
                times[name].append(clock() - started)
    return times


def _clock() -> Callable[[], float]:
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _ratio(
    name: str,
    over: list[float],
    under: list[float],
    target: str = "",
    **more: Any,
) -> Row:
    ratios = np.asarray(over) / np.asarray(under)
    spread = (round(float(ratios.min()), 3), round(float(ratios.max()), 3))
    return Row(name, round(float(np.median(ratios)), 3), spread=spread, target=target, **more)


def _trained(model: SCD, image: torch.Tensor, keep_ratio: float) -> torch.Tensor:
    with torch.inference_mode():
        return model(image, keep_ratio)[0]


def _installed(card: Card) -> Network:
    return Network.on(card, load_model(card), devices.choose("cpu"), "cpu")


def _random(config: SCDConfig, name: str = "random") -> Network:
    torch.manual_seed(0)
    card: Any = None  # random weights have none
    return Network.on(card, SCD(config).eval().requires_grad_(False), devices.choose("cpu"), "cpu")


# Whole scans, each in a process of its own, because memory is given back late


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
        _ratio(faster, seconds[0], seconds[1], "≥ 1", unit="×", details=runs),
        _ratio(smaller, memory[0], memory[1], "≤ 0.6", note=note),
    ]


def growth(sizes: tuple[int, ...]) -> list[Row]:
    """Time and memory against the number of voxels, with a small network of random weights."""
    runs = {side: _in_a_process("small", "", side) for side in sizes}
    several = [side for side in runs if side > _SIZES[0]] if len(runs) > 2 else list(runs)
    note = f"from {several[0]}³ on" + (": the smallest is a single window, without overlap" if len(runs) > 2 else "")
    voxels = np.log([float(side) ** 3 for side in several])
    rows = []
    for key, unit in (("seconds", "s"), ("mebibytes", "MiB")):
        values = [runs[side][key] for side in several]
        slope = float(np.polyfit(voxels, np.log(values), 1)[0])
        details = {"unit": unit} | {f"{side}³": round(run[key], 2) for side, run in runs.items()}
        rows.append(
            Row(
                f"growth of {key} with the voxels: exponent",
                round(slope, 3),
                target="≤ 1.1",
                note=note,
                details=details,
            )
        )
    return rows


def _in_a_process(what: str, model: str, side: int) -> dict[str, float]:
    command = [sys.executable, "-m", "napari_sparsetok.bench", what, model, str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run_one(what: str, model: str, side: int) -> dict[str, float]:
    """In the process of its own."""
    import tempfile

    from napari_sparsetok.engine.segmenter import SCDSegmenter
    from napari_sparsetok.scan import Geometry, Scan

    with tempfile.TemporaryDirectory() as folder:
        registry = Registry() if model else _small_model(Path(folder))
        model = model or next(iter(registry.cards))
        voxels = np.random.default_rng(0).normal(100, 20, (side,) * 3).astype(np.int16)
        spacing = registry[model].spacing
        scan = Scan(voxels, Geometry.shown(voxels.shape, spacing))
        segmenter = SCDSegmenter(registry, cache_bytes=0)
        settings = Settings(model, NEW_RATIO, device="cpu")
        segmenter.prepare(settings)
        network = _installed(registry[model])
        finish(network, prefixes(network, torch.zeros(1, 1, *registry[model].window)), NEW_RATIO, Rule())
        clock = _clock()
        before, started = _peak(), clock()
        if what == "monai":
            _monai(network, scan.voxels)
        else:
            segmenter.segment(scan, settings)
        return {"seconds": clock() - started, "mebibytes": (_peak() - before) / 2**20}


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

    config = SCDConfig(
        1, 3, (64, 64, 64), 8, 48, 3, 2, prune_after=(1, 2), completion_dim=48, completion_heads=2, features=4
    )
    torch.manual_seed(0)
    weights = folder / "small.safetensors"
    save_file(SCD(config).state_dict(), weights)
    card = Card(
        id="small",
        title="Small",
        purpose="To see how cost grows.",
        modality="none",
        channels=("any",),
        spacing=(1.0, 1.0, 1.0),
        intensity={"name": "window", "low": 0, "high": 200},
        labels=LabelTable.of(["one", "two"]),
        config=asdict(config),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        weights=weights,
    )
    (folder / "small.json").write_text(json.dumps(card.to_json()), encoding="utf-8")
    return Registry([folder])


def _peak() -> float:
    """The most bytes that this process ever held."""
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


# The window


def slider(quick: bool) -> list[Row]:
    """What benchmarks/bench_slider.py measures, where there is a display and a checkout."""
    names = ("slider to first mask, p95", "GUI stall in a drag, p99", "GUI stall in a drag, longest")
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
        Row(names[1], turns["p99"], "ms", target="≤ 50", note=load),
        Row(names[2], turns["longest"], "ms", target="≤ 150", note=load),
    ]


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seconds_of": "the computing thread" if torch.get_num_threads() == 1 else "the clock",
        "bfloat16": devices.cpu().decoder_dtype == torch.bfloat16,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(_run_one(sys.argv[1], sys.argv[2], int(sys.argv[3]))))  # noqa: T201 - for the process that asked
