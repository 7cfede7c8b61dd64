"""What is computed before anybody asks for it: when, what of it is shown, and what it must never get in the way of."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE, FakeSegmenter, Mailbox, expected_mask, make_card, make_registry, make_scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sparsetok import ahead as ahead_module
from napari_sparsetok.scan import Region, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction, Settings


class Bench:
    """A session that looks ahead, with an engine whose runs nobody holds up unless told."""

    def __init__(self, engine: FakeSegmenter | None = None, ratios: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6)) -> None:
        self.engine = engine or FakeSegmenter(free=True)
        self.mailbox = Mailbox()
        self.ratios = ratios
        self.session = Session(
            make_segmenter=lambda: self.engine,
            registry=make_registry(make_card("fake"), make_card("other")),
            settings=Settings(keep_ratio=0.5),
            deliver=self.mailbox.deliver,
            look_ahead=True,
        )
        self.state = self.session.state
        self.shown: list[Prediction] = []
        self.state.events.prediction.connect(lambda p: p is not None and self.shown.append(p))
        self.scan = make_scan()
        self.session.set_scan(self.scan)

    @property
    def ahead(self) -> Any:
        return self.session._ahead

    def until(self, ready: Any) -> None:
        self.mailbox.until(ready)

    def at_the_gate(self) -> float:
        """The keep ratio of the window that comes to the gate next; letters are opened meanwhile."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.mailbox.empty()
            with suppress(queue.Empty):
                return self.engine.arrived.get(timeout=0.01)
        raise TimeoutError("no window came to the gate")

    def segment(self) -> None:
        self.session.run()
        self.until(lambda: self.state.prediction is not None and self.state.busy is None)

    def rest(self) -> None:
        """Wait until nothing is computed any more, asked for or not."""
        assert self.session.wait(PATIENCE)
        self.mailbox.empty()
        assert self.session.wait(PATIENCE)

    def all_known(self) -> None:
        self.until(lambda: len(self.ahead) == len(self.ratios))

    def end(self) -> None:
        self.engine.free = True
        self.engine.let(1000)
        self.session.close()
        assert self.session.wait(PATIENCE)


