"""The command line: what the window can do, and what it takes to bring in a model.

Tables are for people; `--json` prints one JSON document on standard output instead. What was wrong with the
input is one line on standard error, with exit code 2.
"""

from __future__ import annotations

from napari_sparsetok.cli import bench, inspecting, main_job, model_tools, models, training  # each adds its commands
from napari_sparsetok.cli.app import app

__all__ = ["app", "bench", "inspecting", "main", "main_job", "model_tools", "models", "training"]


def main() -> None:
    """Run the command line."""
    app()
