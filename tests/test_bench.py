"""What is measured, and that it is measured in turns."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tiny
import torch
from typer.testing import CliRunner

from napari_sparsetok.bench import Row, one_window, row, whole_scan
from napari_sparsetok.cli import app


def test_variants_run_in_turns_and_the_first_round_does_not_count():
    order: list[str] = []
    times = row.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [(0.4, "≤ 0.6", True), (0.7, "≤ 0.6", False), (2.0, "≥ 1.8", True), (1.0, "≥ 1.8", False), (None, "≥ 1", None)],
)
def test_a_target_is_met_or_not_or_was_not_measured(value, target, met):
    assert Row("any", value, target=target).met is met
    assert Row("any", 1.0).met is None


def test_a_ratio_is_taken_within_each_round():
    found = row.ratio("any", [1.0, 2.0, 30.0], [2.0, 4.0, 10.0], "≤ 0.6")
    assert (found.value, found.spread, found.met) == (0.5, (0.5, 3.0), True)


def test_a_model_is_measured_whole_and_in_parts():
    rows = one_window.reinference("tiny", one_window.random_weights(tiny.CONFIG), tiny.CONFIG.window, rounds=1)
    assert [row.target for row in rows] == ["≤ 0.6", ""]
    assert all(row.value > 0 for row in rows)
    assert set(rows[0].details["parts_seconds"]) >= {"prefix", "completion", "decoder"}
    json.dumps(rows[0].details)


def test_the_window_of_monai_has_the_same_mask_as_ours(tmp_path):
    import numpy as np

    from napari_sparsetok.engine.segmenter import SCDSegmenter
    from napari_sparsetok.scan import Geometry, Scan
    from napari_sparsetok.state import Settings
    from napari_sparsetok.weights import Registry

    card = tiny.write_model(tmp_path, overlap=0.5)
    voxels = np.random.default_rng(0).normal(100, 20, (16, 36, 24)).astype(np.float32)
    ours = SCDSegmenter(Registry([tmp_path])).segment(
        Scan(voxels, Geometry.shown(voxels.shape)), Settings("tiny", 0.25)
    )
    theirs = whole_scan._monai(one_window.installed(card), voxels)[0].numpy()
    assert (ours.mask == theirs).mean() > 0.9  # their last window may start elsewhere


def test_a_scan_is_run_in_a_process_of_its_own():
    found = whole_scan._run_one("small", "", 64)
    assert found["seconds"] > 0
    assert found["mebibytes"] >= 0


def test_a_model_that_is_not_there_is_said_before_anything_is_measured():
    run = CliRunner().invoke(app, ["bench", "--model", "nope"])
    assert run.exit_code == 2
    assert "there is no model “nope”" in run.output


def test_one_thread_counts_its_own_time(monkeypatch):
    import time

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert row.clock() is time.thread_time
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert row.clock() is time.perf_counter


def test_a_window_is_run_at_each_keep_ratio(monkeypatch):
    monkeypatch.setattr(whole_scan, "PRESETS", {"btcv": tiny.CONFIG})
    monkeypatch.setattr(whole_scan, "_in_a_process", whole_scan._run_one)
    rows = whole_scan.growth_with_ratio()
    assert len(rows) == 2
    for found in rows:
        assert list(found.details)[1:] == ["0.05", "0.1", "0.25", "0.5", "0.75", "1"]
    assert rows[0].value > 0


def test_growth_leaves_out_what_took_no_memory_that_could_be_seen(monkeypatch):
    took = {64: 0.0, 128: 0.0, 192: 27.0, 256: 64.0}
    run = lambda what, model, side: {"seconds": float(side) ** 3, "mebibytes": took[side]}  # noqa: E731
    monkeypatch.setattr(whole_scan, "_in_a_process", run)
    seconds, memory = whole_scan.growth((64, 128, 192, 256))
    assert seconds.value == pytest.approx(1.0)
    assert memory.value == pytest.approx(1.0)
    assert whole_scan.growth((64, 128))[1].value is None


def test_a_process_counts_its_own_memory_and_not_its_parent_s():
    child = "from napari_sparsetok.bench.whole_scan import _peak; print(_peak())"
    parent = (
        f"import subprocess, sys; held = b'x' * 2**30; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 2**25 < float(done.stdout) < 0.9 * 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell only the most that was ever held")
def test_what_was_given_back_before_hides_nothing_of_what_comes_after():
    child = (
        "import numpy as np; from napari_sparsetok.bench.whole_scan import _held, _peak; "
        "np.ones(2**28, np.uint8); before = _held(); held = np.ones(2**27, np.uint8); print(_peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert 0.98 * 2**27 < float(done.stdout) < 1.1 * 2**27
