"""What static import contracts cannot see: what a fresh interpreter has loaded after an import."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest

LIGHT = ["napari_sparsetok", *(f"napari_sparsetok.{name}" for name in ("state", "sample", "session", "ui", "cli"))]
GUI = {"napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "magicgui", "superqt"}

PROBE = """
import importlib, importlib.util, json, sys
found = importlib.util.find_spec(sys.argv[1]) is not None
if found:
    importlib.import_module(sys.argv[1])
print(json.dumps([found, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@cache
def loaded_by(module: str) -> frozenset[str]:
    """Top-level names of everything in memory after `module` alone was imported."""
    run = subprocess.run([sys.executable, "-c", PROBE, module], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found, names = json.loads(run.stdout.splitlines()[-1])
    assert found, f"there is no module {module}"
    return frozenset(names)


@pytest.mark.parametrize("module", LIGHT)
def test_torch_waits_until_a_model_is_needed(module: str) -> None:
    assert not loaded_by(module) & {"torch", "monai"}


def test_the_window_opens_without_what_it_draws_files_with() -> None:
    assert not loaded_by("napari_sparsetok.ui.dock") & {"matplotlib", "torch", "monai"}


@pytest.mark.parametrize("module", [name for name in LIGHT if name != "napari_sparsetok.ui"])
def test_the_rest_works_without_a_window(module: str) -> None:
    assert not loaded_by(module) & GUI


@pytest.mark.parametrize("module", ["model", "engine", "weights", "files", "training"])
def test_computing_needs_no_gui(module: str) -> None:
    assert not loaded_by(f"napari_sparsetok.{module}") & GUI
