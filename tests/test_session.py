"""Requests, threads and the one writer of the state, with a fake engine that the test leads by the hand."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE, FakeSegmenter, Mailbox, expected_mask, make_card, make_registry, make_scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sparsetok import batch as batch_module
from napari_sparsetok import session as session_module
from napari_sparsetok.engine.contract import Stopped
from napari_sparsetok.files import MadeBy, open_scan
from napari_sparsetok.scan import Region, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import DeviceReport, Message, Prediction, Settings
from napari_sparsetok.tokens import first_stage_preview


class Bench:
    """A session with a fake engine, whose state changes are written down."""

    def __init__(self, **fake: Any) -> None:
        self.engine = FakeSegmenter(**fake)
        self.mailbox = Mailbox()
        self.session = Session(
            make_segmenter=lambda: self.engine,
            registry=make_registry(make_card("fake"), make_card("other")),
            settings=Settings(keep_ratio=0.5),
            deliver=self.mailbox.deliver,
        )
        self.state = self.session.state
        self.log: list[tuple[str, Any]] = []
        for name in ("scan", "settings", "region", "tokens", "prediction", "device", "message", "busy"):
            getattr(self.state.events, name).connect(self._listener(name))
        self.scan = make_scan()
        self.session.set_scan(self.scan)

    def _listener(self, name: str) -> Callable[[Any], None]:
        def note(value: Any) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.log.append((name, value))

        return note

    def of(self, name: str) -> list[Any]:
        return [value for key, value in self.log if key == name]

    def shown(self) -> list[float]:
        """The keep ratio of every mask that was shown."""
        return [p.settings.keep_ratio for p in self.of("prediction") if p is not None]

    def idle(self) -> None:
        """Wait until all is done, and the state says so."""
        assert self.session.wait(PATIENCE)
        self.mailbox.until(lambda: self.state.busy is None)
        self.mailbox.empty()

    def first_result(self) -> None:
        self.session.run()
        self.engine.await_window()
        self.engine.let(self.engine.windows)
        self.idle()
        while not self.engine.arrived.empty():
            self.engine.arrived.get_nowait()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    end(bench)


def end(bench: Bench) -> None:
    bench.engine.free = True
    bench.engine.let(1000)
    bench.session.close()
    assert bench.session.wait(PATIENCE)


# Newest wins, all is shown


def test_a_newer_request_replaces_the_waiting_one(bench: Bench) -> None:
    bench.first_result()
    for ratio in (0.1, 0.2, 0.3, 0.9):
        bench.session.set_keep_ratio(ratio, live=True)
        if ratio == 0.1:
            assert bench.engine.await_window() == 0.1
    bench.engine.let(2)
    bench.idle()
    assert bench.engine.finished == [0.5, 0.1, 0.9]
    assert bench.shown() == [0.5, 0.1, 0.9]


def test_a_slider_moved_during_the_first_run_wins_too(bench: Bench) -> None:
    bench.session.run()
    assert bench.engine.await_window() == 0.5
    bench.session.set_keep_ratio(0.8)
    bench.engine.let(2)
    bench.idle()
    assert bench.shown() == [0.5, 0.8]
    np.testing.assert_array_equal(bench.state.prediction.mask, expected_mask(bench.scan, 0.8))


def test_in_a_drag_the_window_has_a_core_of_its_own(bench: Bench) -> None:
    bench.first_result()
    bench.engine.free = True
    for ratio, live in ((0.1, True), (0.2, True), (0.2, False)):
        bench.session.set_keep_ratio(ratio, live=live)
        bench.idle()
    assert [hints.spare_core for _, _, hints in bench.engine.runs[1:3]] == [False, True]
    assert not any(hints.spare_core for _, _, hints in bench.engine.runs[3:])


def test_before_anything_was_asked_for_the_slider_computes_nothing(bench: Bench) -> None:
    bench.session.set_keep_ratio(0.8)
    bench.idle()
    assert not bench.engine.runs
    assert bench.state.settings.keep_ratio == 0.8


def test_the_slider_at_rest_where_the_result_is_asks_for_nothing(bench: Bench) -> None:
    bench.first_result()
    bench.session.set_keep_ratio(0.5)
    bench.idle()
    assert len(bench.engine.runs) == 1
    assert bench.state.tokens is bench.state.prediction.tokens


def test_the_slider_at_rest_runs_again_for_another_region(bench: Bench) -> None:
    bench.first_result()
    region = Region((0, 0, 0), (8, 8, 8))
    bench.session.set_region(region)
    bench.session.set_keep_ratio(0.5)
    bench.engine.let()
    bench.idle()
    assert bench.state.prediction.region == region


def test_while_the_slider_is_held_only_the_window_in_focus_is_asked_for(bench: Bench) -> None:
    bench.first_result()
    bench.session.set_focus((1, 2, 3))
    bench.session.set_keep_ratio(0.3, live=True)
    bench.session.set_keep_ratio(0.3, live=False)
    bench.engine.let(2)
    bench.idle()
    assert [(hints.focus, hints.focus_only) for _, _, hints in bench.engine.runs[1:]][-1] == ((1, 2, 3), False)
    assert bench.state.prediction.complete


def test_what_a_held_slider_has_brought_is_not_computed_again_at_release(bench: Bench) -> None:
    bench.first_result()
    bench.session.set_keep_ratio(0.3, live=True)
    bench.engine.await_window()
    bench.session.set_keep_ratio(0.3, live=False)  # the one window that runs is all there is
    bench.engine.let()
    bench.idle()
    assert bench.engine.finished == [0.5, 0.3]
    bench.first_result()  # but a person who asks gets it
    assert bench.engine.finished == [0.5, 0.3, 0.3]


STEPS = st.one_of(
    st.tuples(st.just("move"), st.floats(0.02, 1).map(lambda x: round(x, 2)), st.booleans()),
    st.tuples(st.sampled_from(["let", "let", "look", "run", "cancel"])),
)


@given(
    steps=st.lists(STEPS, max_size=25), last=st.floats(0.02, 1).map(lambda x: round(x, 2)), windows=st.integers(1, 3)
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_the_last_value_wins_and_shows(
    steps: list[tuple[Any, ...]], last: float, windows: int
) -> None:
    bench = Bench(windows=windows)
    try:
        for step in [*steps, ("run",), ("move", last, False)]:
            match step:
                case ("move", ratio, live):
                    bench.session.set_keep_ratio(ratio, live=live)
                case ("let",):
                    bench.engine.let()
                case ("look",):
                    bench.mailbox.empty()
                case ("run",):
                    bench.session.run()
                case _:
                    bench.session.cancel()
        bench.engine.free = True
        bench.engine.let(1000)
        bench.idle()
        prediction = bench.state.prediction
        assert prediction.settings.keep_ratio == last
        assert prediction.complete
        assert bench.state.tokens is prediction.tokens
        np.testing.assert_array_equal(prediction.mask, expected_mask(bench.scan, last))
        kept_to_the_end = bench.engine.finished
        assert [ratio for ratio in kept_to_the_end if ratio not in bench.shown()] == []
    finally:
        end(bench)


# Long runs


def test_a_long_run_yields_only_after_it_has_shown_something() -> None:
    bench = Bench(windows=4)
    bench.session.run()
    assert bench.engine.await_window() == 0.5
    bench.session.set_keep_ratio(0.9)
    bench.engine.let()
    assert bench.engine.await_window() == 0.9
    bench.mailbox.until(lambda: bench.shown() == [0.5])
    assert not bench.state.prediction.complete
    assert bench.engine.stopped == 1
    bench.engine.let(4)
    bench.idle()
    assert bench.state.prediction.complete
    end(bench)


def test_cancel_ends_it_and_idle_follows() -> None:
    bench = Bench(windows=4)
    bench.session.run()
    bench.engine.await_window()
    bench.session.cancel()
    assert bench.state.busy.what == "stopping"
    assert not bench.state.busy.can_cancel
    bench.engine.let()
    bench.idle()
    assert bench.engine.finished == []
    assert bench.state.prediction is None
    bench.session.set_keep_ratio(0.1)
    assert len(bench.engine.runs) == 1  # the slider does not wake what was cancelled
    bench.session.run()
    bench.engine.let(4)
    bench.idle()
    assert bench.shown()[-1] == 0.1
    end(bench)


def test_what_a_cancelled_run_leaves_behind_is_said() -> None:
    bench = Bench(windows=4)
    bench.session.run()
    bench.engine.await_window()
    bench.engine.let()
    bench.mailbox.until(lambda: bench.state.prediction is not None)
    bench.session.cancel()
    assert "not finished" in bench.state.message.text
    bench.engine.let(3)
    bench.idle()
    bench.session.run()
    bench.engine.let(4)
    bench.idle()
    bench.session.set_keep_ratio(0.1)
    bench.session.cancel()
    bench.engine.let(4)
    bench.idle()
    assert bench.state.settings.keep_ratio == 0.1
    assert "settings before" in bench.state.message.text
    said = len(bench.of("message"))
    bench.session.cancel()  # nothing is computed
    assert len(bench.of("message")) == said
    end(bench)


def test_a_result_that_comes_after_cancel_is_dropped(bench: Bench) -> None:
    bench.session.run()
    bench.engine.await_window()
    bench.session.cancel()
    bench.engine.let()  # the only window: the engine never asks whether to stop
    bench.idle()
    assert bench.shown() == []


@pytest.mark.parametrize("change", ["scan", "model"])
def test_a_change_while_something_runs_drops_its_late_result(bench: Bench, change: str) -> None:
    bench.session.run()
    bench.engine.await_window()
    if change == "scan":
        bench.session.set_scan(make_scan(name="another"))
    else:
        bench.session.choose(model="other")
    bench.engine.let()
    bench.idle()
    assert bench.shown() == []
    bench.session.run()
    bench.engine.let()
    bench.idle()
    assert bench.state.prediction.scan is bench.state.scan
    assert bench.state.prediction.settings.model == bench.state.settings.model


@pytest.mark.parametrize("change", ["scan", "model"])
def test_a_result_under_way_to_the_owner_is_dropped_too(bench: Bench, change: str) -> None:
    bench.session.run()
    bench.engine.let()
    assert bench.session.wait(PATIENCE)  # computed and delivered, but not looked at
    if change == "scan":
        bench.session.set_scan(make_scan(name="another"))
    else:
        bench.session.choose(model="other")
    bench.idle()
    assert bench.shown() == []
    assert bench.state.tokens is None


def test_a_new_scan_starts_without_region_result_and_tokens(bench: Bench) -> None:
    bench.first_result()
    bench.session.set_region(Region((0, 0, 0), (4, 4, 4)))
    bench.session.set_scan(None)
    state = bench.state
    assert (state.prediction, state.tokens, state.region, state.focus, state.scan) == (None,) * 5


@pytest.mark.parametrize("change", ["scan", "model"])
def test_the_result_of_what_is_left_takes_no_more_memory(bench: Bench, change: str) -> None:
    bench.first_result()
    old = weakref.ref(bench.state.prediction)
    bench.log.clear()
    if change == "scan":
        bench.session.set_scan(make_scan())
    else:
        bench.session.choose(model="other")
    bench.idle()
    bench.log.clear()
    gc.collect()
    assert old() is None


def test_choosing_a_device_computes_nothing_and_keeps_the_result(bench: Bench) -> None:
    bench.first_result()
    bench.session.choose(device="cpu")
    assert bench.state.prediction is not None
    assert len(bench.engine.runs) == 1


# The preview


def test_the_map_of_stage_one_follows_at_once_without_the_engine(bench: Bench) -> None:
    bench.first_result()
    tokens = bench.state.tokens
    bench.session.set_keep_ratio(0.2, live=True)
    preview = bench.state.tokens  # nothing was delivered yet
    np.testing.assert_array_equal(preview.stage, first_stage_preview(tokens, 0.2).stage)
    assert set(np.unique(preview.stage)) == {1, 3}


def test_a_late_result_shows_its_mask_but_not_its_old_tokens(bench: Bench) -> None:
    bench.first_result()
    bench.session.set_keep_ratio(0.2, live=True)
    bench.engine.await_window()
    bench.session.set_keep_ratio(0.9, live=True)
    bench.engine.let()
    bench.mailbox.until(lambda: bench.shown() == [0.5, 0.2])
    assert bench.state.tokens.left[1] == first_stage_preview(bench.state.prediction.tokens, 0.9).left[1]
    assert bench.state.settings.keep_ratio == 0.9


# Errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ScanError("the scan is all one value; choose another"), "The scan is all one value; choose another."),
        (RuntimeError("Lovelace^Ada"), "That did not work (RuntimeError)."),  # a library may quote the file
        (OSError(28, "No space left on device", "/home/Lovelace"), "That did not work (No space left on device)."),
    ],
)
def test_errors_become_messages_and_the_session_goes_on(bench: Bench, error: Exception, words: str) -> None:
    bench.engine.fail = error
    bench.session.run()
    bench.engine.let()
    bench.idle()
    assert bench.state.message.text.startswith(words)
    assert bench.state.message.severity == "error"
    bench.session.set_keep_ratio(0.3)  # does not bring the same error again
    bench.idle()
    assert len(bench.engine.runs) == 1
    bench.first_result()
    assert bench.shown() == [0.3]


@pytest.mark.parametrize("asked", ["segment", "inspect"])
def test_what_the_engine_has_to_say_reaches_the_person(bench: Bench, asked: str) -> None:
    bench.engine.notice, bench.engine.free = "The GPU is out of memory.", True
    if asked == "segment":
        bench.session.run()
    else:
        scan, settings = bench.scan, bench.state.settings
        assert bench.session.inspect(
            lambda engine, watch, _: engine.segment(scan, settings, watch=watch), lambda _: None, "looking"
        )
    bench.idle()
    said = bench.state.message
    assert (said.text, said.severity) == ("The GPU is out of memory.", "warning")


def test_one_reason_is_said_once_while_the_slider_moves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: Settings) -> Any:
        raise ScanError("there is no such GPU here")

    bench.first_result()
    monkeypatch.setattr(bench.engine, "prepare", refuse)
    for ratio in (0.1, 0.2, 0.3, 0.4):
        bench.session.set_keep_ratio(ratio, live=True)
        bench.idle()
    assert len(bench.of("message")) == 1
    bench.session.run()  # a person asked, and hears it again
    bench.idle()
    assert len(bench.of("message")) == 2
    monkeypatch.undo()
    bench.engine.free = True
    bench.session.set_keep_ratio(0.6)
    bench.idle()
    assert bench.state.prediction.settings.keep_ratio == 0.6
    monkeypatch.setattr(bench.engine, "prepare", refuse)
    bench.session.set_keep_ratio(0.7)  # after it worked, it is news
    bench.idle()
    assert len(bench.of("message")) == 3


def test_being_stopped_is_no_error(bench: Bench) -> None:
    bench.engine.fail = Stopped()
    bench.session.run()
    bench.engine.let()
    bench.idle()
    assert bench.state.message is None


def test_an_engine_that_cannot_be_made_is_tried_again() -> None:
    made: list[FakeSegmenter] = []

    def make() -> FakeSegmenter:
        made.append(FakeSegmenter(free=True))
        if len(made) == 1:
            raise OSError("no such library")
        return made[-1]

    mailbox = Mailbox()
    session = Session(make_segmenter=make, registry=make_registry(), deliver=mailbox.deliver)
    session.set_scan(make_scan())
    for _ in range(2):
        session.run()
        assert session.wait(PATIENCE)
        mailbox.empty()
    assert session.state.prediction is not None
    session.close()


def test_what_is_asked_without_a_scan_or_mask_is_answered_in_words(bench: Bench) -> None:
    bench.session.set_scan(None)
    bench.session.run()
    assert bench.state.message == bench.of("message")[-1]
    assert "Open a scan first" in bench.state.message.text
    bench.session.save_mask("mask.nii.gz")
    assert "segment the scan first" in bench.state.message.text


def test_the_log_says_nothing_of_the_patient(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.engine.fail = OSError("/scans/jane_doe.nii")
    bench.session.run()
    bench.engine.let()
    bench.idle()
    assert "OSError" in caplog.text
    assert "jane" not in caplog.text


def test_a_device_is_said_once_and_an_idle_gpu_loudly() -> None:
    bench = Bench(free=True, device=DeviceReport("CPU (the GPU cannot be used)", "A GPU lies idle."))
    bench.first_result()
    bench.session.run()
    bench.idle()
    assert [m.text for m in bench.of("message")] == ["A GPU lies idle."]
    assert len(bench.of("device")) == 1
    end(bench)


def test_a_device_that_gave_up_on_the_way_is_said_after_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.engine.segment

    def given_up(*args: Any, **more: Any) -> Any:
        bench.engine.device = DeviceReport("CPU (the GPU ran out of memory)")
        return real(*args, **more)

    monkeypatch.setattr(bench.engine, "segment", given_up)
    bench.first_result()
    assert bench.state.device.name == "CPU (the GPU ran out of memory)"


# Files


def wait_to_save(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Make saving wait. Returns: set when it has begun, to be set so that it goes on."""
    begun, go = threading.Event(), threading.Event()
    save = batch_module.save_mask

    def slow(*args: Any) -> Path:
        begun.set()
        assert go.wait(PATIENCE)
        return save(*args)

    monkeypatch.setattr(batch_module, "save_mask", slow)
    return begun, go


