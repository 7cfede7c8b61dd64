"""Hostile files are opened in a process of their own; see `opening_process`."""

from __future__ import annotations

import pytest
from opening_process import Process

SECONDS, BYTES = 5.0, 1_000_000_000


@pytest.fixture(scope="module")
def process():
    process = Process()
    yield process
    process.close()


@pytest.fixture
def endings(process):
    """Opens a path by every door; returns how it ended."""

    def endings(path):
        ending = process.open(str(path))
        assert ending.seconds < SECONDS
        assert ending.bytes < BYTES
        assert "\n" not in ending.words
        assert not any(word in ending.words for word in ("Traceback", "Error(", "NoneType", "Lovelace")), ending.words
        return ending.words

    return endings
