"""Looking at one scan through its tokens, without a window: sweeps, tables, plots, a page, and an audit of corrections.

Everything takes and gives numpy arrays. `docs/inspector.md` shows how it is used.
"""

from napari_sparsetok.inspection.auditing import audit
from napari_sparsetok.inspection.job import InspectOrder, inspect_file
from napari_sparsetok.inspection.ladder import Question, Rung, Sweep, sweep

__all__ = ["InspectOrder", "Question", "Rung", "Sweep", "audit", "inspect_file", "sweep"]
