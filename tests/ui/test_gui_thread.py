"""What other threads hand over is called on the GUI thread, in turn."""

from __future__ import annotations

import threading
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject

from napari_sparsetok.ui.gui_thread import on_gui_thread

CALLS = 500


def test_calls_of_many_threads_arrive_each_in_its_order(qtbot: Any) -> None:
    found: list[tuple[int, int, bool]] = []

    def work(name: int) -> None:
        for number in range(CALLS):
            on_gui_thread(
                lambda number=number: found.append(
                    (name, number, threading.current_thread() is threading.main_thread())
                )
            )

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    qtbot.waitUntil(lambda: len(found) == 4 * CALLS, timeout=20_000)
    for thread in threads:
        thread.join()
    for name in range(4):
        assert [number for other, number, _ in found if other == name] == list(range(CALLS))
    assert all(on_main for _, _, on_main in found)


def test_on_the_gui_thread_nothing_is_put_off(qtbot: Any) -> None:
    found: list[int] = []
    on_gui_thread(lambda: found.append(1))
    assert found == [1]


def test_nothing_is_called_on_the_thread_that_hands_it_in(qtbot: Any) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: on_gui_thread(lambda: found.append(1)))
    thread.start()
    thread.join()
    assert found == []
    qtbot.waitUntil(lambda: found == [1])


def test_whoever_is_deleted_meanwhile_is_not_called(qtbot: Any) -> None:
    found: list[str] = []
    gone, there = QObject(), QObject()

    def work() -> None:
        on_gui_thread(lambda: found.append("gone"), gone)
        on_gui_thread(lambda: found.append("there"), there)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gone.deleteLater()
    QCoreApplication.sendPostedEvents(gone, QEvent.DeferredDelete)
    qtbot.waitUntil(lambda: bool(found))
    assert found == ["there"]
