"""What only several processes can do wrong: drift apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1]

# Each process has a disk and a clock of its own, as on two machines. The run is cut off after its third step.
PROGRAM = """
import sys
import time
from dataclasses import replace
from pathlib import Path

import labelled
from safetensors.torch import save_file

from napari_sparsetok.training import loop
from napari_sparsetok.training.run import Hardware

class Cut(Exception):
    pass

recipe = labelled.recipe(steps=5, minutes=2.0, warmup=0, checkpoint_seconds=0.0, evaluate_every=99)
recipe = replace(recipe, network=replace(recipe.network, completion="mask"))
fabric = Hardware("cpu", 2, precision="32-true").fabric(recipe.network)
out = Path(sys.argv[1]) / f"disk_{fabric.global_rank}"
out.mkdir()
real = time.monotonic
loop.time.monotonic = lambda: real() * (1 + 10 * fabric.global_rank)
cases = [labelled.make_case(k) for k in range(3)]
seen = []

def cut(step):
    seen.append(step.step)
    if seen == [1, 2, 3]:
        raise Cut

for _ in range(2):
    try:
        model = loop.train(fabric, recipe, loop.Examples(cases, []), out, watch=loop.Watch(on_step=cut))
    except Cut:
        continue
save_file(model.state_dict(), out / "averaged.safetensors")
(out / "seen").write_text(str(seen))
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch was built without gloo")
def test_processes_with_clocks_and_disks_of_their_own_stay_one_model(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [*launch, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    disks = [tmp_path / "disk_0", tmp_path / "disk_1"]
    assert [(disk / "seen").read_text() for disk in disks] == ["[1, 2, 3, 3, 4, 5]"] * 2
    assert not (disks[1] / "checkpoint.safetensors").exists()
    first, second = (load_file(disk / "averaged.safetensors") for disk in disks)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