def test_a_save_is_neither_replaced_nor_dropped(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    bench.first_result()
    begun, go = wait_to_save(monkeypatch)
    bench.session.save_mask(tmp_path / "a.nii.gz")
    bench.session.save_mask(tmp_path / "b.nii.gz")
    assert begun.wait(PATIENCE)
    assert bench.state.busy.what == "saving a.nii.gz"
    assert not bench.state.busy.can_cancel
    bench.session.set_keep_ratio(0.9)
    bench.session.cancel()
    bench.session.close()  # returns although the disk has not answered
    go.set()
    bench.engine.let()
    assert bench.session.wait(PATIENCE)
    for name in ("a.nii.gz", "b.nii.gz"):
        np.testing.assert_array_equal(open_scan(tmp_path / name).voxels, expected_mask(bench.scan, 0.5))


def test_a_saved_mask_says_who_drew_it(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    bench.first_result()
    said: list[Any] = []
    save = batch_module.save_mask

    def note(*args: Any) -> Path:
        said.append(args[4])
        return save(*args)

    monkeypatch.setattr(batch_module, "save_mask", note)
    corrections = np.zeros(bench.scan.shape, np.uint8)
    for k, painted in enumerate((None, corrections, corrections + 1)):
        bench.session.save_mask(tmp_path / f"{k}.nii.gz", painted)
    bench.idle()
    assert said == [MadeBy("fake", False), MadeBy("fake", False), MadeBy("fake", True)]


def test_computing_goes_on_while_a_save_waits(bench: Bench, tmp_path: Path, monkeypatch: Any) -> None:
    bench.first_result()
    begun, go = wait_to_save(monkeypatch)
    bench.session.save_mask(tmp_path / "a.nii.gz")
    assert begun.wait(PATIENCE)
    read: list[str] = []
    bench.session.load(lambda: "read", read.append, "opening")
    bench.session.set_keep_ratio(0.9)
    bench.engine.let()
    bench.mailbox.until(lambda: bench.shown() == [0.5, 0.9] and read)
    go.set()
    bench.idle()
    assert "Saved the mask as a.nii.gz" in bench.state.message.text


def test_saving_an_unfinished_mask_is_said(tmp_path: Path) -> None:
    bench = Bench(windows=2)
    bench.session.run()
    bench.engine.let()
    bench.mailbox.until(lambda: bench.state.prediction is not None)
    bench.session.save_mask(tmp_path / "a.nii.gz")
    bench.mailbox.until(lambda: bench.state.message is not None)
    assert bench.state.message.severity == "warning"
    assert "unfinished" in bench.state.message.text
    end(bench)


def test_a_save_that_fails_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.first_result()
    bench.session.save_mask(tmp_path / "mask.png")
    bench.idle()
    assert bench.state.message.severity == "error"
    assert ".nii.gz" in bench.state.message.text


def test_a_save_that_fails_after_closing_is_logged(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.first_result()
    bench.session.save_mask(tmp_path / "mask.png")
    bench.session.close()
    assert bench.session.wait(PATIENCE)
    assert "may not be on disk" in caplog.text or bench.state.message is None


def test_opening_hands_the_scan_over_on_the_owners_thread(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.first_result()
    bench.session.save_mask(tmp_path / "a.nii.gz")
    bench.idle()
    threads: list[Any] = []
    seen = threading.Event()  # a small file is read sooner than this thread looks

    def read(path: Path) -> Any:
        assert seen.wait(PATIENCE)
        return open_scan(path)

    monkeypatch.setattr(session_module, "open_scan", read)
    bench.session.open(tmp_path / "a.nii.gz", lambda scan: threads.append((scan.name, threading.current_thread())))
    assert bench.state.busy is not None
    assert bench.state.busy.what == "opening a.nii.gz"
    seen.set()
    bench.idle()
    assert threads[0][1] is threading.main_thread()


def test_a_file_that_cannot_be_opened_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.session.open(tmp_path / "nothing.nii.gz", lambda scan: pytest.fail("there is no scan"))
    bench.idle()
    assert bench.state.message.severity == "error"


def test_reading_that_is_followed_says_how_far_it_is(bench: Bench) -> None:
    heard: list[str] = []

    def read(watch: Any) -> str:
        for done in range(1001):
            watch.step(done, 1000)
        return "a scan"

    bench.session.follow(read, heard.append, "opening a folder")
    bench.idle()
    assert heard == ["a scan"]
    steps = [busy for busy in bench.of("busy") if busy is not None]
    assert {busy.what for busy in steps} == {"opening a folder"}
    assert {busy.unit for busy in steps} == {"%"}
    assert [busy.done for busy in steps] == sorted(busy.done for busy in steps)
    assert len(steps) <= 102, "each per cent is said once"


def test_what_is_read_is_said_while_something_computed_is_still_to_end() -> None:
    bench, go = Bench(windows=4), threading.Event()
    bench.session.run()
    bench.engine.await_window()
    bench.session.cancel()
    assert bench.state.busy.what == "stopping"
    bench.session.follow(lambda watch: go.wait(PATIENCE), lambda _: None, "opening another scan")
    assert bench.state.busy.what == "opening another scan"
    go.set()
    bench.engine.let()
    bench.idle()
    end(bench)


def test_reading_that_is_followed_can_be_stopped(bench: Bench) -> None:
    begun, go = threading.Event(), threading.Event()

    def read(watch: Any) -> None:
        begun.set()
        assert go.wait(PATIENCE)
        watch.step(1, 2)
        pytest.fail("it was not stopped")

    bench.session.follow(read, lambda _: pytest.fail("nothing was read"), "opening a folder")
    bench.session.follow(
        lambda watch: pytest.fail("it waited and was forgotten"), lambda _: None, "opening another folder"
    )
    assert begun.wait(PATIENCE)
    assert bench.state.busy.can_cancel
    bench.session.cancel()
    assert bench.state.busy.what == "stopping"
    go.set()
    bench.idle()
    assert bench.state.message is None
    heard: list[Any] = []
    bench.session.follow(lambda watch: 3, heard.append, "opening a third", otherwise=lambda: heard.append("nothing"))
    bench.idle()
    assert heard == [3]


@pytest.mark.parametrize("when", ["before it begins", "while it works", "before anybody looks", "by itself"])
def test_what_comes_to_nothing_is_told(bench: Bench, when: str) -> None:
    before, begun, go, heard = threading.Event(), threading.Event(), threading.Event(), []

    def read(watch: Any) -> int:
        begun.set()
        assert go.wait(PATIENCE)
        if when == "by itself":
            raise ScanError("it cannot be read")
        if when == "while it works":
            watch.look()
        return 3

    bench.session.load(lambda: before.wait(PATIENCE), lambda _: None, "opening something large")
    bench.session.follow(read, heard.append, "opening a folder", otherwise=lambda: heard.append("nothing"))
    if when == "before it begins":
        bench.session.cancel()
    before.set()
    if when == "while it works":
        assert begun.wait(PATIENCE)
        bench.session.cancel()
    go.set()
    if when == "before anybody looks":
        assert bench.session.wait(PATIENCE)
        bench.session.cancel()
    bench.idle()
    assert heard == ["nothing"]


@pytest.mark.parametrize("slow", ["read", "look"])
def test_a_tool_waits_for_no_file_and_for_no_list(bench: Bench, slow: Any) -> None:
    begun, go, heard = threading.Event(), threading.Event(), []

    def crawl() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    bench.session.load(crawl, lambda _: heard.append("crawled"), "crawling", slow)
    assert begun.wait(PATIENCE)
    bench.session.follow(lambda watch: "a change", heard.append, "working on the mask", "tool")
    bench.mailbox.until(lambda: heard)
    assert heard == ["a change"]
    go.set()
    bench.idle()
    assert heard == ["a change", "crawled"]


# Order


def test_busy_and_idle_come_in_order_and_busy_is_written_last() -> None:
    bench = Bench(windows=2)
    bench.engine.loading.clear()
    bench.session.run()
    bench.mailbox.until(lambda: bench.state.busy.what == "loading the model")
    bench.engine.loading.set()
    bench.engine.let()
    bench.mailbox.until(lambda: bench.state.busy.done == 1)
    assert bench.state.busy.total == 2
    bench.engine.let()
    bench.idle()
    busy = bench.of("busy")
    assert [b.what if b else "idle" for b in busy[:2]] == ["segmenting “scan”", "loading the model"]
    assert busy.count(None) == 1
    assert bench.log[-1] == ("busy", None)
    names = [name for name, _ in bench.log]
    assert names.index("tokens") < names.index("prediction")
    end(bench)


def test_idle_is_said_only_after_the_last_result_was_shown(bench: Bench) -> None:
    bench.session.run()
    bench.engine.let()
    assert bench.session.wait(PATIENCE)  # it has ended, but nobody looked
    bench.mailbox.until(lambda: bench.state.prediction is not None)
    assert bench.state.busy is not None
    bench.idle()


def test_every_write_to_the_state_is_on_the_owners_thread(bench: Bench) -> None:
    bench.first_result()  # Bench._listener asserts it
    assert bench.engine.threads == {"sparsetok-compute"}
    assert {"device", "tokens", "prediction", "busy"} <= {name for name, _ in bench.log}


def test_without_looking_at_the_mail_nothing_changes(bench: Bench) -> None:
    bench.session.run()
    before = len(bench.log)
    bench.engine.let()
    assert bench.session.wait(PATIENCE)
    assert len(bench.log) == before


def test_closing_ends_the_thread_and_silences_it(bench: Bench) -> None:
    bench.session.run()
    bench.engine.await_window()
    bench.session.close()
    before = len(bench.log)
    bench.engine.let()
    assert bench.session.wait(PATIENCE)
    bench.session._computer._thread.join(PATIENCE)
    assert not bench.session._computer._thread.is_alive()
    bench.mailbox.empty()
    assert len(bench.log) == before
    bench.session.run()  # asks nobody
    assert len(bench.engine.runs) == 1


def test_voxels_are_counted_before_the_owner_sees_the_result(bench: Bench) -> None:
    bench.session.set_region(Region((0, 0, 0), (4, 20, 12)))
    bench.first_result()
    prediction: Prediction = bench.state.prediction
    assert "voxel_counts" in vars(prediction)
    np.testing.assert_array_equal(prediction.voxel_counts, np.bincount(prediction.mask.ravel(), minlength=256))


def test_two_messages_of_the_same_words_are_both_shown(bench: Bench) -> None:
    bench.session.say("twice")
    bench.session.say("twice")
    assert [m.text for m in bench.of("message")] == ["Twice.", "Twice."]
    assert all(isinstance(m, Message) for m in bench.of("message"))


def test_no_torch_is_loaded_for_another_engine() -> None:
    code = """
import sys
from fakes import FakeSegmenter, make_registry, make_scan
from napari_sparsetok.session import Session
session = Session(make_segmenter=lambda: FakeSegmenter(free=True), registry=make_registry())
session.set_scan(make_scan())
session.run()
assert session.wait() and session.state.prediction is not None
session.close()
assert "torch" not in sys.modules and "monai" not in sys.modules and "qtpy" not in sys.modules
"""
    root = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)


# Getting ready, and the latency dial


def test_a_chosen_model_is_got_ready_on_the_computing_thread_and_said(bench: Bench) -> None:
    bench.engine.loading.clear()
    bench.session.choose(model="other")
    assert "ready" in bench.state.busy.what
    assert not bench.state.busy.can_cancel
    bench.mailbox.until(lambda: bench.state.busy.what == "loading the model")
    assert not bench.state.busy.can_cancel  # or the button that says “Segment” would read “Cancel” for a while
    bench.engine.loading.set()
    bench.idle()
    assert bench.state.prediction is None
    assert bench.engine.runs == []


def test_what_is_asked_for_meanwhile_is_done_after_the_model_is_ready(bench: Bench) -> None:
    bench.engine.loading.clear()
    bench.session.warm_up()
    bench.session.run()
    bench.engine.loading.set()
    bench.engine.free = True
    bench.idle()
    assert bench.shown() == [0.5]


def test_the_dial_picks_the_ratio_from_the_times_that_were_measured(bench: Bench) -> None:
    bench.session.stay_under(0.1)
    assert "segment the scan first" in bench.state.message.text
    assert bench.state.settings.keep_ratio == 0.5
    bench.first_result()
    bench.session.stay_under(0.1)  # the first run had more to do than those that the slider asks for
    assert "move the slider" in bench.state.message.text
    pace = bench.session._ready.pace(bench.state.settings, 2)
    for ratio, seconds in ((0.1, 0.1), (0.5, 0.2), (1.0, 0.5)):
        for _ in range(8):
            pace.add(ratio, seconds)
    bench.engine.free = True
    bench.session.stay_under(0.2)
    bench.idle()
    picked = bench.state.settings.keep_ratio
    assert 0.3 < picked < 0.7
    assert bench.state.prediction.settings.keep_ratio == picked
    bench.session.stay_under(0.01)
    bench.idle()
    assert bench.state.settings.keep_ratio == 0.01
    assert "Even at 0.01" in bench.state.message.text


@pytest.mark.parametrize("rule", [{"threshold": 0.5}, {"stage_ratios": (1.0, 1.0)}])
def test_the_dial_leaves_no_other_rule_in_force(bench: Bench, rule: dict[str, Any]) -> None:
    bench.session.set_scan(make_scan())
    bench.session.warm_up()
    pace = bench.session._ready.pace(bench.state.settings, stages=2)
    for ratio in (0.1, 0.5, 1.0):
        pace.add(ratio, 0.1 + 0.2 * (ratio + ratio**2) / 2)
    bench.session.stay_under(0.15)
    dialled = bench.state.settings
    bench.session.choose(**rule)
    bench.session.stay_under(0.15)  # the same ratio, but it is not that which picks the tokens
    assert bench.state.settings == dialled


def test_the_panel_loads_no_library_that_only_a_scan_or_a_model_needs() -> None:
    code = """
import sys
import napari.viewer
before = {name.split(".")[0] for name in sys.modules}
import napari_sparsetok.ui.dock
heavy = {"torch", "monai", "nibabel", "pydicom", "SimpleITK", "highdicom", "matplotlib", "requests"} - before
loaded = heavy & {name for name in sys.modules if type(sys.modules[name]).__name__ == "module"}
assert not loaded, loaded
assert "scipy.ndimage._filters" not in sys.modules and "scipy.spatial.distance" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env=os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    )
