"""What every test stands on: one Qt binding, a display or none, and nothing of the user's touched."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

os.environ.setdefault("QT_API", "pyqt5")
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # no OpenGL there; `make test` brings a virtual display

_home = tempfile.mkdtemp(prefix="sparsetok-tests-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = ""  # settings live in memory
for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    os.environ[name] = os.path.join(_home, name.lower())
