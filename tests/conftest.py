"""What every test stands on: one Qt binding, a display or none, and nothing of the user's touched."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

import hypothesis
import pytest

os.environ.setdefault("QT_API", "pyqt5")
os.environ.setdefault("PYTEST_QT_API", os.environ["QT_API"])
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

_home = tempfile.mkdtemp(prefix="sparsetok-tests-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = ""  # settings live in memory
for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    os.environ[name] = os.path.join(_home, name.lower())

# A busy machine is no bug, and the same code gives the same verdict. To look further:
# pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.register_profile("sparsetok", deadline=None, derandomize=True)
hypothesis.settings.load_profile("sparsetok")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a real window where there is none: Qt's offscreen platform has no OpenGL."""
    wants_viewer = {"make_napari_viewer", "make_napari_viewer_proxy"} & set(getattr(item, "fixturenames", ()))
    if wants_viewer and os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        pytest.skip("needs a display; `make test` brings a virtual one")