@pytest.fixture(autouse=True)
def few_ratios_and_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "STEPS", np.array([0.3, 0.4, 0.5, 0.6]))
    monkeypatch.setattr(ahead_module, "_REST", 0.0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.end()


def test_on_idle_the_other_ratios_are_computed_the_nearest_first(bench: Bench) -> None:
    bench.segment()
    bench.all_known()
    assert bench.engine.finished[:2] == [0.5, 0.4] or bench.engine.finished[:2] == [0.5, 0.6]
    assert sorted(bench.engine.finished) == [0.3, 0.4, 0.5, 0.6]
    assert [p.settings.keep_ratio for p in bench.shown] == [0.5]  # nobody is shown what nobody asked for


def test_it_is_said_while_there_is_more_to_compute(bench: Bench) -> None:
    said: list[bool] = []
    bench.state.events.looking_ahead.connect(said.append)
    bench.segment()
    bench.until(lambda: said == [True, False])
    assert len(bench.ahead) == len(bench.ratios)
    bench.session.set_keep_ratio(0.3)
    bench.session.choose(model="other")
    assert said == [True, False]


def test_the_slider_then_answers_before_the_event_is_over(bench: Bench) -> None:
    bench.segment()
    bench.all_known()
    runs = len(bench.engine.runs)
    for live in (True, False):
        for ratio in (0.3, 0.6, 0.4):
            bench.session.set_keep_ratio(ratio, live=live)
            shown = bench.state.prediction
            assert shown is not None
            assert shown.settings.keep_ratio == ratio
            assert shown.complete
            np.testing.assert_array_equal(shown.mask, expected_mask(bench.scan, ratio))
            assert bench.state.tokens is shown.tokens
            assert shown.timing.recalled
    bench.mailbox.empty()
    assert len(bench.engine.runs) == runs


def test_before_anything_was_segmented_nothing_is_computed_ahead(bench: Bench) -> None:
    bench.session.warm_up()
    assert bench.session.wait(PATIENCE)
    bench.mailbox.empty()
    assert bench.session.wait(PATIENCE)
    assert not bench.engine.runs


def test_what_is_asked_for_comes_before_what_is_not() -> None:
    bench = Bench(FakeSegmenter())
    try:
        bench.session.run()
        assert bench.at_the_gate() == 0.5
        bench.engine.let()
        bench.until(lambda: bench.state.prediction is not None and bench.state.busy is None)
        ahead = bench.at_the_gate()  # now it waits at the gate, unasked
        assert ahead != 0.5
        assert bench.state.busy is None
        bench.session.set_keep_ratio(0.45)
        bench.engine.let(2)
        bench.until(lambda: bench.state.prediction.settings.keep_ratio == 0.45)
        assert bench.engine.finished[:3] == [0.5, ahead, 0.45]
    finally:
        bench.end()


def test_an_older_ratio_that_is_still_computed_does_not_come_after_a_recalled_one() -> None:
    bench = Bench(FakeSegmenter())
    try:
        bench.session.run()
        bench.at_the_gate()
        bench.engine.let()
        bench.until(lambda: bench.state.prediction is not None)
        bench.at_the_gate()  # unasked
        bench.session.set_keep_ratio(0.99)
        bench.engine.let()
        assert bench.at_the_gate() == 0.99
        bench.session.set_keep_ratio(0.5)  # known
        assert bench.state.prediction.settings.keep_ratio == 0.5
        assert bench.state.busy is None
        bench.engine.let(10)
        bench.all_known()
        assert bench.state.prediction.settings.keep_ratio == 0.5
        assert [p.settings.keep_ratio for p in bench.shown] == [0.5, 0.5]
    finally:
        bench.end()


def test_another_scan_or_model_or_setting_is_another_matter(bench: Bench) -> None:
    bench.segment()
    bench.all_known()
    settings = replace(bench.state.settings, keep_ratio=0.3)
    assert bench.ahead.find(bench.scan, settings, None) is not None
    assert bench.ahead.find(bench.scan, settings, Region.whole(bench.scan.shape)) is not None
    assert bench.ahead.find(bench.scan, settings, Region((0, 0, 0), (8, 8, 8))) is None
    assert bench.ahead.find(make_scan(), settings, None) is None
    for other in ({"selection": "norm"}, {"threshold": 0.5}, {"stage_ratios": (0.3, 0.2)}, {"device": "cpu"}):
        assert bench.ahead.find(bench.scan, replace(settings, **other), None) is None
    bench.session.choose(model="other")
    assert len(bench.ahead) == 0
    bench.session.set_keep_ratio(0.3)
    assert bench.state.prediction is None


def test_a_chosen_rule_is_looked_ahead_with_instead_of_the_one_before(bench: Bench) -> None:
    bench.segment()
    bench.all_known()
    bench.session.choose(selection="norm")
    bench.session.run()
    bench.until(lambda: bench.state.prediction.settings.selection == "norm")
    bench.all_known()
    assert all(p.settings.selection == "norm" for p in bench.ahead._found.values())


def test_scans_for_which_there_is_no_room_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "_LARGEST", 2 * 16 * 20 * 12)  # one mask, but not two with their tokens
    bench = Bench()
    try:
        bench.segment()
        bench.rest()
        assert bench.engine.finished in ([0.5], [0.5, 0.4], [0.5, 0.6])
        assert len(bench.ahead) <= 1
    finally:
        bench.end()


def test_slow_scans_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "_SLOWEST", 0.03)  # the fake says 0.1
    bench = Bench()
    try:
        bench.segment()
        bench.rest()
        assert bench.engine.finished == [0.5]
    finally:
        bench.end()


