"""The model is loaded once, run once on nothing, and its pace is known from then on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import tiny
from fakes import FakeSegmenter, make_prediction, make_scan

from napari_sparsetok.engine import segmenter
from napari_sparsetok.engine.ready import Ready
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.state import Settings, Timing
from napari_sparsetok.weights import Registry

SETTINGS = Settings("fake", 0.25)


@dataclass
class WarmSegmenter(FakeSegmenter):
    warmed: list[str] = field(default_factory=list)

    def warm_up(self, settings: Settings, should_stop: Callable[[], bool]) -> Iterator[tuple[float, float]]:
        self.warmed.append(settings.model)
        yield from ((0.1, 0.05), (1.0, 0.5))


def test_a_model_is_said_to_load_once_and_warmed_up_once():
    engine, said = WarmSegmenter(), []
    ready = Ready(lambda: engine)
    for _ in range(2):
        assert ready.get(SETTINGS, lambda: said.append("loading"))[0] is engine
        ready.warm_up(SETTINGS, 2, lambda: False)
    assert said == ["loading"]
    assert engine.warmed == ["fake"]
    assert len(ready.pace(SETTINGS, 2)) == 2
    ready.get(replace(SETTINGS, model="other"), lambda: said.append("loading"))
    assert said == ["loading", "loading"]


def test_a_warm_up_that_was_ended_is_done_the_next_time():
    class Ended(WarmSegmenter):
        def warm_up(self, settings, should_stop):
            for time in super().warm_up(settings, should_stop):
                if should_stop():
                    return
                yield time

    engine = Ended()
    ready = Ready(lambda: engine)
    ready.get(SETTINGS, lambda: None)
    ready.warm_up(SETTINGS, 2, lambda: True)
    assert len(ready.pace(SETTINGS, 2)) == 0
    for _ in range(2):
        ready.warm_up(SETTINGS, 2, lambda: False)
    assert len(ready.pace(SETTINGS, 2)) == 2


def test_only_runs_that_say_something_of_the_slider_count():
    ready = Ready(FakeSegmenter)
    scan = make_scan()
    timing = Timing(first=0.1, total=0.2, cached=1.0, windows=1, device="CPU")
    ready.note(make_prediction(scan, SETTINGS, timing=timing))
    ready.note(make_prediction(scan, SETTINGS, timing=replace(timing, cached=0.0)))
    ready.note(make_prediction(scan, replace(SETTINGS, threshold=0.5), timing=timing))
    assert len(ready.pace(SETTINGS, 2)) == 1


def test_the_engine_runs_a_window_of_nothing_and_can_be_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "_LONG_WARM_UP", math.inf)  # on a busy machine each takes long
    tiny.write_model(tmp_path)
    engine = SCDSegmenter(Registry([tmp_path]))
    times = list(engine.warm_up(Settings("tiny"), lambda: False))
    assert [ratio for ratio, _ in times] == [0.1, 0.4, 1.0]
    assert all(seconds > 0 for _, seconds in times)
    assert list(engine.warm_up(Settings("tiny"), lambda: True)) == []


def test_a_slow_machine_is_not_kept_busy_with_larger_ratios(tmp_path, monkeypatch):
    tiny.write_model(tmp_path)
    monkeypatch.setattr(segmenter, "_LONG_WARM_UP", 0.0)
    times = SCDSegmenter(Registry([tmp_path])).warm_up(Settings("tiny"), lambda: False)
    assert [ratio for ratio, _ in times] == [0.1]
