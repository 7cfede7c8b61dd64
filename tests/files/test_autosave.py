"""Corrections survive whatever happens between two strokes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparsetok.files import whole_file
from napari_sparsetok.files.autosave import CorrectionStore, Lineage
from napari_sparsetok.scan import ScanError

HASH = "ab" * 32


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3), elements=st.sampled_from([0, 0, 1, 7, 255])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_kept_comes_back(tmp_path, corrections):
    store = CorrectionStore(tmp_path)
    store.keep(HASH, corrections)
    back = store.give_back(HASH)
    assert back.dtype == np.uint8
    assert np.array_equal(back, corrections)
    kept = store.find(HASH)
    assert kept is not None
    assert kept.voxels == np.count_nonzero(corrections)


def test_a_day_of_corrections_is_small(tmp_path):
    """A million voxels in strokes, on a large scan."""
    rng = np.random.default_rng(0)
    corrections = np.zeros((300, 512, 512), dtype=np.uint8)
    for _ in range(6000):
        z, y, x = (int(rng.integers(10, n - 30)) for n in corrections.shape)
        disk = np.hypot(*np.ogrid[-12:13, -12:13]) <= rng.uniform(4, 12)
        corrections[z, y : y + 25, x : x + 25][disk] = rng.choice([1, 2, 255])
    assert np.count_nonzero(corrections) > 1_000_000
    path = CorrectionStore(tmp_path).keep(HASH, corrections)
    assert path.stat().st_size < 5_000_000
    assert np.array_equal(CorrectionStore(tmp_path).give_back(HASH), corrections)


def test_a_full_disk_says_so_and_keeps_what_was_kept(tmp_path, monkeypatch):
    store = CorrectionStore(tmp_path)
    old = np.eye(3, dtype=np.uint8)[None]
    store.keep(HASH, old)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(ScanError, match="No space left.*save the mask now"):
        store.keep(HASH, old * 2)
    assert np.array_equal(store.give_back(HASH), old)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04garbage", b"not a zip at all"])
def test_a_damaged_file_is_a_sentence(tmp_path, damage):
    store = CorrectionStore(tmp_path)
    path = store.keep(HASH, np.ones((2, 2, 2), np.uint8))
    path.write_bytes(damage)
    with pytest.raises(ScanError, match="cannot be read"):
        store.give_back(HASH)
    assert store.find(HASH) is None
    assert store.all() == []
    assert path.exists()  # never removed by itself


def test_listing_and_removing(tmp_path):
    store = CorrectionStore(tmp_path)
    assert store.all() == []
    for number in range(3):
        store.keep(f"{number:064x}", np.full((2, 2, 2), number + 1, np.uint8))
    listed = store.all()
    assert [kept.name[-1] for kept in listed] == ["2", "1", "0"]
    store.remove(listed[0].name)
    store.remove(listed[0].name)
    assert len(store.all()) == 2
    with pytest.raises(ValueError, match="hash"):
        store.keep("../../evil", np.ones((1, 1, 1), np.uint8))


def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path):
    """A process that keeps growing corrections is killed at some moment; what it left is one of its states."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from napari_sparsetok.files.autosave import CorrectionStore, Lineage
        store = CorrectionStore(Path(sys.argv[1]))
        corrections = np.zeros((40, 200, 200), np.uint8)
        for number in range(1, 40 * 200):
            corrections.reshape(-1, 200)[number - 1] = 1 + number % 3
            store.keep("cd" * 32, corrections)
            print(number, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last >= 12:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    back = CorrectionStore(tmp_path).give_back("cd" * 32)
    rows = np.count_nonzero(back.reshape(-1, 200).any(axis=1))
    assert rows >= last
    assert np.array_equal(back.reshape(-1, 200)[:rows, 0], 1 + np.arange(1, rows + 1) % 3)


def test_corrections_that_were_not_brought_back_are_set_aside_and_never_overwritten(tmp_path):
    old, new = np.full((2, 2, 2), 1, np.uint8), np.full((2, 2, 2), 2, np.uint8)
    CorrectionStore(tmp_path).keep(HASH, old)
    later = CorrectionStore(tmp_path)  # another day, and the person starts afresh
    later.keep(HASH, new)
    later.keep(HASH, new * 3)
    assert np.array_equal(later.give_back(HASH), new * 3)
    aside = [kept.name for kept in later.all() if kept.name != HASH]
    assert len(aside) == 1
    assert np.array_equal(later.give_back(aside[0]), old)
    later.remove(aside[0])
    assert [kept.name for kept in later.all()] == [HASH]


def test_corrections_that_were_brought_back_are_gone_on_with(tmp_path):
    CorrectionStore(tmp_path).keep(HASH, np.full((2, 2, 2), 1, np.uint8))
    later, mine = CorrectionStore(tmp_path), Lineage()
    back = later.give_back(HASH)
    later.go_on(HASH, mine)
    assert later.goes_on(HASH, mine)
    later.keep(HASH, back * 2, {}, mine)
    later.keep(HASH, back * 3, {}, mine)
    assert len(later.all()) == 1


def test_only_what_goes_on_with_what_is_kept_takes_its_place(tmp_path):
    """Looking at what is kept is not going on with it, and neither is having kept something else there before."""
    store, first, second = CorrectionStore(tmp_path), Lineage(), Lineage()
    arrays = [np.full((2, 2, 2), k, np.uint8) for k in (1, 2, 3)]
    store.keep(HASH, arrays[0], {}, first)
    store.give_back(HASH)
    store.keep(HASH, arrays[1], {}, second)
    store.keep(HASH, arrays[2], {}, first)
    kept = {int(store.give_back(one.name)[0, 0, 0]) for one in store.all()}
    assert kept == {1, 2, 3}
    assert int(store.give_back(HASH)[0, 0, 0]) == 3


def test_what_another_window_kept_meanwhile_is_set_aside(tmp_path):
    mine, theirs = CorrectionStore(tmp_path), CorrectionStore(tmp_path)
    mine.keep(HASH, np.full((2, 2, 2), 1, np.uint8))
    theirs.give_back(HASH)
    theirs.go_on(HASH, None)
    theirs.keep(HASH, np.full((2, 2, 2), 2, np.uint8))
    mine.keep(HASH, np.full((2, 2, 2), 3, np.uint8))
    assert {int(mine.give_back(one.name)[0, 0, 0]) for one in mine.all()} == {2, 3}


def test_two_windows_on_one_scan_lose_nothing_and_do_not_fill_the_disk(tmp_path):
    """Each finds what the other wrote, time and again."""
    windows = [(CorrectionStore(tmp_path), Lineage()) for _ in range(2)]
    CorrectionStore(tmp_path).keep(HASH, np.full((2, 2, 2), 100, np.uint8), {}, Lineage())  # of another day
    for k in range(1, 11):
        for which, (store, lineage) in enumerate(windows):
            store.keep(HASH, np.full((2, 2, 2), 10 * which + k, np.uint8), {}, lineage)
    store = windows[0][0]
    # The newest of the first window, and of the second what lies in its place and what was set aside last.
    assert sorted(int(store.give_back(one.name)[0, 0, 0]) for one in store.all()) == [10, 19, 20, 100]
    assert all(one.is_aside for one in store.all() if one.name != HASH)


def test_a_clock_that_was_set_back_costs_nothing(tmp_path):
    """Two files of nobody known, written at the same moment by the clock."""
    for k in (1, 2, 3):
        store = CorrectionStore(tmp_path)
        path = store.keep(HASH, np.full((2, 2, 2), k, np.uint8))
        os.utime(path, ns=(10**18, 10**18))
    assert {int(store.give_back(one.name)[0, 0, 0]) for one in store.all()} == {1, 2, 3}


def test_if_the_disk_is_full_the_corrections_of_another_day_are_still_found(tmp_path, monkeypatch):
    old = np.full((2, 2, 2), 1, np.uint8)
    CorrectionStore(tmp_path).keep(HASH, old)
    later = CorrectionStore(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(ScanError, match="save the mask now"):
        later.keep(HASH, old * 2)
    assert np.array_equal(CorrectionStore(tmp_path).give_back(HASH), old)


def test_notes_come_back_with_the_corrections(tmp_path):
    store = CorrectionStore(tmp_path)
    array = np.zeros((4, 5, 6), np.uint8)
    array[1, 2, 3] = 7
    store.keep(HASH, array, {"seconds": 3.5, "reviewed_slices": {"axial": [1]}})
    assert store.notes(HASH) == {"seconds": 3.5, "reviewed_slices": {"axial": [1]}}
    assert store.find(HASH).shape == (4, 5, 6)
    store.keep(HASH, array)
    assert store.notes(HASH) == {}
    assert store.notes("cd" * 32) == {}


def test_painting_on_while_it_is_kept_leaves_a_file_that_can_be_read(tmp_path):
    store, array = CorrectionStore(tmp_path), np.zeros((40, 200, 200), np.uint8)
    stop = threading.Event()

    def paint() -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            z, y, x = rng.integers(0, (40, 190, 190))
            array[z, y : y + 10, x : x + 10] = rng.integers(0, 3)
            # A painter that never rests holds the interpreter, and each of the file's small reads waits for it.
            stop.wait(0.0005)

    painter = threading.Thread(target=paint)
    painter.start()
    try:
        for _ in range(15):
            store.keep(HASH, array)
            assert set(np.unique(store.give_back(HASH))) <= {0, 1, 2}
    finally:
        stop.set()
        painter.join()
    store.keep(HASH, array)
    assert np.array_equal(store.give_back(HASH), array)


def test_a_bit_that_turned_costs_one_file_and_stops_nobody(tmp_path):
    """Whatever the bit is in: the list, the other files and the keeping of this scan go on."""
    rng = np.random.default_rng(0)
    corrections = np.zeros((6, 20, 20), np.uint8)
    corrections[2:4, 5:15, 5:15] = rng.integers(1, 4, (2, 10, 10))
    other = "cd" * 32
    whole = CorrectionStore(tmp_path / "whole")
    sound = bytearray(whole.keep(HASH, corrections, {"a": 1}, Lineage()).read_bytes())
    (tmp_path / "kept").mkdir()
    store = CorrectionStore(tmp_path / "kept")
    store.keep(other, corrections)
    for _ in range(400):
        damaged = bytearray(sound)
        for at in rng.integers(0, len(sound), rng.integers(1, 4)):
            damaged[at] ^= 1 << int(rng.integers(0, 8))
        path = tmp_path / "kept" / f"{HASH}.corrections.npz"
        path.write_bytes(damaged)
        with contextlib.suppress(ScanError):
            store.give_back(HASH)
        assert other in [kept.name for kept in store.all()]
        store.find("ef" * 32)
        store.notes(HASH)
        path.write_bytes(damaged)
        store.keep(HASH, corrections, lineage=Lineage())
        assert np.array_equal(store.give_back(HASH), corrections)
        for file in (tmp_path / "kept").glob(f"{HASH}*"):
            file.unlink()