def test_a_slow_one_ends_it_until_a_mask_was_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "_SLOWEST", 0.05)  # of the first mask three times as much may be its prefixes
    bench = Bench()
    try:
        bench.segment()
        bench.rest()
        assert len(bench.engine.finished) == 2  # one ahead, which took 0.1
        assert not bench.state.looking_ahead
        monkeypatch.setattr(ahead_module, "_SLOWEST", 1.0)
        bench.session.set_keep_ratio(0.55)
        bench.until(lambda: len(bench.ahead) == 5)
    finally:
        bench.end()


def test_it_waits_while_the_person_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "_REST", 3600.0)
    bench = Bench()
    try:
        bench.session.attend()
        bench.segment()
        bench.until(lambda: bench.session._computer.is_free)
        assert not bench.session.wait(0.3)  # a quiet job is there, and waits
        assert bench.engine.finished == [0.5]
        bench.session.set_keep_ratio(0.4)  # but never longer than until something is asked for
        bench.until(lambda: bench.state.prediction.settings.keep_ratio == 0.4)
    finally:
        bench.end()


@pytest.mark.parametrize("error", [ScanError("no"), ValueError("a bug")])
def test_a_failure_ahead_ends_looking_ahead(error: Exception, bench: Bench) -> None:
    bench.engine.free = False
    bench.session.run()
    bench.at_the_gate()
    bench.engine.let()
    bench.at_the_gate()
    bench.engine.fail = error
    bench.engine.let()
    bench.until(lambda: bench.ahead._given_up)
    assert bench.session.wait(PATIENCE)
    bench.mailbox.empty()
    assert bench.session.wait(PATIENCE)
    assert len(bench.engine.runs) == 2
    assert bench.state.prediction.settings.keep_ratio == 0.5


def test_what_the_engine_has_to_say_ahead_reaches_the_person_too(bench: Bench) -> None:
    said: list[str] = []
    bench.state.events.message.connect(lambda message: said.append(message.text))
    bench.segment()
    bench.engine.notice = "The GPU is out of memory."
    bench.all_known()
    bench.rest()
    assert "The GPU is out of memory." in said


def test_closing_ends_it() -> None:
    bench = Bench(FakeSegmenter())
    bench.session.run()
    bench.at_the_gate()
    bench.engine.let()
    bench.at_the_gate()
    threading.Timer(0.05, bench.engine.let).start()
    bench.session.close()
    assert bench.session.wait(PATIENCE)
    assert len(bench.engine.runs) == 2


def test_a_result_that_arrives_after_a_mask_at_hand_was_shown_is_not_shown(bench: Bench) -> None:
    """It had ended before the slider came back, and only its letter was still under way."""
    bench.engine.free = True
    bench.segment()
    bench.session.set_keep_ratio(0.45)
    assert bench.session.wait(PATIENCE)  # its end lies in the mailbox
    bench.session.set_keep_ratio(0.5)
    assert bench.state.prediction.settings.keep_ratio == 0.5
    bench.rest()
    assert bench.state.prediction.settings.keep_ratio == 0.5
    assert bench.state.tokens.left == bench.state.prediction.tokens.left
    bench.session.set_keep_ratio(0.6)  # and what is asked for from here on is shown
    bench.until(lambda: bench.state.prediction.settings.keep_ratio == 0.6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([0.3, 0.4, 0.45, 0.5, 0.6]), st.booleans()), min_size=1, max_size=12))
def test_whatever_is_known_the_last_value_wins(moves: list[tuple[float, bool]]) -> None:
    bench = Bench()
    try:
        bench.segment()
        for ratio, live in moves:
            bench.session.set_keep_ratio(ratio, live=live)
            assert bench.state.settings.keep_ratio == ratio
        bench.session.set_keep_ratio(moves[-1][0])
        bench.until(lambda: bench.state.prediction.settings.keep_ratio == moves[-1][0])
        assert bench.session.wait(PATIENCE)
        bench.mailbox.empty()
        shown = bench.state.prediction
        np.testing.assert_array_equal(shown.mask, expected_mask(bench.scan, moves[-1][0]))
        assert bench.state.tokens.left == shown.tokens.left
    finally:
        bench.end()
