"""`kill -9` in the middle of strokes in a real window: what was drawn comes back, voxel by voxel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

HERE = Path(__file__).parent
PROMISED = 5.0  # seconds after which a stroke is safe
needs_display = pytest.mark.skipif(
    os.environ.get("QT_QPA_PLATFORM") == "offscreen", reason="needs a display; `make test` brings a virtual one"
)


def started(what: str, scan: Path, folder: Path, home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"XDG_DATA_HOME": str(home), "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "window_process.py"), what, str(scan), str(folder)]
    with (folder / f"{what}.txt").open("w") as said:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)


def strokes(line: str) -> list[tuple[int, float]]:
    """Number and time of a stroke, if the line tells of one."""
    parts = line.split()
    return [(int(parts[1]), float(parts[2]))] if parts[:1] == ["drawn"] else []


@needs_display
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_in_the_middle_of_strokes_nothing_older_than_promised_is_lost(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    voxels = np.random.default_rng(0).normal(100, 20, (60, 80, 70)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), scan)
    with started("draw", scan, tmp_path, tmp_path / "home") as process:
        drawn: list[tuple[int, float]] = []
        for line in process.stdout:
            drawn += strokes(line)
            if drawn and drawn[-1][1] - drawn[0][1] > PROMISED + 1.5:
                break
        killed = time.time()
        process.send_signal(signal.SIGKILL)
        drawn += [found for line in process.stdout.read().splitlines() for found in strokes(line)]
    assert drawn, (tmp_path / "draw.txt").read_text()

    with started("reopen", scan, tmp_path, tmp_path / "home") as again:
        again.communicate(timeout=200)
    assert again.returncode == 0, (tmp_path / "reopen.txt").read_text()
    back = np.load(tmp_path / "back.npy")
    states = {k: np.load(tmp_path / f"state-{k}.npy") for k, _ in drawn}
    assert len(states) > 3
    assert np.count_nonzero(states[1]) > 0  # the mouse did draw

    # It may have been kept in the middle of a stroke: then it lies between what was there before and after it.
    last = max(states)
    after = {k: states.get(k + 1, states[last]) for k in states}
    between = [
        k
        for k, before in states.items()
        if np.array_equal(back[before > 0], before[before > 0]) and (k == last or not back[after[k] == 0].any())
    ]
    assert between, "what came back is no state that was ever drawn"
    safe = [k for k, at in drawn if at < killed - PROMISED]
    assert between[-1] >= max(safe)
    voxels_back = np.count_nonzero(back)
    assert f"{voxels_back} voxels" in (tmp_path / "offer.txt").read_text(encoding="utf-8")
