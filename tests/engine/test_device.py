"""How many threads are worth starting beside what other programs do."""

from __future__ import annotations

import platform

import psutil
import pytest
import torch

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.device import Neighbours


@pytest.fixture
def clock(monkeypatch):
    """Time, and processor time of others, as a test says."""
    now = [0.0, 0.0]
    monkeypatch.setattr(Neighbours, "_read", staticmethod(lambda: (now[0], now[1])))
    return now


def test_cores_of_others_are_those_since_it_was_last_asked(clock):
    neighbours = Neighbours()
    clock[:] = 2.0, 3.0
    assert neighbours.cores == pytest.approx(1.5)
    clock[:] = 3.0, 3.2
    assert neighbours.cores == pytest.approx(0.2)


def test_what_was_true_stays_for_a_moment(clock):
    neighbours = Neighbours()
    clock[:] = 1.0, 1.0
    assert neighbours.cores == pytest.approx(1.0)
    clock[:] = 1.1, 1.1
    clock[1] = 1.0
    assert neighbours.cores == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("cores", "usual", "others", "threads"),
    [(2, 2, 0.2, 2), (2, 2, 0.8, 1), (2, 2, 5.0, 1), (8, 4, 3.0, 4), (8, 4, 6.0, 2), (2, 1, 2.0, 1)],
)
def test_threads_that_need_not_wait(clock, monkeypatch, cores, usual, others, threads):
    monkeypatch.setattr(psutil, "cpu_count", lambda: cores)
    neighbours = Neighbours()
    clock[:] = 1.0, others
    with devices.threads(usual):
        assert neighbours.free_threads() == threads


def test_the_real_clock_never_says_less_than_none():
    neighbours = Neighbours()
    neighbours._last = (neighbours._last[0] - 1, neighbours._last[1])
    assert 0 <= neighbours.cores <= (psutil.cpu_count() or 1) + 0.5


def test_threads_are_as_before_afterwards_even_after_a_failure():
    usual = torch.get_num_threads()

    def fail() -> None:
        with devices.threads(usual + 1):
            assert torch.get_num_threads() == usual + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == usual


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of most Linux systems")
def test_what_was_freed_is_not_asked_for_again():
    """A page of memory that comes from the system is a fault; what was kept causes none."""
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    devices.keep_freed_memory()
    faults()
    # Now and then a page is taken away meanwhile all the same; without the setting no turn is free of faults.
    assert min(faults() for _ in range(30)) < 16 * 2**20 / resource.getpagesize() / 4


def test_one_core_more_is_left_to_a_window_that_is_drawn_meanwhile(clock, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    neighbours = Neighbours()
    assert neighbours.free_threads() == 4
    assert neighbours.free_threads(spare=True) == 3
    clock[:] = 2.0, 7.0
    assert neighbours.free_threads(spare=True) == 1
    monkeypatch.setattr(psutil, "cpu_count", lambda: 1)
    assert neighbours.free_threads(spare=True) == 1
